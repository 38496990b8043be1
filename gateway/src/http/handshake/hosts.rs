//! The node's own host names, which a request may name as its host.
//!
//! In DNS rebinding, the owner of `evil.example` lets that name resolve to this node. To a browser, a page of that name
//! then has the same origin as the node. So a name counts only if no stranger can own it. An address has no owner, and
//! over TLS the browser has checked the name against a certificate.

use std::net::IpAddr;

use super::host::Host;
use super::origins::Origins;

/// The node's own host names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    named: Vec<Name>,
    /// Whether names that cannot be registered count: a single label, `.local` (RFC 6762) and `.internal`. Other
    /// machines in the network can still claim such names, so they do not count for a node that listens on the loopback
    /// only.
    private: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Any,
    Exact(String),
    /// All names below this one, at any depth, but not the name itself.
    Below(String),
}

/// Why a configured host is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "host {0:?}: write a name alone, as in example.com, or *.example.com for all below it; no scheme, port or path{1}"
)]
pub struct HostError(String, String);

impl Hosts {
    /// The names in `entries` and in `origins`, and the implied names of a node that listens on `listen`.
    pub fn parse(entries: &[String], origins: &Origins, listen: IpAddr) -> Result<Self, HostError> {
        let named: Result<Vec<_>, _> = entries.iter().map(|entry| Name::parse(entry)).collect();
        let named = named?.into_iter().chain(origins.hosts()).collect();
        Ok(Self { named, private: !listen.is_loopback() })
    }

    /// Whether `host` is one of the node's names. For requests without TLS.
    pub(crate) fn own(&self, host: &Host) -> bool {
        host.address().is_some()
            || host.is_loopback()
            || self.private && is_private(host.bare())
            || self.named.iter().any(|name| name.matches(host.bare()))
    }
}

fn is_private(name: &str) -> bool {
    !name.contains('.') || name.ends_with(".local") || name.ends_with(".internal")
}

impl Name {
    fn parse(entry: &str) -> Result<Self, HostError> {
        if entry == "*" {
            return Ok(Self::Any);
        }
        let (name, wrap): (_, fn(String) -> Self) = match entry.strip_prefix("*.") {
            Some(name) => (name, Self::Below),
            None => (entry, Self::Exact),
        };
        match Host::parse(name) {
            Some(host) if !name.contains([':', '*', '%']) => Ok(wrap(host.bare().to_owned())),
            _ => Err(HostError(entry.to_owned(), as_sent(name))),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => name == exact,
            // Without the dot, `evil-example.com` would count as a sub-domain of `example.com`.
            Self::Below(parent) => name.strip_suffix(parent.as_str()).is_some_and(|below| below.ends_with('.')),
        }
    }
}

/// A hint with the name in the form that browsers send, if that differs; otherwise empty.
pub(super) fn as_sent(name: &str) -> String {
    match url::Host::parse(name) {
        Ok(url::Host::Domain(sent)) if !name.is_ascii() => format!("; browsers send {name} as {sent}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(entries: &[&str], origins: &[&str], listen: &str, host: &str) -> bool {
        let entries: Vec<_> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let origins = Origins::parse(origins).expect("origins");
        let hosts = Hosts::parse(&entries, &origins, listen.parse().expect("an address")).expect("hosts");
        hosts.own(&Host::parse(host).expect("a host"))
    }

    #[test]
    fn by_default_only_names_that_no_stranger_can_own_count() {
        for (host, on_loopback, on_all) in [
            ("localhost:8080", true, true),
            ("app.localhost", true, true),
            ("127.0.0.1:8080", true, true),
            ("[::1]:8080", true, true),
            ("192.0.2.7", true, true),
            ("[2001:db8::7]", true, true),
            ("node-1:8080", false, true),
            ("NODE-1.", false, true),
            ("printer.local", false, true),
            ("node.eu.internal", false, true),
            ("fanfare.default.svc.cluster.local", false, true),
            ("evil.example", false, false),
            ("evil.example:8080", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("local.evil.example", false, false),
            ("evillocal.example", false, false),
        ] {
            assert_eq!(own(&[], &[], "127.0.0.1", host), on_loopback, "{host} on the loopback");
            assert_eq!(own(&[], &[], "0.0.0.0", host), on_all, "{host} on all addresses");
        }
    }

    #[test]
    fn names_that_the_operator_gives_count_and_look_alikes_do_not() {
        let entries = ["Example.com", "*.wild.org", "dotted.org."];
        let origins = ["https://page.org", "http://ported.org:8000", "https://*.below.org", "null"];
        for (host, expected) in [
            ("example.com", true),
            ("EXAMPLE.COM:8443", true),
            ("example.com.", true),
            ("a.wild.org", true),
            ("a.b.wild.org", true),
            ("dotted.org", true),
            ("page.org", true),
            ("ported.org", true),
            ("a.below.org", true),
            ("www.example.com", false),
            ("example.com.evil.org", false),
            ("evil-example.com", false),
            ("wild.org", false),
            ("evilwild.org", false),
            ("below.org", false),
            ("null.org", false),
        ] {
            assert_eq!(own(&entries, &origins, "127.0.0.1", host), expected, "{host}");
        }
        assert!(own(&["*"], &[], "127.0.0.1", "evil.example"));
        assert!(own(&[], &["*"], "127.0.0.1", "evil.example"), "pages of all origins may connect");
    }

    #[test]
    fn an_invalid_name_is_an_error_that_says_how_to_write_it() {
        for (entry, hint) in [
            ("https://example.com", "no scheme"),
            ("example.com:8080", "port"),
            ("example.com/ws", "path"),
            ("a.*.com", "*.example.com"),
            ("*example.com", "*.example.com"),
            ("*.", "*.example.com"),
            ("", "a name alone"),
            ("bücher.example", "browsers send bücher.example as xn--bcher-kva.example"),
        ] {
            let error = Hosts::parse(&[entry.to_owned()], &Origins::default(), IpAddr::from([127, 0, 0, 1]));
            let error = error.expect_err(entry).to_string();
            assert!(error.contains(hint) && error.contains(&format!("{entry:?}")), "{entry}: {error}");
        }
    }
}
