//! The URL of a key set. Only over TLS, or on this machine, so that nobody on the way can replace the keys.

use url::{Host, Url};

use super::web_url::{Purpose, WebUrl};

/// The URL of a key set: https, or http on this machine.
pub type JwksUrl = WebUrl<KeySet>;

/// The purpose of the URL of a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySet;

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

impl Purpose for KeySet {
    type Error = InvalidJwksUrl;
    const FORM: InvalidJwksUrl = InvalidJwksUrl::Form;
    const USER: InvalidJwksUrl = InvalidJwksUrl::User;

    fn check(url: &Url) -> Result<(), InvalidJwksUrl> {
        let local = match url.host().ok_or(InvalidJwksUrl::Form)? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.is_loopback(),
        };
        match url.scheme() {
            "https" => Ok(()),
            "http" if local => Ok(()),
            "http" => Err(InvalidJwksUrl::Plain),
            _ => Err(InvalidJwksUrl::Form),
        }
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
