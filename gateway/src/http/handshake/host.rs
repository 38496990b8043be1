//! Parses a host and its port from a `Host` header, an absolute request target or an origin (RFC 3986 §3.2).

use std::net::{IpAddr, Ipv6Addr};

/// A host in lower case; an IPv6 address is in canonical form and in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(super) name: String,
    pub(super) port: Option<u16>,
}

impl Host {
    /// Parses `host` or `host:port`, with nothing before or after it. An empty port counts as none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port),
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                // RFC 3986 §3.2.2: unreserved, percent-encoded, sub-delims; `_` is common in private names.
                let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
                if name.is_empty() || !name.bytes().all(of_a_name) {
                    return None;
                }
                (name.to_ascii_lowercase(), port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some("") => None,
            // `parse` alone would accept a sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self { name, port })
    }

    /// Parses the bytes of a header.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().and_then(Self::parse)
    }

    /// The name without a trailing dot (RFC 1034 §3.1).
    pub(super) fn bare(&self) -> &str {
        self.name.strip_suffix('.').unwrap_or(&self.name)
    }

    /// The address, if the host is one and not a name.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.name.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether the host is the client's own machine: `localhost` or a name below it (RFC 6761 §6.3), or a loopback
    /// address.
    pub(super) fn is_loopback(&self) -> bool {
        match self.address() {
            Some(address) => address.to_canonical().is_loopback(),
            None => self.bare() == "localhost" || self.bare().ends_with(".localhost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for (text, expected) in [
            ("example.com", Some(("example.com", None))),
            ("EXAMPLE.com:8080", Some(("example.com", Some(8080)))),
            ("example.com:", Some(("example.com", None))),
            ("example.com:0080", Some(("example.com", Some(80)))),
            ("example.com.", Some(("example.com.", None))),
            ("a_b.example", Some(("a_b.example", None))),
            ("127.0.0.1:80", Some(("127.0.0.1", Some(80)))),
            ("[::1]:80", Some(("[::1]", Some(80)))),
            ("[0:0:0:0:0:0:0:1]", Some(("[::1]", None))),
            ("[2001:DB8::A]", Some(("[2001:db8::a]", None))),
            ("", None),
            (":80", None),
            ("a b", None),
            ("user@example.com", None),
            ("example.com/", None),
            ("example.com:+80", None),
            ("example.com:port", None),
            ("example.com:65536", None),
            ("example.com:80:80", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]80", None),
            ("[localhost]", None),
            ("exämple.com", None),
        ] {
            let expected = expected.map(|(name, port)| Host { name: name.to_owned(), port });
            assert_eq!(Host::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn loopback_has_several_names() {
        for (text, expected) in [
            ("localhost:80", true),
            ("LOCALHOST.", true),
            ("app.localhost", true),
            ("127.0.0.1", true),
            ("127.8.9.10", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("localhost.example", false),
            ("notlocalhost", false),
            ("127.0.0.1.example", false),
        ] {
            assert_eq!(Host::parse(text).expect(text).is_loopback(), expected, "{text}");
        }
    }
}
