//! The rules about two values together. A rule about one value is in its type.

use super::Config;

/// A rule that a configuration may break.
pub(super) struct Rule {
    pub(super) key: &'static str,
    pub(super) relation: &'static str,
    pub(super) other: &'static str,
    pub(super) reason: &'static str,
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
                relation: "at most half of",
                other: "limits.outbox",
                reason: "a message must fit into an outbox together with what surrounds it",
            },
        ),
        (
            limits.outbox <= limits.outbox_total,
            Rule {
                key: "limits.outbox",
                relation: "at most",
                other: "limits.outbox_total",
                reason: "the outbox of one client is part of the total",
            },
        ),
        (
            twice <= broker.in_flight_bytes.bytes(),
            Rule {
                key: "limits.message",
                relation: "at most half of",
                other: "broker.in_flight_bytes",
                reason: "a message must fit among the publishes in flight together with what surrounds it",
            },
        ),
        (
            timing.pong < timing.ping,
            Rule {
                key: "timing.pong",
                relation: "shorter than",
                other: "timing.ping",
                reason: "a ping must be answered before the next is sent",
            },
        ),
        (
            !http.proxy_protocol || !http.trusted_proxies.is_empty(),
            Rule {
                key: "http.proxy_protocol",
                relation: "accompanied by",
                other: "http.trusted_proxies",
                reason: "only trusted proxies may send the header, so no connection would be accepted",
            },
        ),
        (
            tls.certificate.is_empty() == tls.key.is_empty(),
            Rule {
                key: "tls.certificate",
                relation: "accompanied by",
                other: "tls.key",
                reason: "neither can be used without the other",
            },
        ),
    ];
    rules.into_iter().filter_map(|(holds, rule)| (!holds).then_some(rule))
}
