//! The rules about two values together. A rule about one value is in its type.

use super::{Config, Place, Who};

/// A rule that a configuration may break.
pub(super) struct Rule {
    pub(super) key: &'static str,
    /// The value and its place, for a key in a list of tables.
    pub(super) found: Option<(String, Place)>,
    pub(super) relation: &'static str,
    pub(super) other: &'static str,
    pub(super) reason: &'static str,
}

/// Who may connect and who may use the API must fit where the node listens.
fn about_clients(Config { http, auth, api, hooks, .. }: &Config) -> [(bool, Rule); 3] {
    [
        (
            auth.lets_someone_in(http.listen, hooks),
            Rule {
                key: "auth.anonymous",
                found: None,
                relation: "\"on\", unless there are keys for tokens or `hooks.connect`, with",
                other: "http.listen",
                reason: "otherwise no client could connect. There are three ways: keys for tokens (`auth.keys`, \
                         which `fanfare genkey` makes, or `auth.jwks`), a backend that is asked about each client \
                         (`hooks.connect`), or `auth.anonymous = \"on\"` (FANFARE__AUTH__ANONYMOUS=on), which lets in every \
                         client that reaches the node",
            },
        ),
        (
            auth.cookie_is_safe(http.listen),
            Rule {
                key: "auth.cookie",
                found: None,
                relation: "a name that begins with `__Host-` or `__Secure-` with",
                other: "http.listen",
                reason: "any other cookie could be set without TLS or by another host",
            },
        ),
        (
            api.has_keys(http),
            Rule {
                key: "api.keys",
                found: None,
                relation: "not empty with",
                other: "api.listen",
                reason: "other machines can reach that address. `fanfare genkey api` makes a key; or let the API listen on this \
                         machine only (`api.listen = \"auto\"`), or turn it off (\"off\")",
            },
        ),
    ]
}

/// The rules that this configuration breaks.
pub(super) fn broken(config: &Config) -> impl Iterator<Item = Rule> {
    let Config { http, tls, limits, timing, broker, .. } = config;
    let twice = limits.message.bytes().saturating_mul(2);
    let rules = [
        (
            twice <= limits.outbox.bytes(),
            Rule {
                key: "limits.message",
                found: None,
                relation: "at most half of",
                other: "limits.outbox",
                reason: "a message must fit into an outbox together with what surrounds it",
            },
        ),
        (
            limits.outbox <= limits.outbox_total,
            Rule {
                key: "limits.outbox",
                found: None,
                relation: "at most",
                other: "limits.outbox_total",
                reason: "the outbox of one client is part of the total",
            },
        ),
        (
            limits.channels_per_connection <= usize::try_from(limits.channels_per_user).unwrap_or(usize::MAX),
            Rule {
                key: "limits.channels_per_connection",
                found: None,
                relation: "at most",
                other: "limits.channels_per_user",
                reason: "the subscriptions of a connection are part of those of its user",
            },
        ),
        (
            twice <= broker.in_flight_bytes.bytes(),
            Rule {
                key: "limits.message",
                found: None,
                relation: "at most half of",
                other: "broker.in_flight_bytes",
                reason: "a message must fit among the publishes in flight together with what surrounds it",
            },
        ),
        (
            timing.pong < timing.ping,
            Rule {
                key: "timing.pong",
                found: None,
                relation: "shorter than",
                other: "timing.ping",
                reason: "a ping must be answered before the next is sent",
            },
        ),
        (
            !http.proxy_protocol || !http.trusted_proxies.is_empty(),
            Rule {
                key: "http.proxy_protocol",
                found: None,
                relation: "accompanied by",
                other: "http.trusted_proxies",
                reason: "only trusted proxies may send the header, so no connection would be accepted",
            },
        ),
        (
            tls.certificate.is_empty() == tls.key.is_empty(),
            Rule {
                key: "tls.certificate",
                found: None,
                relation: "accompanied by",
                other: "tls.key",
                reason: "neither can be used without the other",
            },
        ),
    ];
    rules
        .into_iter()
        .chain(about_clients(config))
        .filter_map(|(holds, rule)| (!holds).then_some(rule))
        .chain(too_large(config))
        .chain(unasked(config))
}

/// The rules for channels that ask a hook without a URL.
fn unasked(config: &Config) -> impl Iterator<Item = Rule> {
    let hooks = &config.hooks;
    config.channels.iter().flat_map(move |channel| {
        let place = channel.place.clone().unwrap_or(Place::Default);
        let asked = [
            ("channels.subscribe", channel.subscribe, "hooks.subscribe", &hooks.subscribe),
            ("channels.publish", channel.publish, "hooks.publish", &hooks.publish),
        ];
        asked.into_iter().filter(|(_, who, _, url)| *who == Some(Who::Hook) && url.is_none()).map(
            move |(key, _, other, _)| {
                let reason = "otherwise there is no backend to ask: set its URL";
                Rule { key, found: Some(("hook".to_owned(), place.clone())), relation: "accompanied by", other, reason }
            },
        )
    })
}

/// The rules for channels that allow larger messages than any client can send.
fn too_large(config: &Config) -> impl Iterator<Item = Rule> {
    let most = config.limits.message;
    config.channels.iter().filter_map(move |channel| {
        let message = channel.message.filter(|message| *message > most)?;
        Some(Rule {
            key: "channels.message",
            found: Some((message.to_string(), channel.place.clone().unwrap_or(Place::Default))),
            relation: "at most",
            other: "limits.message",
            reason: "a larger message is refused before its channel is known",
        })
    })
}
