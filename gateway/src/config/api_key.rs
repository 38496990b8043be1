//! A key of the HTTP API, as the configuration names it. No way of printing it shows a secret.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Secret;
use crate::gate::{Pattern, Right};

/// One of `api.keys`: who a backend is and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a list of tables, such as [{ id = \"shop\", hash = \"…\", can = [\"publish\"] }]"
)]
pub struct ApiKey {
    /// Its name, which stands before the secret and in logs.
    pub id: String,
    /// The hash of its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<KeyHash>,
    /// The secret itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// What it may do.
    pub can: Vec<Right>,
    /// The channels that it may use.
    #[serde(default = "every_channel")]
    pub channels: Vec<Pattern>,
}

fn every_channel() -> Vec<Pattern> {
    "*".parse().map_or_else(|_| Vec::new(), |every| vec![every])
}

/// The SHA-256 of a secret. Secrets are random and long, so the hash needs no salt and no work factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

/// The text is not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the hash that `fanfare genkey api` prints: `sha256:` and 64 hexadecimal digits")]
pub struct InvalidHash;

impl KeyHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(hash)
    }

    /// Compares in a time that does not depend on the hashes.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(&other.0).fold(0, |all, (one, other)| all | (one ^ other));
        std::hint::black_box(differences) == 0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidHash);
        }
        let mut hash = [0; 32];
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| InvalidHash)?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-canary-canary-canary-canary";

    #[test]
    fn a_hash_reads_back_as_it_is_printed_and_equals_only_that_of_the_same_secret() {
        let hash = KeyHash::of(b"abc");
        // FIPS 180-2, appendix B.1.
        let printed = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((hash.to_string().as_str(), printed.parse()), (printed, Ok(hash)));
        assert!(hash.equals(&KeyHash::of(b"abc")) && !hash.equals(&KeyHash::of(b"abd")));
        for wrong in ["", "sha256:", "sha256:00", &printed[..printed.len() - 1], &printed.replace('b', "g")] {
            assert_eq!(wrong.parse::<KeyHash>(), Err(InvalidHash), "{wrong}");
        }
    }

    #[test]
    fn no_way_of_printing_a_key_shows_its_secret() {
        let key: ApiKey =
            toml::from_str(&format!("id = \"a\"\ncan = [\"publish\"]\nsecret = \"{CANARY}\"")).expect("a key");
        assert_eq!(key.channels.len(), 1, "all channels by default");
        for text in [format!("{key:?}"), format!("{key:#?}"), toml::to_string(&key).expect("strings")] {
            assert!(!text.contains("canary") && text.contains("***"), "{text}");
        }
    }
}
