//! From the text of a token to a proven identity: the configuration's keys, their fetching, the checks.
//!
//! Never prints, logs or keeps a token. A verification that needs keys from the network takes time; all others answer at
//! once.

mod claims;
mod crypto;
pub(crate) mod generate;
mod jwk;
mod jwks;
mod key;
mod offered;
mod public_key;
mod refused;
mod shared_rights;
pub(crate) mod signer;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, Header, decode_header};
use serde_json::value::RawValue;

use self::claims::{Claims, Terms};
pub(crate) use self::claims::{LEEWAY, token_id};
use self::jwks::Source;
use self::key::Key;
pub(crate) use self::offered::{BEARER, Misplaced, Place, offered, ticket};
pub(crate) use self::refused::Refused;
use self::shared_rights::SharedRights;
use crate::config::Config;
use crate::fetch::{self, Client};
use crate::field::Shown;
use crate::gate::Identity;

/// The longest token, in bytes.
pub(crate) const TOKEN_BYTES: usize = 8 * 1024;
/// The most bytes of a key's name in a log.
const KID_SHOWN: usize = 64;

/// Why tokens cannot be checked with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// One of the keys cannot be used.
    #[error("`auth.keys`, key {number}{named}: {why}")]
    Key {
        /// Which key, counted from 1.
        number: usize,
        /// Its name, in words.
        named: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// `auth.cookie` is not the name of a cookie.
    #[error("`auth.cookie` = {0:?}: a cookie's name has only letters, digits and `-_.`")]
    Cookie(String),
    /// There are no CAs to check the servers of `auth.jwks` with.
    #[error("`auth.jwks`: no CA certificates in this system (is `ca-certificates` installed?); or set SSL_CERT_FILE")]
    NoRoots,
}

/// The outcome of a verification.
pub(crate) type Verified = Result<Arc<Identity>, Refused>;

/// The answer to a token.
pub(crate) enum Verification {
    /// At once.
    Now(Verified),
    /// When keys have been fetched, after a few seconds at most. It may be awaited on any runtime.
    Later(Pin<Box<dyn Future<Output = Verified> + Send>>),
}

/// Checks tokens. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Auth(Arc<Inner>);

struct Inner {
    anonymous: bool,
    /// The longest life of a token, in seconds.
    longest: u64,
    cookie: Option<Box<str>>,
    keys: Vec<Key>,
    sources: Vec<Source>,
    client: Option<Client>,
    terms: Terms,
    rights: SharedRights,
}

impl Auth {
    /// Reads the keys that the configuration names. Uses no network: [`run`](Self::run) does.
    pub(crate) fn new(config: &Config) -> Result<Self, AuthError> {
        crypto::install();
        let auth = &config.auth;
        let cookie = (!auth.cookie.is_empty()).then_some(auth.cookie.as_str());
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if let Some(name) = cookie.filter(|name| !name.chars().all(plain)) {
            return Err(AuthError::Cookie(name.to_owned()));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(auth.keys.len());
        for (number, key) in (1..).zip(&auth.keys) {
            let wrong = |why| {
                let named = key.kid.as_ref().map(|kid| format!(" ({kid:?})")).unwrap_or_default();
                AuthError::Key { number, named, why }
            };
            let loaded = Key::load(key).map_err(wrong)?;
            if loaded.kid.is_some() && keys.iter().any(|key| key.kid == loaded.kid) {
                return Err(wrong("another key has the same `kid`: give each its own".to_owned()));
            }
            keys.push(loaded);
        }
        let over_tls = auth.jwks.iter().any(crate::config::JwksUrl::is_private);
        let client = (!auth.jwks.is_empty()).then(|| Client::new(over_tls, 0)).transpose();
        Ok(Self(Arc::new(Inner {
            longest: auth.longest(),
            anonymous: auth.lets_anonymous_in(config.http.listen),
            cookie: cookie.map(Box::from),
            keys,
            sources: auth.jwks.iter().map(|url| Source::new(url.clone(), auth.jwks_keep)).collect(),
            client: client.map_err(|fetch::NoRoots| AuthError::NoRoots)?,
            terms: Terms { issuers: auth.issuer.clone(), audiences: auth.audience.clone(), longest: auth.longest() },
            rights: SharedRights::default(),
        })))
    }

    /// Whether there is anything to check tokens with.
    pub(crate) fn has_keys(&self) -> bool {
        !self.0.keys.is_empty() || !self.0.sources.is_empty()
    }

    /// The longest life of a token, in seconds.
    pub(crate) fn longest(&self) -> u64 {
        self.0.longest
    }

    /// Whether clients without a token may connect.
    pub(crate) fn lets_anonymous_in(&self) -> bool {
        self.0.anonymous
    }

    /// The name of the cookie that may hold a token.
    pub(crate) fn cookie(&self) -> Option<&str> {
        self.0.cookie.as_deref()
    }

    /// Keeps the fetched keys up to date, for ever. Run it once, on the node's main runtime.
    pub(crate) async fn run(self) {
        let Inner { sources, client, terms, .. } = &*self.0;
        let Some(client) = client else { return std::future::pending().await };
        if terms.audiences.is_empty() {
            tracing::warn!(
                "`auth.jwks` without `auth.audience`: tokens for other applications of the provider are accepted"
            );
        }
        join_all(sources.iter().map(|source| source.run(client))).await;
    }

    /// The identity that the claims of a ticket prove at the time `now`, in seconds since 1970. The cluster has made them, so they
    /// need no signature; issuer and audience are of tokens only.
    pub(crate) fn of_ticket(&self, claims: &str, now: u64) -> Result<Identity, Refused> {
        let json: &RawValue = serde_json::from_str(claims).map_err(|_| Refused::Malformed(claims::CLAIMS))?;
        let Inner { rights, longest, .. } = &*self.0;
        let terms = Terms { longest: *longest, ..Terms::default() };
        let mut identity = Claims::read(json)?.identity(&terms, now, rights)?;
        if let Some(within) = claims::bounds(json)? {
            identity.extras.get_or_insert_default().within = Some(rights.share(within));
        }
        Ok(identity)
    }

    /// The identity that a backend's answer gives to a client at the time `now`, in seconds since 1970.
    pub(crate) fn of_answer(&self, answer: &RawValue, now: u64) -> Result<Identity, Refused> {
        claims::introduced(answer, now, &self.0.rights)
    }

    /// Verifies a token at the time `now`, in seconds since 1970. Does not block.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Verification {
        let head = match Head::read(token) {
            Ok(head) => head,
            Err(refused) => return Verification::Now(Err(refused)),
        };
        let missing = match self.0.attempt(&head, token, now) {
            Attempt::Settled(verified) => return Verification::Now(head.noted(verified)),
            Attempt::NoKey(refused) => refused,
        };
        let fetches: Vec<_> = self.0.sources.iter().filter_map(Source::refresh).collect();
        if fetches.is_empty() {
            return Verification::Now(head.noted(Err(missing)));
        }
        let (auth, token) = (self.clone(), token.to_owned());
        Verification::Later(Box::pin(async move {
            join_all(fetches).await;
            let verified = match auth.0.attempt(&head, &token, now) {
                Attempt::Settled(verified) => verified,
                Attempt::NoKey(refused) => Err(refused),
            };
            head.noted(verified)
        }))
    }
}

/// What the keys at hand say about a token.
enum Attempt {
    Settled(Verified),
    /// No key has the token's name, so new keys may help. The refusal if they do not.
    NoKey(Refused),
}

impl Inner {
    /// Tries the keys that the token names; if none has its name, those of the configuration without a name.
    fn attempt(&self, head: &Head, token: &str, now: u64) -> Attempt {
        let kid = head.kid.as_deref();
        let fetched: Vec<_> = self.sources.iter().map(Source::keys).collect();
        let by_url = fetched.iter().flatten().flat_map(|keys| keys.iter()).filter(|key| key.kid.as_deref() == kid);
        let named = self.keys.iter().filter(|key| kid.is_some() && key.kid.as_deref() == kid).chain(by_url);
        if let Some(verified) = self.first(named, head, token, now) {
            return Attempt::Settled(verified);
        }
        let nameless = self.keys.iter().filter(|key| key.kid.is_none());
        match self.first(nameless, head, token, now) {
            Some(Err(refused @ (Refused::Signature | Refused::Algorithm))) if !self.sources.is_empty() => {
                Attempt::NoKey(refused)
            }
            Some(verified) => Attempt::Settled(verified),
            None if fetched.iter().any(Option::is_none) => Attempt::NoKey(Refused::Unavailable),
            None => Attempt::NoKey(Refused::UnknownKey),
        }
    }

    /// The verdict of the first key that the signature matches, or else why none does; `None` without a key.
    fn first<'k>(&self, keys: impl Iterator<Item = &'k Key>, head: &Head, token: &str, now: u64) -> Option<Verified> {
        let mut refused = None;
        for key in keys {
            match key.check(token, head.algorithm) {
                Ok(claims) => return Some(claims.identity(&self.terms, now, &self.rights).map(Arc::new)),
                // The most telling of several: a key of the right kind was there.
                Err(Refused::Algorithm) if refused.is_some() => {}
                Err(why) => refused = Some(why),
            }
        }
        refused.map(Err)
    }
}

/// What a token's header says about its key. Everything else in it is ignored: `jku`, `jwk`, `x5u` and `x5c` would let the
/// sender choose the key.
struct Head {
    algorithm: Algorithm,
    kid: Option<String>,
}

impl Head {
    fn read(token: &str) -> Result<Self, Refused> {
        if token.len() > TOKEN_BYTES {
            return Err(Refused::TooLong);
        }
        let Header { alg, kid, crit, .. } = decode_header(token).map_err(|_| {
            Refused::Malformed("it is not a signed JWT (three parts in base64url, whose first names a known `alg`)")
        })?;
        match crit {
            // RFC 7515 §4.1.11: extensions that must be understood. None is.
            Some(_) => Err(Refused::Malformed("its header has `crit`, which names extensions that are not supported")),
            None => Ok(Self { algorithm: alg, kid }),
        }
    }

    /// Logs a refusal: the key's name and the reason, nothing else of the token.
    fn noted(&self, verified: Verified) -> Verified {
        if let Err(refused) = &verified {
            let kid = self.kid.as_ref().map(|kid| Shown::at_most(kid.as_bytes(), KID_SHOWN).to_string());
            tracing::debug!(kid, refused = refused.label(), "a token is refused");
        }
        verified
    }
}
