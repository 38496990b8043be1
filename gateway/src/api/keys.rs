//! The keys of backends: from the configuration, or one that is made at the start.
//!
//! Holds hashes only. Compares in a time that depends neither on the secret nor on whether the key's id exists.

use axum::http::{HeaderMap, header};

use crate::auth::generate::{self, NoRandomness};
use crate::config::{ApiKey, KeyHash, Pattern, Right};
use crate::gate::{Backend, SharedPace};

/// The longest id of a key, in bytes.
const ID: usize = 64;

/// Why the keys of the API cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// One of them is invalid.
    #[error("`api.keys`, key {number}: {why}")]
    Key {
        /// Which key, counted from 1.
        number: usize,
        /// What is wrong, and what to do.
        why: String,
    },
    /// No key can be made.
    #[error("cannot make a key for the API: the system gives no random numbers")]
    NoRandomness,
}

impl From<NoRandomness> for ApiError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

/// All keys.
pub(crate) struct Keys(Box<[Key]>);

/// Why a request has no valid key, in words.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unproven {
    /// It has none, which is no guess.
    Absent(&'static str),
    /// It has a wrong one.
    Wrong(&'static str),
}

/// One key, without its secret.
pub(super) struct Key {
    pub(super) id: Box<str>,
    hash: KeyHash,
    pub(super) backend: Backend,
    /// Its publishes.
    pub(super) pace: SharedPace,
}

impl Keys {
    /// The keys of the configuration.
    pub(crate) fn new(keys: &[ApiKey]) -> Result<Self, ApiError> {
        let mut all: Vec<Key> = Vec::with_capacity(keys.len());
        for (number, key) in (1..).zip(keys) {
            let wrong = |why: &str| ApiError::Key { number, why: why.to_owned() };
            let loaded = Key::load(key).map_err(wrong)?;
            if all.iter().any(|other| other.id == loaded.id) {
                return Err(wrong("another key has the same `id`: give each its own"));
            }
            all.push(loaded);
        }
        Ok(Self(all.into()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes a key that may do everything. Returns it as backends send it.
    pub(crate) fn make() -> Result<(Self, String), ApiError> {
        let (id, secret) = (generate::kid()?, generate::secret()?);
        let every = "*".parse::<Pattern>().map_or_else(|_| Vec::new(), |every| vec![every]);
        let backend = Backend { can: Box::new([Right::Publish, Right::Read, Right::Admin]), channels: every.into() };
        let text = format!("{id}.{secret}");
        let key = Key { id: id.into(), hash: KeyHash::of(secret.as_bytes()), backend, pace: SharedPace::default() };
        Ok((Self(Box::new([key])), text))
    }

    /// The key that a request proves to have.
    pub(super) fn prove(&self, headers: &HeaderMap) -> Result<&Key, Unproven> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return Err(Unproven::Absent("send one header `Authorization: Bearer <key id>.<secret>`"));
        };
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
        let text = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, rest)| rest.trim());
        let parts = text.and_then(|text| text.split_once('.'));
        let Some((id, secret)) = parts else {
            return Err(Unproven::Wrong("`Authorization` must be `Bearer <key id>.<secret>`"));
        };
        let hash = KeyHash::of(secret.as_bytes());
        // Every key is compared, so the time does not say which ids exist.
        let found = self.0.iter().fold(None, |found, key| {
            let same = key.hash.equals(&hash) & (*key.id == *id);
            if same { Some(key) } else { found }
        });
        found.ok_or(Unproven::Wrong("no such key, or its secret is wrong"))
    }
}

impl Key {
    fn load(key: &ApiKey) -> Result<Self, &'static str> {
        let ApiKey { id, hash, secret, can, channels } = key;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if id.is_empty() || id.len() > ID || !id.bytes().all(plain) {
            return Err("its `id` has 1 to 64 letters, digits, `-` and `_`");
        }
        let hash = match (hash, secret) {
            (Some(hash), None) => *hash,
            (None, Some(secret)) => KeyHash::of(secret.expose()),
            (None, None) => return Err("it needs `hash`, which `fanfare genkey api` prints, or `secret`"),
            (Some(_), Some(_)) => return Err("it has both `hash` and `secret`: keep one of them"),
        };
        if can.is_empty() {
            return Err("its list `can` is empty: name \"publish\", \"read\" or \"admin\"");
        }
        if channels.is_empty() {
            return Err("its list `channels` is empty: leave it out to allow all channels");
        }
        if channels.iter().any(|pattern| pattern.to_string().split(':').any(|segment| segment == "{sub}")) {
            return Err(
                "`{sub}` in `channels` stands for a user, and a backend is none: write `{user}` for any segment",
            );
        }
        let backend = Backend { can: can.as_slice().into(), channels: channels.as_slice().into() };
        Ok(Self { id: id.as_str().into(), hash, backend, pace: SharedPace::default() })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const SECRET: &str = "0123456789012345678901234567890123456789012";

    fn configured(tables: &str) -> Result<Keys, ApiError> {
        let config: crate::config::Config = toml::from_str(tables).expect("valid TOML");
        Keys::new(&config.api.keys)
    }

    fn prove(keys: &Keys, values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        keys.prove(&headers).ok().map(|key| key.id.to_string())
    }

    #[test]
    fn a_key_is_proven_by_its_id_and_its_secret() {
        let hash = KeyHash::of(SECRET.as_bytes());
        let keys = configured(&format!(
            "[[api.keys]]\nid = \"a\"\nhash = \"{hash}\"\ncan = [\"read\"]\n\
             [[api.keys]]\nid = \"b\"\nsecret = \"other.{SECRET}\"\ncan = [\"admin\"]\nchannels = [\"x:*\"]\n"
        ))
        .expect("valid");
        for (values, expected) in [
            (&[format!("Bearer a.{SECRET}")][..], Some("a")),
            (&[format!("bearer  a.{SECRET}")], Some("a")),
            (&[format!("Bearer b.other.{SECRET}")], Some("b")),
            (&[format!("Bearer b.{SECRET}")], None),
            (&[format!("Bearer c.{SECRET}")], None),
            (&[format!("Bearer a.{SECRET}x")], None),
            (&[format!("Bearer {SECRET}")], None),
            (&[format!("Basic a.{SECRET}")], None),
            (&["Bearer".to_owned()], None),
            (&[format!("Bearer a.{SECRET}"), format!("Bearer a.{SECRET}")], None),
            (&[], None),
        ] {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            assert_eq!(prove(&keys, &values).as_deref(), expected, "{values:?}");
        }
    }

    #[test]
    fn an_unknown_id_takes_as_long_as_a_wrong_secret() {
        let (keys, text) = Keys::make().expect("random");
        let (id, secret) = text.split_once('.').expect("two parts");
        let header = |id: &str, secret: &str| {
            let value = HeaderValue::from_str(&format!("Bearer {id}.{secret}")).expect("a value");
            HeaderMap::from_iter([(header::AUTHORIZATION, value)])
        };
        let tried = [header(id, &secret.replace(|_| true, "x")), header("ffffffff", secret)];
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..10_000 {
            for (headers, times) in tried.iter().zip(&mut times) {
                let begin = std::time::Instant::now();
                assert!(keys.prove(headers).is_err());
                times.push(begin.elapsed().as_nanos());
            }
        }
        let [wrong, unknown] = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        // Medians of tries that alternate: a busy machine slows down both.
        assert!(wrong.abs_diff(unknown) <= wrong.max(unknown) / 4 + 50, "{wrong} ns and {unknown} ns");
    }

    #[test]
    fn a_made_key_works_and_differs_each_time() {
        let ((keys, text), (_, other)) = (Keys::make().expect("random"), Keys::make().expect("random"));
        assert!(prove(&keys, &[&format!("Bearer {text}")]).is_some());
        assert!(prove(&keys, &[&format!("Bearer {other}")]).is_none());
    }

    #[test]
    fn an_invalid_key_is_an_error_that_says_what_to_change() {
        let secret = format!("secret = \"{SECRET}\"");
        for (key, words) in [
            ("id = \"a.b\"\ncan = [\"read\"]\nSECRET", "letters, digits"),
            ("id = \"a\"\ncan = [\"read\"]", "fanfare genkey api"),
            ("id = \"a\"\ncan = []\nSECRET", "`can` is empty"),
            ("id = \"a\"\ncan = [\"read\"]\nchannels = []\nSECRET", "leave it out"),
            ("id = \"a\"\ncan = [\"read\"]\nchannels = [\"user:{sub}\"]\nSECRET", "a backend is none"),
            (
                "id = \"a\"\ncan = [\"read\"]\nSECRET\n[[api.keys]]\nid = \"a\"\ncan = [\"read\"]\nSECRET",
                "the same `id`",
            ),
        ] {
            let error = configured(&format!("[[api.keys]]\n{}", key.replace("SECRET", &secret))).err().expect(key);
            assert!(error.to_string().contains(words), "{key}: {error}");
        }
    }
}
