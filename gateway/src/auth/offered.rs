//! The token that a request's head offers: in `Authorization`, as a subprotocol, or in the cookie; never in the URL.
//!
//! Pure. Does not check the token itself.

use std::borrow::Cow;
use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;

use super::TOKEN_BYTES;
use crate::field::{elements, lists};

/// A subprotocol that carries a token begins with this; base64url of the token follows.
pub(crate) const BEARER: &str = "fanfare.bearer.";

/// A token, and where it stood. No way of printing it shows the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) token: String,
    pub(crate) place: Place,
}

/// Where a token stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `Authorization: Bearer`.
    Authorization,
    /// The subprotocol `fanfare.bearer.…`.
    Subprotocol,
    /// The cookie `auth.cookie`.
    Cookie,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Why the tokens of a request cannot be used. The texts show no part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misplaced {
    #[error(
        "a token in the URL ends up in logs: send it as `Authorization: Bearer …`, as the subprotocol \
         `fanfare.bearer.<base64url of the token>`, or in the first frame"
    )]
    Url,
    #[error("the request has two different tokens, or a token and a ticket: send one")]
    Ambiguous,
    #[error("Authorization must be `Bearer`, a space and the token")]
    Authorization,
    #[error("after `fanfare.bearer.` comes the token in base64url without padding, of at most 8 KiB")]
    Subprotocol,
}

/// Finds the token of a request. The first of `Authorization`, subprotocol and cookie counts. Tokens in the first two must
/// be equal; the cookie, which browsers send on their own, counts only if there is no other token. `cookie` is its name, if
/// one is configured.
pub(crate) fn offered(
    headers: &HeaderMap,
    query: Option<&str>,
    cookie: Option<&str>,
) -> Result<Option<Offered>, Misplaced> {
    if query.is_some_and(names_a_token) {
        return Err(Misplaced::Url);
    }
    let mut found: Option<Offered> = None;
    for explicit in authorization(headers).chain(subprotocols(headers)) {
        let explicit = explicit?;
        match &found {
            Some(found) if found.token != explicit.token => return Err(Misplaced::Ambiguous),
            Some(_) => {}
            None => found = Some(explicit),
        }
    }
    // The handshake has checked the origin. Without one it is not a page that connects, and the cookie could be anyone's.
    // Browsers send no origin with a GET of the same one, but say so.
    let of_page = headers.contains_key(ORIGIN) || lists(headers, "sec-fetch-site", "same-origin");
    match cookie.filter(|_| found.is_none() && of_page) {
        Some(name) => cookies(headers, name),
        None => Ok(found),
    }
}

/// Whether a parameter of the query has the name of a token.
fn names_a_token(query: &str) -> bool {
    query.split('&').any(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name: Cow<str> = percent_decode_str(name).decode_utf8_lossy();
        ["token", "access_token"].iter().any(|token| name.eq_ignore_ascii_case(token))
    })
}

/// The ticket that the query holds, in the parameter `ticket`. Browsers encode no character of one.
pub(crate) fn ticket(query: Option<&str>) -> Result<Option<&str>, Misplaced> {
    let values = query.unwrap_or_default().split('&').filter_map(|parameter| parameter.strip_prefix("ticket="));
    let mut tickets = values.filter(|ticket| !ticket.is_empty());
    match (tickets.next(), tickets.next()) {
        (ticket, None) => Ok(ticket),
        (_, Some(_)) => Err(Misplaced::Ambiguous),
    }
}

/// Other schemes than `Bearer` are for others, such as a proxy.
fn authorization(headers: &HeaderMap) -> impl Iterator<Item = Result<Offered, Misplaced>> {
    headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| {
        let value = value.as_bytes().trim_ascii();
        let (scheme, token) = value.split_at(value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len()));
        let token = std::str::from_utf8(token.trim_ascii()).ok().filter(|token| !token.is_empty());
        let one = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
        scheme.eq_ignore_ascii_case(b"bearer").then(|| {
            one.map(|token| Offered { token: token.to_owned(), place: Place::Authorization })
                .ok_or(Misplaced::Authorization)
        })
    })
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = Result<Offered, Misplaced>> {
    elements(headers, "sec-websocket-protocol").filter_map(|name| name.strip_prefix(BEARER.as_bytes())).map(|encoded| {
        let fits = encoded.len() <= TOKEN_BYTES.div_ceil(3) * 4;
        let token = fits.then(|| URL_SAFE_NO_PAD.decode(encoded).ok()).flatten();
        let token = token.and_then(|token| String::from_utf8(token).ok()).filter(|token| !token.is_empty());
        token.map(|token| Offered { token, place: Place::Subprotocol }).ok_or(Misplaced::Subprotocol)
    })
}

/// RFC 6265 §4.2. A cookie of the same name with another value was set by another host or path.
fn cookies(headers: &HeaderMap, name: &str) -> Result<Option<Offered>, Misplaced> {
    let mut found: Option<&str> = None;
    for line in headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';') {
            let Some((its_name, value)) = std::str::from_utf8(pair).ok().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            if its_name.trim() != name || value.is_empty() {
                continue;
            }
            if found.is_some_and(|found| found != value) {
                return Err(Misplaced::Ambiguous);
            }
            found = Some(value);
        }
    }
    Ok(found.map(|token| Offered { token: token.to_owned(), place: Place::Cookie }))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn found(query: &str, lines: &[&str]) -> Result<Option<(String, Place)>, Misplaced> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let query = (!query.is_empty()).then_some(query);
        offered(&headers, query, Some("__Host-t")).map(|found| found.map(|found| (found.token, found.place)))
    }

    #[test]
    fn a_token_is_found_in_three_places_in_this_order() {
        use Place::{Authorization, Cookie, Subprotocol};
        // `YS5iLmM` is base64url of `a.b.c`, `eC55Lno` of `x.y.z`.
        for (lines, expected) in [
            (&[][..], None),
            (&["authorization: Bearer a.b.c"], Some(("a.b.c", Authorization))),
            (&["authorization: bEARER   a.b.c "], Some(("a.b.c", Authorization))),
            (&["authorization: Basic YTpi"], None),
            (&["sec-websocket-protocol: fanfare.v1, fanfare.bearer.YS5iLmM"], Some(("a.b.c", Subprotocol))),
            (
                &["sec-websocket-protocol: fanfare.v1", "sec-websocket-protocol: fanfare.bearer.YS5iLmM"],
                Some(("a.b.c", Subprotocol)),
            ),
            (&["sec-websocket-protocol: fanfare.v1"], None),
            (
                &["authorization: Bearer a.b.c", "sec-websocket-protocol: fanfare.bearer.YS5iLmM"],
                Some(("a.b.c", Authorization)),
            ),
            (&["origin: https://a", "cookie: x=1; __Host-t=a.b.c"], Some(("a.b.c", Cookie))),
            (&["origin: https://a", "cookie: __Host-t=\"a.b.c\"", "cookie: y=2"], Some(("a.b.c", Cookie))),
            (&["origin: https://a", "cookie: __Host-t=a.b.c; __Host-t=a.b.c"], Some(("a.b.c", Cookie))),
            (&["origin: https://a", "cookie: t=a.b.c; __host-t=a.b.c; __Host-t=; __Host-t"], None),
            (&["cookie: __Host-t=a.b.c"], None), // no page connects
            (
                &["origin: https://a", "cookie: __Host-t=a.b.c", "authorization: Bearer x.y.z"],
                Some(("x.y.z", Authorization)),
            ),
            (
                &["origin: https://a", "cookie: __Host-t=a.b.c", "sec-websocket-protocol: fanfare.bearer.eC55Lno"],
                Some(("x.y.z", Subprotocol)),
            ),
        ] {
            let expected = expected.map(|(token, place)| (token.to_owned(), place));
            assert_eq!(found("room=1", lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_words_without_the_token() {
        let long = format!("sec-websocket-protocol: fanfare.bearer.{}", "A".repeat(11_000));
        for (query, lines, expected) in [
            ("token=a.b.c", &[][..], Misplaced::Url),
            ("x=1&access_token=a.b.c", &[], Misplaced::Url),
            ("%74oken=a.b.c", &["authorization: Bearer a.b.c"], Misplaced::Url),
            ("TOKEN", &[], Misplaced::Url),
            ("", &["authorization: Bearer a.b.c", "authorization: Bearer x.y.z"], Misplaced::Ambiguous),
            (
                "",
                &["authorization: Bearer x.y.z", "sec-websocket-protocol: fanfare.bearer.YS5iLmM"],
                Misplaced::Ambiguous,
            ),
            ("", &["origin: https://a", "cookie: __Host-t=a.b.c; __Host-t=x.y.z"], Misplaced::Ambiguous),
            ("", &["authorization: Bearer"], Misplaced::Authorization),
            ("", &["authorization: Bearer "], Misplaced::Authorization),
            ("", &["authorization: Bearer a b"], Misplaced::Authorization),
            ("", &["sec-websocket-protocol: fanfare.bearer."], Misplaced::Subprotocol),
            ("", &["sec-websocket-protocol: fanfare.bearer.?"], Misplaced::Subprotocol),
            ("", &["sec-websocket-protocol: fanfare.bearer.YS5iLmM="], Misplaced::Subprotocol),
            ("", &["sec-websocket-protocol: fanfare.bearer._w"], Misplaced::Subprotocol),
            ("", &[&long], Misplaced::Subprotocol),
        ] {
            assert_eq!(found(query, lines), Err(expected), "{query} {lines:?}");
            assert!(!expected.to_string().contains("a.b.c"));
        }
        for query in ["tokens=1", "my_token=1", "x=token", "room=1&t=token"] {
            assert_eq!(found(query, &[]), Ok(None), "{query}");
        }
    }

    #[test]
    fn a_ticket_stands_in_the_query_once() {
        for (query, expected) in [
            ("", Ok(None)),
            ("ticket=", Ok(None)),
            ("channel=a&ticket=abc_-9", Ok(Some("abc_-9"))),
            ("tickets=abc&x=ticket", Ok(None)),
            ("ticket=a&ticket=a", Err(Misplaced::Ambiguous)),
        ] {
            assert_eq!(ticket(Some(query)), expected, "{query}");
        }
        assert_eq!(ticket(None), Ok(None));
    }

    #[test]
    fn a_printed_offer_has_no_token() {
        let offered = Offered { token: "canary".to_owned(), place: Place::Cookie };
        assert_eq!(format!("{offered:?}"), "Offered { place: Cookie, .. }");
    }
}
