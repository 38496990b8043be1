//! Reads the headers of trusted proxies: `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
//!
//! Pure. Call it only for connections from a trusted proxy: any client can send these headers. `Forwarded` (RFC 7239) is
//! ignored, because proxies that write the other headers pass a client's `Forwarded` on unchanged.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use crate::config::Network;
use crate::field::elements;
use crate::http::handshake::Host;

/// The client of a request from the proxy `peer`: the right-most hop that is not a trusted proxy. The hops left of it were
/// written by that client and prove nothing. The port is 0 if the proxy does not forward it.
pub(super) fn client(headers: &HeaderMap, peer: SocketAddr, trusted: &[Network]) -> SocketAddr {
    let mut client = peer;
    // Each proxy appends its entry to the last line, or adds a line.
    for line in headers.get_all("x-forwarded-for").iter().rev() {
        for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
            // Hops left of an unreadable one cannot be trusted.
            let Some(hop) = std::str::from_utf8(hop).ok().and_then(hop_address) else { return client };
            client = hop;
            if !trusted.iter().any(|network| network.contains(hop.ip())) {
                return client;
            }
        }
    }
    client
}

/// Parses an address. Some proxies add a port, and some put the address into brackets.
fn hop_address(hop: &str) -> Option<SocketAddr> {
    let hop = hop.trim_matches([' ', '\t']);
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 0),
        Err(_) => hop.parse().ok()?,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Whether the client uses TLS: at least one proxy reports its scheme, and all that do report `https` or `wss`.
pub(super) fn over_tls(headers: &HeaderMap) -> bool {
    let mut schemes = elements(headers, "x-forwarded-proto").peekable();
    let is_secure = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"wss");
    schemes.peek().is_some() && schemes.all(is_secure)
}

/// The host that the nearest proxy was asked for. Each proxy appends its value, so the right-most one is from the nearest.
pub(super) fn host(headers: &HeaderMap) -> Option<Host> {
    elements(headers, "x-forwarded-host").last().and_then(Host::read)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| HeaderValue::from_bytes(line.as_bytes()).expect("a header's value"));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line);
        }
        headers
    }

    #[test]
    fn the_client_is_the_right_most_hop_that_is_not_trusted() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
        let peer: SocketAddr = "10.0.0.1:1234".parse().expect("an address");
        for (lines, expected) in [
            (&[][..], "10.0.0.1:1234"),
            (&["203.0.113.9"], "203.0.113.9:0"),
            (&["198.51.100.1, 203.0.113.9"], "203.0.113.9:0"),
            (&["198.51.100.1,203.0.113.9 ,\t10.0.0.2"], "203.0.113.9:0"),
            (&["198.51.100.1", "203.0.113.9"], "203.0.113.9:0"),
            (&["198.51.100.1, 203.0.113.9", "10.0.0.2", "10.0.0.3,10.0.0.4"], "203.0.113.9:0"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            (&["203.0.113.9:5678"], "203.0.113.9:5678"),
            (&["2001:db8::9"], "[2001:db8::9]:0"),
            (&["[2001:db8::9]"], "[2001:db8::9]:0"),
            (&["[2001:db8::9]:5678, fd00::1"], "[2001:db8::9]:5678"),
            (&["::ffff:203.0.113.9"], "203.0.113.9:0"),
            (&["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9:0"),
            (&["203.0.113.9, unknown"], "10.0.0.1:1234"),
            (&["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2:0"),
            (&["203.0.113.9", ""], "10.0.0.1:1234"),
            (&["203.0.113.9,"], "10.0.0.1:1234"),
            (&["203.0.113.9 10.0.0.2"], "10.0.0.1:1234"),
            (&["203.0.113.9\u{e9}"], "10.0.0.1:1234"),
            (&["203.0.113.9:"], "10.0.0.1:1234"),
            (&["203.0.113.9:99999"], "10.0.0.1:1234"),
            (&["[203.0.113.9"], "10.0.0.1:1234"),
            (&["_hidden, 203.0.113.9"], "203.0.113.9:0"),
        ] {
            let client = client(&headers("x-forwarded-for", lines), peer, &trusted);
            assert_eq!(client.to_string(), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_host_is_the_value_of_the_nearest_proxy() {
        for (lines, expected) in [
            (&[][..], None),
            (&["example.com"], Some("example.com")),
            (&["EXAMPLE.com:8443"], Some("example.com:8443")),
            (&["forged.example, example.com"], Some("example.com")),
            (&["forged.example", "example.com ,"], Some("example.com")),
            (&["example.com, a b"], None),
            (&["https://example.com"], None),
            (&[""], None),
        ] {
            let expected = expected.map(|host| Host::parse(host).expect("a host"));
            assert_eq!(host(&headers("x-forwarded-host", lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_client_uses_tls_if_all_proxies_report_it() {
        for (lines, expected) in [
            (&[][..], false),
            (&[""], false),
            (&["HTTPS"], true),
            (&[" Wss\t"], true),
            (&["https, HTTPS ,"], true),
            (&["https", "wss"], true),
            (&["http, https"], false),
            (&["\"https\""], false),
            (&["https"], true),
            (&["wss"], true),
            (&["http"], false),
            (&["https, http"], false),
            (&["https", "http"], false),
            (&["gopher"], false),
        ] {
            assert_eq!(over_tls(&headers("x-forwarded-proto", lines)), expected, "{lines:?}");
        }
    }
}
