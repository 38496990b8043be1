//! The URL of a hook: a backend's own, from the configuration and from nowhere else.

use std::net::IpAddr;

use url::{Host, Url};

use super::web_url::{Purpose, WebUrl};

/// The endings of names that only a private network has (RFC 6762, RFC 8375, RFC 6761), and those of Kubernetes and clouds.
const PRIVATE: [&str; 7] = [".local", ".home.arpa", ".localhost", ".internal", ".svc", ".lan", ".test"];

/// The URL of a hook: https or http.
pub type HookUrl = WebUrl<Backend>;

/// The purpose of the URL of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend;

/// Why a text is not the URL of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHookUrl {
    /// It does not parse, or has another scheme.
    #[error("expected a URL with https or http, such as \"http://127.0.0.1:3000/hooks\"")]
    Form,
    /// It names a user.
    #[error("expected a URL without user and password: your backend recognises the node by `hooks.secret`")]
    User,
}

impl HookUrl {
    /// Whether others may read on the way what is asked and answered: http to a host that is probably not in a private network.
    pub(crate) fn is_exposed(&self) -> bool {
        let outside = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
            IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
        };
        let outside = match self.0.host() {
            Some(Host::Domain(name)) => name.contains('.') && !PRIVATE.iter().any(|end| name.ends_with(end)),
            Some(Host::Ipv4(ip)) => outside(ip.into()),
            Some(Host::Ipv6(ip)) => outside(ip.into()),
            None => false,
        };
        outside && !self.is_private()
    }
}

impl Purpose for Backend {
    type Error = InvalidHookUrl;
    const FORM: InvalidHookUrl = InvalidHookUrl::Form;
    const USER: InvalidHookUrl = InvalidHookUrl::User;

    fn check(url: &Url) -> Result<(), InvalidHookUrl> {
        match matches!(url.scheme(), "https" | "http") && url.host().is_some() {
            true => Ok(()),
            false => Err(InvalidHookUrl::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_exposed_unless_the_host_is_surely_private() {
        for (text, exposed) in [
            ("https://api.example.com/hooks", false),
            ("http://api.example.com/hooks", true),
            ("http://192.0.2.1/hooks", true),
            ("http://[2001:db8::1]/hooks", true),
            ("http://backend:3000/hooks", false),
            ("http://web.shop.svc/hooks", false),
            ("http://db.internal/hooks", false),
            ("http://localhost/hooks", false),
            ("http://127.0.0.1:3000/", false),
            ("http://10.1.2.3/hooks", false),
            ("http://[fd00::1]/hooks", false),
            ("http://[::ffff:10.0.0.1]/hooks", false),
        ] {
            assert_eq!(text.parse::<HookUrl>().expect(text).is_exposed(), exposed, "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused_in_words_and_a_printed_one_has_no_secret() {
        for (text, expected) in [
            ("127.0.0.1:3000/hooks", InvalidHookUrl::Form),
            ("ftp://host/hooks", InvalidHookUrl::Form),
            ("http://ann:hunter2@host/hooks", InvalidHookUrl::User),
        ] {
            assert_eq!(text.parse::<HookUrl>(), Err(expected), "{text}");
        }
        let url: HookUrl = "https://h/hooks?token=hunter2&v=1".parse().expect("a URL");
        assert_eq!(format!("{url:?}"), "\"https://h/hooks?token=***&v=1\"");
        assert_eq!(url.expose(), "https://h/hooks?token=hunter2&v=1");
    }
}
