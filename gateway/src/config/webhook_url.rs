//! The URL of webhooks, and the secrets that sign them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::{Host, Url};

use super::web_url::{Purpose, WebUrl};

/// The URL of webhooks: https or http. Which hosts it may have is checked before requests are sent.
pub type WebhookUrl = WebUrl<Receiver>;

/// The purpose of the URL of webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver;

/// Why a text is not the URL of webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhookUrl {
    /// It does not parse, or has another scheme.
    #[error("expected a URL with https, such as \"https://api.example.com/fanfare\", or with http on this machine")]
    Form,
    /// It names a user.
    #[error("expected a URL without user and password: your backend recognises the node by the signature")]
    User,
}

impl WebhookUrl {
    /// The address, if the host is one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self.0.host()? {
            Host::Ipv4(ip) => Some(ip.into()),
            Host::Ipv6(ip) => Some(ip.into()),
            Host::Domain(_) => None,
        }
    }
}

impl Purpose for Receiver {
    type Error = InvalidWebhookUrl;
    const FORM: InvalidWebhookUrl = InvalidWebhookUrl::Form;
    const USER: InvalidWebhookUrl = InvalidWebhookUrl::User;

    fn check(url: &Url) -> Result<(), InvalidWebhookUrl> {
        match matches!(url.scheme(), "https" | "http") && url.host().is_some() {
            true => Ok(()),
            false => Err(InvalidWebhookUrl::Form),
        }
    }
}

/// A secret of the form of Standard Webhooks. `Debug` and `Serialize` give `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Box<[u8]>);

/// Why a text is not such a secret. It shows no part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"whsec_\" and the base64 of 24 to 64 bytes: `fanfare genkey webhook` makes one")]
pub struct InvalidWebhookSecret;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl WebhookSecret {
    /// The bytes: for signing, never for printing.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text of a secret with these bytes.
    pub(crate) fn text(bytes: &[u8]) -> String {
        format!("whsec_{}", BASE64.encode(bytes))
    }
}

impl FromStr for WebhookSecret {
    type Err = InvalidWebhookSecret;

    fn from_str(text: &str) -> Result<Self, InvalidWebhookSecret> {
        let encoded = text.strip_prefix("whsec_").ok_or(InvalidWebhookSecret)?;
        let bytes = BASE64.decode(encoded).map_err(|_| InvalidWebhookSecret)?;
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes.into())) } else { Err(InvalidWebhookSecret) }
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for WebhookSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for WebhookSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_the_form_of_standard_webhooks_and_is_never_printed() {
        for (text, valid) in [
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA==", true),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA", true),
            ("whsec_AAAA", false),
            ("whsec_???", false),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", false),
            ("", false),
        ] {
            let secret = text.parse::<WebhookSecret>();
            assert_eq!(secret.is_ok(), valid, "{text}");
            if let Ok(secret) = secret {
                assert_eq!(format!("{secret:?}"), "***");
                assert_eq!(serde_json::to_string(&secret).expect("a string"), "\"***\"");
                assert!(WebhookSecret::text(secret.expose()).starts_with(text.trim_end_matches('=')));
            }
        }
    }

    #[test]
    fn the_url_has_a_host_and_names_no_user() {
        for (text, expected) in [
            ("https://api.example.com/fanfare?key=hunter2", Ok(())),
            ("http://127.0.0.1:3000/", Ok(())),
            ("127.0.0.1:3000/", Err(InvalidWebhookUrl::Form)),
            ("ftp://host/", Err(InvalidWebhookUrl::Form)),
            ("https://ann:hunter2@host/", Err(InvalidWebhookUrl::User)),
        ] {
            let url = text.parse::<WebhookUrl>();
            assert!(!format!("{url:?}").contains("hunter2"));
            assert_eq!(url.map(drop), expected, "{text}");
        }
    }
}
