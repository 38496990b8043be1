//! Which web pages may connect: those of the same host, and those on the operator's list.
//!
//! Compares parsed parts, never text with text: a look-alike (`https://example.com.evil.org`,
//! `https://example.com@evil.org`) differs in its host or does not parse.

/// The origins, besides the server's own host, whose pages may connect. The default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

/// Why a configured origin can not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// There is no `://`.
    #[error("origin {0:?} has no scheme: write https://{0}")]
    Scheme(String),
    /// A `*` where it has no meaning.
    #[error("origin {0:?}: a `*` stands alone or for all sub-domains, as in https://*.example.com")]
    Wildcard(String),
    /// Neither a host nor a host and a port.
    #[error(
        "origin {0:?}: after the scheme comes a host and optionally a port, as in https://example.com:8443, and no path"
    )]
    Host(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    Exact(Origin),
    /// All names below the host, at any depth, but not the host itself.
    Below(Origin),
}

/// An origin in parts (RFC 6454 §7), lower case; a port that is its scheme's default is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: Host,
}

/// A host and its port, as a `Host` header or an origin names them; lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    port: Option<u16>,
}

impl Origins {
    /// Reads entries such as `https://example.com`, `https://*.example.com` (its sub-domains) and `*` (everything).
    pub fn parse<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, OriginError> {
        entries.into_iter().map(|entry| Pattern::parse(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a page of `origin`, the header's value, may connect to the server that it calls `host`; `over_tls` if it is
    /// known to have come so.
    pub(super) fn allow(&self, origin: &str, host: &Host, over_tls: bool) -> bool {
        if self.0.contains(&Pattern::Any) {
            return true;
        }
        // `null` (a sandboxed frame, a file) does not parse: it could be anyone's.
        let Some(origin) = Origin::parse(origin) else { return false };
        origin.is_of(host, over_tls) || self.0.iter().any(|pattern| pattern.matches(&origin))
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, OriginError> {
        if entry == "*" {
            return Ok(Self::Any);
        }
        let Some((scheme, rest)) = entry.split_once("://") else { return Err(OriginError::Scheme(entry.to_owned())) };
        let (rest, wrap): (_, fn(Origin) -> Self) = match rest.strip_prefix("*.") {
            Some(rest) => (rest, Self::Below),
            None => (rest, Self::Exact),
        };
        if rest.contains('*') || scheme.contains('*') {
            return Err(OriginError::Wildcard(entry.to_owned()));
        }
        Origin::parse(&format!("{scheme}://{rest}")).map(wrap).ok_or_else(|| OriginError::Host(entry.to_owned()))
    }

    fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin == exact,
            Self::Below(parent) => {
                origin.scheme == parent.scheme
                    && origin.host.port == parent.host.port
                    // The dot is what tells a sub-domain from `evil-example.com`.
                    && origin.host.name.strip_suffix(&parent.host.name).is_some_and(|below| below.ends_with('.'))
            }
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(scheme_byte) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut host = Host::parse(host)?;
        if host.port.is_some() && host.port == default_port(&scheme) {
            host.port = None;
        }
        Some(Self { scheme, host })
    }

    /// Whether a page of this origin was served under the name `host`. A balancer that ends TLS and does not say so hides
    /// which of the two schemes it was, so both default ports stand for none. Who may change a page on its way must not
    /// reach over TLS from it.
    fn is_of(&self, host: &Host, over_tls: bool) -> bool {
        let scheme = self.scheme == "https" || self.scheme == "http" && !over_tls;
        let port = host.port.filter(|port| ![80, 443].contains(port));
        scheme && self.host.name == host.name && self.host.port == port
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl Host {
    /// Reads `host` or `host:port`, with nothing before and nothing after.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (&text[..address.len() + 2], port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
                    return None;
                }
                (name, port)
            }
        };
        let port = match port.strip_prefix(':') {
            // `parse` alone would take a sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self { name: name.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &[&str], origin: &str, host: &str) -> bool {
        Origins::parse(list).unwrap().allow(origin, &Host::parse(host).unwrap(), false)
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
            ("http://localhost:3000", "localhost:3001", false),
            ("http://localhost:3000", "localhost", false),
            ("http://localhost", "localhost:3000", false),
            ("https://example.com:80", "example.com", false), // not https's default
            ("ftp://example.com", "example.com", false),
            ("https://sub.example.com", "example.com", false),
            ("null", "null", false),
        ] {
            assert_eq!(allowed(&[], origin, host), expected, "{origin} to {host}");
        }
    }

    #[test]
    fn a_page_that_came_without_tls_does_not_reach_over_tls() {
        let host = Host::parse("example.com").unwrap();
        let origins = Origins::parse(["http://listed.org"]).unwrap();
        for (origin, expected) in
            [("https://example.com", true), ("http://example.com", false), ("http://listed.org", true)]
        {
            assert_eq!(origins.allow(origin, &host, true), expected, "{origin}");
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
    fn what_can_not_be_understood_in_the_list_is_an_error_that_says_how_to_write_it() {
        for (entry, hint) in [
            ("example.com", "write https://example.com"),
            ("null", "has no scheme"),
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
        ] {
            let error = Origins::parse(["https://good.org", entry]).unwrap_err().to_string();
            assert!(error.contains(hint) && error.contains(&format!("{entry:?}")), "{entry}: {error}");
        }
    }
}
