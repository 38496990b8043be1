//! A key that checks tokens, as the configuration names it. No way of printing it shows a secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One of `auth.keys`: a secret, or a file with a secret or a public key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a list of tables, such as [{ kid = \"a\", secret = \"…\" }]")]
pub struct TokenKey {
    /// The name by which tokens choose the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The only algorithm that the key checks. `None` means the one that fits the kind of key.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "algorithm")]
    pub algorithm: Option<Algorithm>,
    /// The secret itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The file that has the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A shared secret of at least [`LEAST`](Self::LEAST) bytes. `Debug` and `Serialize` give `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

/// Why a text is not a secret. It shows no part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// It could be guessed.
    #[error("a secret has at least {least} bytes, this one has {0}: `fanfare genkey` makes one", least = Secret::LEAST)]
    Short(usize),
    /// It does not decode.
    #[error("after `base64:` comes base64, and this is not")]
    Base64,
}

/// Both alphabets' padding is accepted.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl Secret {
    /// The fewest bytes: those of a SHA-256 (RFC 7518 §3.2).
    pub const LEAST: usize = 32;

    /// The secret: for checking and signing, never for printing.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let bytes = match text.strip_prefix("base64:") {
            Some(encoded) => {
                let url_safe = encoded.replace('+', "-").replace('/', "_");
                BASE64.decode(url_safe).map_err(|_| InvalidSecret::Base64)?
            }
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() < Self::LEAST { Err(InvalidSecret::Short(bytes.len())) } else { Ok(Self(bytes.into())) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Serde's own message would repeat what was found, which may be a misplaced secret.
fn algorithm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Algorithm>, D::Error> {
    const NAMES: &str = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|_| de::Error::custom(format_args!("expected an algorithm: {NAMES}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-canary-canary-canary-canary";

    #[test]
    fn a_secret_is_its_text_or_what_base64_stands_for() {
        let bytes = [0xfb; 32];
        for (text, expected) in [
            (CANARY, Ok(CANARY.as_bytes())),
            ("base64:-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s", Ok(&bytes[..])),
            ("base64:+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=", Ok(&bytes[..])),
            ("base64:AAAA", Err(InvalidSecret::Short(3))),
            ("base64:???", Err(InvalidSecret::Base64)),
            ("short", Err(InvalidSecret::Short(5))),
            ("", Err(InvalidSecret::Short(0))),
        ] {
            assert_eq!(
                text.parse::<Secret>().as_ref().map(Secret::expose),
                expected.as_ref().map(|bytes| *bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn no_way_of_printing_a_key_shows_its_secret() {
        let key: TokenKey = toml::from_str(&format!("kid = \"a\"\nsecret = \"{CANARY}\"")).expect("a key");
        for text in [format!("{key:?}"), format!("{key:#?}"), toml::to_string(&key).expect("strings")] {
            assert!(!text.contains("canary") && text.contains("***"), "{text}");
        }
        let error = toml::from_str::<TokenKey>(&format!("algorithm = \"{CANARY}\"")).expect_err("not an algorithm");
        assert!(!error.message().contains("canary"), "{error}");
    }
}
