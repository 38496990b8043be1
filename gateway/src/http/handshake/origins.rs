//! Decides which web pages may connect: those of the node's own hosts, and those on the operator's list.
//!
//! Compares parsed parts, never whole strings. A look-alike (`https://example.com.evil.org`,
//! `https://example.com@evil.org`) differs in its host or does not parse.

use super::host::Host;
use super::hosts::{Hosts, Name, as_sent};

/// The origins, besides the node's own hosts, whose pages may connect. By default there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

/// Why a configured origin is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// There is no `://`.
    #[error("origin {0:?} has no scheme: write https://{0}, or http://{0}, as the page's own address begins")]
    Scheme(String),
    /// The scheme is `ws` or `wss`.
    #[error("origin {0:?} is a socket's address: write the page's address, which begins with http:// or https://")]
    Socket(String),
    /// A `*` where it is not allowed.
    #[error("origin {0:?}: a `*` stands alone or for all sub-domains, as in https://*.example.com")]
    Wildcard(String),
    /// The part after the scheme is not a host with an optional port.
    #[error(
        "origin {0:?}: after the scheme comes a host and optionally a port, as in https://example.com:8443, and no path{1}"
    )]
    Host(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    /// An origin without host, as browsers send it: `null` or `file://`.
    Opaque(&'static str),
    Exact(Origin),
    /// All names below the host, at any depth, but not the host itself.
    Below(Origin),
}

/// `null` is sent for sandboxed frames, and by some browsers for files; other browsers send `file://` for files.
const OPAQUE: [&str; 2] = ["null", "file://"];

/// A parsed origin (RFC 6454 §7) in lower case. The scheme's default port is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: Host,
}

/// Whether a page may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// Its origin is neither the requested host's nor on the list.
    Foreign,
    /// Its origin is the requested host, but that is not one of the node's names.
    Stranger,
}

impl Origins {
    /// Parses entries such as `https://example.com`, `https://*.example.com` (its sub-domains), `null`, `file://` and
    /// `*` (every origin).
    pub fn parse<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, OriginError> {
        entries.into_iter().map(|entry| Pattern::parse(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Decides whether a page with this `Origin` header may connect to `host`. `over_tls`: the request is known to have
    /// come over TLS.
    pub(super) fn judge(&self, origin: &str, (host, hosts): (&Host, &Hosts), over_tls: bool) -> Verdict {
        if self.0.iter().any(|pattern| pattern.is(origin)) {
            return Verdict::Allowed;
        }
        // `null` (a sandboxed frame, a file) does not parse: such a page could be anyone's.
        let Some(origin) = Origin::parse(origin) else { return Verdict::Foreign };
        if self.0.iter().any(|pattern| pattern.matches(&origin)) {
            return Verdict::Allowed;
        }
        match origin.is_of(host, over_tls) {
            false => Verdict::Foreign,
            // Browsers forbid a page that came over TLS to connect without it (mixed content). So the request came over
            // TLS, and the browser has checked the name.
            true if origin.scheme == "https" || over_tls || hosts.own(host) => Verdict::Allowed,
            true => Verdict::Stranger,
        }
    }

    /// Whether pages of an allowed origin may use the client's cookies: it is the host's own, or listed by name. A page that
    /// only `*` or `null` allows could be anyone's.
    pub(super) fn trusts(&self, origin: &str, host: &Host, over_tls: bool) -> bool {
        let Some(origin) = Origin::parse(origin) else { return false };
        let named = |pattern: &Pattern| !matches!(pattern, Pattern::Any) && pattern.matches(&origin);
        origin.is_of(host, over_tls) || self.0.iter().any(named)
    }

    /// The hosts of the listed origins.
    pub(super) fn hosts(&self) -> impl Iterator<Item = Name> {
        self.0.iter().filter_map(|pattern| match pattern {
            Pattern::Any => Some(Name::Any),
            Pattern::Opaque(_) => None,
            Pattern::Exact(origin) => Some(Name::Exact(origin.host.bare().to_owned())),
            Pattern::Below(origin) => Some(Name::Below(origin.host.bare().to_owned())),
        })
    }
}

/// Whether an origin can be put on the list unchanged.
pub(super) fn can_be_listed(origin: &str) -> bool {
    Pattern::parse(origin).is_ok_and(|pattern| matches!(pattern, Pattern::Exact(_) | Pattern::Opaque(_)))
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, OriginError> {
        if entry == "*" {
            return Ok(Self::Any);
        }
        if let Some(opaque) = OPAQUE.into_iter().find(|opaque| opaque.eq_ignore_ascii_case(entry)) {
            return Ok(Self::Opaque(opaque));
        }
        let Some((scheme, rest)) = entry.split_once("://") else { return Err(OriginError::Scheme(entry.to_owned())) };
        if ["ws", "wss"].iter().any(|socket| scheme.eq_ignore_ascii_case(socket)) {
            return Err(OriginError::Socket(entry.to_owned()));
        }
        let (rest, wrap): (_, fn(Origin) -> Self) = match rest.strip_prefix("*.") {
            Some(rest) => (rest, Self::Below),
            None => (rest, Self::Exact),
        };
        if rest.contains('*') || scheme.contains('*') {
            return Err(OriginError::Wildcard(entry.to_owned()));
        }
        let origin = Origin::parse(&format!("{scheme}://{rest}"));
        origin.map(wrap).ok_or_else(|| OriginError::Host(entry.to_owned(), as_sent(rest)))
    }

    /// Whether it matches an origin as a whole, without parsing it.
    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Opaque(opaque) => opaque.eq_ignore_ascii_case(origin),
            Self::Exact(_) | Self::Below(_) => false,
        }
    }

    fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Opaque(_) => false,
            Self::Exact(exact) => origin == exact,
            Self::Below(parent) => {
                origin.scheme == parent.scheme
                    && origin.host.port == parent.host.port
                    // Without the dot, `evil-example.com` would count as a sub-domain of `example.com`.
                    && origin.host.name.strip_suffix(&parent.host.name).is_some_and(|below| below.ends_with('.'))
            }
        }
    }
}

impl Origin {
    /// Parses an origin as browsers send it: with nothing after the host and its port.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(scheme_byte) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut host = Host::parse(host).filter(|host| is_plain(&host.name))?;
        if text.ends_with(':') {
            return None;
        }
        if host.port.is_some() && host.port == default_port(&scheme) {
            host.port = None;
        }
        Some(Self { scheme, host })
    }

    /// Whether a page of this origin was served by `host`. A balancer that ends TLS without saying so hides the scheme,
    /// so both default ports count as none. Pages of the client's own machine count as one another's, whatever their
    /// names and ports. A page that came over http can be changed on the way, so it must not reach a socket over TLS.
    fn is_of(&self, host: &Host, over_tls: bool) -> bool {
        let scheme = self.scheme == "https" || self.scheme == "http" && !over_tls;
        let port = host.port.filter(|port| ![80, 443].contains(port));
        let same = self.host.name == host.name && self.host.port == port;
        scheme && (same || self.host.is_loopback() && host.is_loopback())
    }
}

/// Whether it is a DNS name or an address. The host of a URL may also contain `%`, `,` and the like.
fn is_plain(name: &str) -> bool {
    name.starts_with('[') || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(list: &[&str], origin: &str, host: &str, over_tls: bool) -> Verdict {
        let origins = Origins::parse(list).unwrap();
        let hosts = Hosts::parse(&["example.com".to_owned()], &origins, [127, 0, 0, 1].into()).unwrap();
        origins.judge(origin, (&Host::parse(host).unwrap(), &hosts), over_tls)
    }

    fn allowed(list: &[&str], origin: &str, host: &str) -> bool {
        judged(list, origin, host, false) == Verdict::Allowed
    }

    #[test]
    fn pages_of_the_same_host_may_connect_whatever_the_scheme() {
        for (origin, host, expected) in [
            ("https://example.com", "example.com", true),
            ("http://example.com", "example.com", true),
            ("https://EXAMPLE.com", "Example.COM", true),
            ("https://example.com:443", "example.com", true),
            ("https://example.com", "example.com:443", true),
            ("http://example.com", "example.com:80", true),
            ("https://example.com", "example.com:80", true), // TLS ends at a balancer that names its own port
            ("http://localhost:3000", "localhost:3000", true),
            ("http://[::1]:3000", "[::1]:3000", true),
            ("https://example.com", "example.com:", true),
            ("http://[0:0::1]:3000", "[::1]:3000", true),
            ("http://example.com:3000", "example.com:3001", false),
            ("http://example.com:3000", "example.com", false),
            ("http://example.com", "example.com:3000", false),
            ("https://example.com:80", "example.com", false), // not https's default
            ("ftp://example.com", "example.com", false),
            ("https://sub.example.com", "example.com", false),
            ("null", "null", false),
        ] {
            assert_eq!(allowed(&[], origin, host), expected, "{origin} to {host}");
        }
    }

    #[test]
    fn pages_of_this_machine_may_connect_whatever_their_names_and_ports() {
        for (origin, host, expected) in [
            ("http://localhost:3000", "localhost:3001", true),
            ("http://localhost:3000", "localhost", true),
            ("http://localhost", "localhost:3000", true),
            ("http://127.0.0.1:5173", "localhost:8080", true),
            ("http://localhost:5173", "127.0.0.1:8080", true),
            ("http://[::1]:5173", "localhost:8080", true),
            ("https://app.localhost", "127.0.0.1:8080", true),
            ("http://127.0.0.2", "[::1]:8080", true),
            ("http://localhost:5173", "example.com", false),
            ("http://example.com", "localhost:8080", false),
            ("http://localhost.example.com", "localhost:8080", false),
            ("http://10.0.0.1", "127.0.0.1:8080", false),
            ("ftp://localhost", "localhost:8080", false),
        ] {
            assert_eq!(allowed(&[], origin, host), expected, "{origin} to {host}");
        }
        assert_eq!(judged(&[], "http://localhost:3000", "localhost", true), Verdict::Foreign, "not over TLS");
    }

    #[test]
    fn a_page_of_a_host_that_is_not_the_nodes_is_a_stranger() {
        for (origin, host, expected) in [
            ("http://evil.example:8080", "evil.example:8080", Verdict::Stranger),
            ("http://evil.example", "evil.example", Verdict::Stranger),
            ("http://evil.example", "evil.example:80", Verdict::Stranger),
            ("http://evil.example", "example.com", Verdict::Foreign),
            ("http://example.com", "evil.example", Verdict::Foreign),
            ("http://example.com", "example.com", Verdict::Allowed),
            ("http://192.0.2.7:8080", "192.0.2.7:8080", Verdict::Allowed),
            // The browser has checked the certificate of the name.
            ("https://other.example", "other.example", Verdict::Allowed),
        ] {
            assert_eq!(judged(&[], origin, host, false), expected, "{origin} to {host}");
        }
        assert_eq!(judged(&["http://evil.example"], "http://evil.example", "evil.example", false), Verdict::Allowed);
    }

    #[test]
    fn origins_without_a_host_may_be_listed() {
        for (list, origin, expected) in [
            (&["null"][..], "null", true),
            (&["file://"], "file://", true),
            (&["null"], "file://", false),
            (&["file://"], "null", false),
            (&["file://"], "file:///home/me/page.html", false),
            (&["null", "file://"], "https://foreign.org", false),
        ] {
            assert_eq!(allowed(list, origin, "example.com"), expected, "{origin} with {list:?}");
        }
        for (origin, expected) in [
            ("http://localhost:5173", true),
            ("null", true),
            ("file://", true),
            ("capacitor://localhost", true),
            ("*", false),
            ("https://*.example.com", false),
            ("https://a.example\"]", false),
            ("nonsense", false),
        ] {
            assert_eq!(can_be_listed(origin), expected, "{origin}");
        }
    }

    #[test]
    fn a_page_without_tls_may_not_connect_over_tls() {
        let list = ["http://listed.org"];
        for (origin, expected) in
            [("https://example.com", true), ("http://example.com", false), ("http://listed.org", true)]
        {
            assert_eq!(judged(&list, origin, "example.com", true) == Verdict::Allowed, expected, "{origin}");
        }
    }

    #[test]
    fn listed_pages_may_connect_and_look_alikes_may_not() {
        let list = ["https://example.com", "https://*.wild.org", "http://localhost:8080", "capacitor://localhost"];
        for (origin, expected) in [
            ("https://example.com", true),
            ("HTTPS://EXAMPLE.COM", true),
            ("https://example.com:443", true),
            ("http://localhost:8080", true),
            ("capacitor://localhost", true),
            ("https://a.wild.org", true),
            ("https://a.b.WILD.org", true),
            ("http://example.com", false),
            ("https://example.com:8443", false),
            ("https://example.com.evil.org", false),
            ("https://evil-example.com", false),
            ("https://example.com@evil.org", false),
            ("https://evil.org@example.com", false),
            ("https://evil.org/https://example.com", false),
            ("https://example.com/", false),
            ("https://example.com?", false),
            ("https://example.com#", false),
            ("https://example.com\\.evil.org", false),
            ("https://example.com evil.org", false),
            ("https://example.com:", false),
            ("https://example.com:+443", false),
            ("https://example.com:99999", false),
            ("https://example.com.", false),
            ("https://wild.org", false),
            ("https://evil-wild.org", false),
            ("https://a.wild.org.evil.org", false),
            ("http://a.wild.org", false),
            ("https://a.wild.org:8443", false),
            ("https://*.wild.org", false),
            ("example.com", false),
            ("//example.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(allowed(&list, origin, "ws.internal"), expected, "{origin}");
        }
    }

    #[test]
    fn a_star_allows_everything() {
        for origin in ["https://example.com", "null", "file://", "nonsense"] {
            assert!(allowed(&["*"], origin, "example.org"));
        }
    }

    #[test]
    fn an_invalid_entry_is_an_error_that_says_how_to_write_it() {
        for (entry, hint) in [
            ("example.com", "write https://example.com"),
            ("example.com:3000", "or http://example.com:3000"),
            ("", "has no scheme"),
            ("https://*", "as in https://*.example.com"),
            ("https://*example.com", "as in https://*.example.com"),
            ("https://a.*.com", "as in https://*.example.com"),
            ("*://example.com", "as in https://*.example.com"),
            ("https://example.com/", "no path"),
            ("https://example.com/app", "no path"),
            ("https://user@example.com", "no path"),
            ("https://example.com:port", "optionally a port"),
            ("https://", "a host"),
            ("https://*.", "a host"),
            ("ht tp://example.com", "after the scheme"),
            ("https://exämple.com", "a host"),
            ("https://exämple.com", "browsers send exämple.com as xn--exmple-cua.com"),
            ("file:///", "a host"),
            ("WSS://example.com", "write the page's address"),
        ] {
            let error = Origins::parse(["https://good.org", entry]).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains(&format!("{entry:?}")), "{entry}: {error}");
        }
    }
}
