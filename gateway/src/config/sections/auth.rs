//! `[auth]`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Hooks, JwksUrl, TokenKey, duration};

/// Who the clients are: the keys that check their tokens, and whether clients without a token may connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether clients without a token may connect: "on", "off", or "auto", which means "on" if `http.listen` is this machine
    /// only and there are no keys for tokens, and otherwise "off". With `hooks.connect` your backend decides instead. A node that no client
    /// could use does not start.
    pub anonymous: Anonymous,
    /// Keys that check tokens (JWT). Each is a table with `secret = "…"`, the text that your backend signs with, or `file = "…"`, a
    /// file with a public key in PEM or with a secret. A secret has at least 32 bytes; `base64:` before it means that the rest is
    /// base64. `algorithm` is HS256 for secrets, and RS256, ES256, ES384 or EdDSA for public keys by their kind; set it for HS384,
    /// HS512, RS384, RS512, PS256, PS384 or PS512. A key with a `kid` checks only tokens that name it, so two keys can be in use while
    /// you replace one. `fanfare genkey` makes a key.
    pub keys: Vec<TokenKey>,
    /// URLs of the key sets (JWKS) of identity providers: https, or http on this machine. They are read at the start, in the
    /// background from time to time, and when a token names a new key, at most every 30 s. Set `audience` too: without it, a token that
    /// the provider made for another application is accepted.
    pub jwks: Vec<JwksUrl>,
    /// The longest time from the issue of a token to its end; a token that is valid for longer is refused. "off" means no limit.
    /// Set it to how long your tokens live: a revocation is kept for this long, and with "off" for ever.
    #[serde(with = "duration::or_off")]
    pub max_life: Option<Duration>,
    /// How long keys from `jwks` stay in use while their URL cannot be read.
    #[serde(with = "duration")]
    pub jwks_keep: Duration,
    /// Issuers of tokens, such as `https://login.example.com/`: the claim `iss` must be one of them. If empty, it is not
    /// checked.
    pub issuer: Vec<String>,
    /// Names of this service: the claim `aud` must hold one of them. If empty, it is not checked.
    pub audience: Vec<String>,
    /// Name of a cookie that may hold a token; empty means none. The name begins with `__Host-` or `__Secure-`, unless
    /// `http.listen` is this machine only. The cookie counts only for pages of allowed origins.
    pub cookie: String,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            anonymous: Anonymous::Auto,
            keys: Vec::new(),
            jwks: Vec::new(),
            max_life: None,
            jwks_keep: Duration::from_secs(24 * 3600),
            issuer: Vec::new(),
            audience: Vec::new(),
            cookie: String::new(),
        }
    }
}

impl Auth {
    /// The longest life of a token, in seconds.
    pub(crate) fn longest(&self) -> u64 {
        self.max_life.map_or(u64::MAX, |longest| longest.as_secs())
    }

    /// Whether clients without a token may connect to a node that listens on this address.
    #[must_use]
    pub fn lets_anonymous_in(&self, listen: SocketAddr) -> bool {
        match self.anonymous {
            Anonymous::On => true,
            Anonymous::Off => false,
            // With keys, a node on this machine may stand behind a balancer that others can reach.
            Anonymous::Auto => is_local(listen) && self.keys.is_empty() && self.jwks.is_empty(),
        }
    }

    /// Whether a client can connect at all.
    pub(in crate::config) fn lets_someone_in(&self, listen: SocketAddr, hooks: &Hooks) -> bool {
        self.lets_anonymous_in(listen) || !self.keys.is_empty() || !self.jwks.is_empty() || hooks.connect.is_some()
    }

    /// Whether only this node's hosts can set the cookie, and only over TLS (RFC 6265bis §4.1.3), or no other machine is
    /// involved.
    pub(in crate::config) fn cookie_is_safe(&self, listen: SocketAddr) -> bool {
        let guarded = ["__Host-", "__Secure-"].iter().any(|prefix| self.cookie.starts_with(prefix));
        self.cookie.is_empty() || guarded || is_local(listen)
    }
}

/// Whether only this machine can reach the address.
fn is_local(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// Whether clients without a token may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// If the node listens on loopback and has no keys for tokens.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_without_a_token_may_connect_where_the_switch_says_so() {
        for (anonymous, listen, allowed) in [
            (Anonymous::Auto, "127.0.0.1:1", true),
            (Anonymous::Auto, "[::1]:1", true),
            (Anonymous::Auto, "[::ffff:127.0.0.1]:1", true),
            (Anonymous::Auto, "0.0.0.0:1", false),
            (Anonymous::Auto, "[::]:1", false),
            (Anonymous::Auto, "10.0.0.1:1", false),
            (Anonymous::On, "0.0.0.0:1", true),
            (Anonymous::Off, "127.0.0.1:1", false),
        ] {
            let auth = Auth { anonymous, ..Auth::default() };
            assert_eq!(auth.lets_anonymous_in(listen.parse().expect(listen)), allowed, "{anonymous:?} {listen}");
        }
    }

    #[test]
    fn a_cookie_that_other_hosts_can_set_is_only_for_this_machine() {
        for (cookie, listen, safe) in [
            ("", "0.0.0.0:1", true),
            ("__Host-session", "0.0.0.0:1", true),
            ("__Secure-session", "0.0.0.0:1", true),
            ("session", "0.0.0.0:1", false),
            ("__host-session", "0.0.0.0:1", false),
            ("session", "127.0.0.1:1", true),
        ] {
            let auth = Auth { cookie: cookie.to_owned(), ..Auth::default() };
            assert_eq!(auth.cookie_is_safe(listen.parse().expect(listen)), safe, "{cookie} {listen}");
        }
    }
}
