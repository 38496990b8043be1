//! The URL of a key set. Only over TLS, or on this machine, so that nobody on the way can replace the keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::{Host, Url};

use super::redacted;

/// The URL of a key set: https, or http on this machine. `Debug` and `Serialize` give it without secrets in its query.
#[derive(Clone, PartialEq, Eq)]
pub struct JwksUrl(Url);

/// Why a text is not the URL of a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwksUrl {
    /// It does not parse, or has another scheme.
    #[error("expected a URL, such as \"https://login.example.com/.well-known/jwks.json\"")]
    Form,
    /// It is not private.
    #[error("expected https: over http, everyone on the way could replace the keys; http is only for localhost")]
    Plain,
    /// It names a user.
    #[error("expected a URL without user and password: key sets are public")]
    User,
}

impl JwksUrl {
    /// The URL with its query: for requests.
    pub(crate) fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The host: for logs.
    pub(crate) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Whether it needs TLS.
    pub(crate) fn is_private(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl FromStr for JwksUrl {
    type Err = InvalidJwksUrl;

    fn from_str(text: &str) -> Result<Self, InvalidJwksUrl> {
        let mut url = Url::parse(text).map_err(|_| InvalidJwksUrl::Form)?;
        let local = match url.host().ok_or(InvalidJwksUrl::Form)? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.is_loopback(),
        };
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            "http" => return Err(InvalidJwksUrl::Plain),
            _ => return Err(InvalidJwksUrl::Form),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidJwksUrl::User);
        }
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redacted(self.expose()))
    }
}

impl Serialize for JwksUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redacted(self.expose()))
    }
}

impl<'de> Deserialize<'de> for JwksUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_comes_over_tls_or_from_this_machine() {
        for (text, expected) in [
            ("https://login.example.com/keys", Ok(())),
            ("https://10.0.0.1:8443/keys?p=policy#part", Ok(())),
            ("http://localhost:1/keys", Ok(())),
            ("http://127.0.0.2:1/keys", Ok(())),
            ("http://[::1]:1/keys", Ok(())),
            ("http://login.example.com/keys", Err(InvalidJwksUrl::Plain)),
            ("http://localhost.example.com/keys", Err(InvalidJwksUrl::Plain)),
            ("http://0.0.0.0/keys", Err(InvalidJwksUrl::Plain)),
            ("https://user:hunter2@login.example.com/keys", Err(InvalidJwksUrl::User)),
            ("file:///etc/keys", Err(InvalidJwksUrl::Form)),
            ("ftp://host/keys", Err(InvalidJwksUrl::Form)),
            ("login.example.com", Err(InvalidJwksUrl::Form)),
            ("", Err(InvalidJwksUrl::Form)),
        ] {
            assert_eq!(text.parse::<JwksUrl>().map(drop), expected, "{text}");
        }
    }

    #[test]
    fn a_printed_url_has_no_secret_of_its_query() {
        let url: JwksUrl = "https://h/keys?api_key=hunter2&v=1".parse().expect("a URL");
        assert_eq!(format!("{url:?}"), "\"https://h/keys?api_key=***&v=1\"");
        assert_eq!(url.expose(), "https://h/keys?api_key=hunter2&v=1");
    }
}
