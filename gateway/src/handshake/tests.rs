//! The upgrade check's rules, one by one.

use axum::http::Request;

use super::*;

const GOOD: &[(&str, &str)] = &[
    ("host", "example.com"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A good request in which the header lines of each name in `changes` are replaced; an empty list removes them.
fn request(changes: &[(&str, &[&str])]) -> Parts {
    let mut builder = Request::get("/ws");
    for (name, value) in GOOD.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name)) {
        builder = builder.header(*name, *value);
    }
    for (name, lines) in changes {
        for line in *lines {
            builder = builder.header(*name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
    }
    builder.body(()).unwrap().into_parts().0
}

fn checked(changes: &[(&str, &[&str])]) -> Result<Accepted, Refusal> {
    let origins = Origins::parse(["https://listed.org"]).unwrap();
    check(&request(changes), false, &origins, &["fanfare.v1", "other"])
}

#[test]
fn the_sample_of_the_rfc_is_accepted_with_its_answer() {
    let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(checked(&[]), Ok(Accepted { accept, protocol: None }));
}

#[test]
fn only_a_get_over_http_1_1_can_be_upgraded() {
    let origins = Origins::default();
    for method in [Method::POST, Method::HEAD, Method::OPTIONS, Method::CONNECT] {
        let mut parts = request(&[("content-length", &["5"])]);
        parts.method = method;
        assert_eq!(check(&parts, false, &origins, &[]), Err(Refusal::Method));
    }
    for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2] {
        let mut parts = request(&[]);
        parts.version = version;
        assert_eq!(check(&parts, false, &origins, &[]), Err(Refusal::HttpVersion));
    }
}

#[test]
fn each_header_is_checked() {
    type Case = (&'static str, &'static [&'static str], Option<Refusal>);
    let cases: &[Case] = &[
        ("host", &[], Some(Refusal::Host)),
        ("host", &["example.com", "example.com"], Some(Refusal::Host)),
        ("host", &[""], Some(Refusal::Host)),
        ("host", &["user@example.com"], Some(Refusal::Host)),
        ("host", &["example.com:port"], Some(Refusal::Host)),
        ("host", &["example.com, evil.org"], Some(Refusal::Host)),
        ("host", &["[::1]:3000"], None),
        ("host", &["10.0.0.1:3000"], None),
        ("content-length", &["0"], None),
        ("content-length", &["1"], Some(Refusal::Body)),
        ("content-length", &["0", "5"], Some(Refusal::Body)),
        ("content-length", &["-0"], Some(Refusal::Body)),
        ("transfer-encoding", &["chunked"], Some(Refusal::Body)),
        ("transfer-encoding", &["identity"], Some(Refusal::Body)),
        ("upgrade", &[], Some(Refusal::Upgrade)),
        ("upgrade", &["h2c"], Some(Refusal::Upgrade)),
        ("upgrade", &["websockets"], Some(Refusal::Upgrade)),
        ("upgrade", &["web socket"], Some(Refusal::Upgrade)),
        ("upgrade", &["WebSocket"], None),
        ("upgrade", &["h2c, websocket"], None),
        ("upgrade", &["h2c", "websocket"], None),
        ("connection", &[], Some(Refusal::Connection)),
        ("connection", &["keep-alive"], Some(Refusal::Connection)),
        ("connection", &["notupgrade"], Some(Refusal::Connection)),
        ("connection", &["upgrade-not"], Some(Refusal::Connection)),
        ("connection", &["not upgrade"], Some(Refusal::Connection)),
        ("connection", &["é"], Some(Refusal::Connection)),
        ("connection", &["keep-alive, Upgrade"], None),
        ("connection", &["keep-alive,,\tUPGRADE ,"], None),
        ("connection", &["keep-alive", "upgrade"], None),
        ("sec-websocket-version", &[], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["8"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["013"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["13, 8"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["13", "13"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-key", &[], Some(Refusal::Key)),
        ("sec-websocket-key", &[""], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], Some(Refusal::Key)), // no padding
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25j"], Some(Refusal::Key)),   // 15 bytes
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZTE="], Some(Refusal::Key)), // 17 bytes
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZTEy"], Some(Refusal::Key)), // 18 bytes
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZTEydGhlIHNhbXBsZSBub25jZTEy"], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZS!ub25jZQ=="], Some(Refusal::Key)),
        ("origin", &["https://example.com"], None),
        ("origin", &["https://listed.org"], None),
        ("origin", &["https://listed.org", "https://listed.org"], Some(Refusal::Origin)),
        ("origin", &["https://foreign.org"], Some(Refusal::Origin)),
        ("origin", &["https://listed.org.evil.org"], Some(Refusal::Origin)),
        ("origin", &["https://lísted.org"], Some(Refusal::Origin)),
        ("origin", &["null"], Some(Refusal::Origin)),
        ("sec-websocket-protocol", &[""], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["other,,fanfare.v1"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["fanfare v1"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["other", "other"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["other;q=1"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["é"], Some(Refusal::Protocol)),
    ];
    for (name, lines, expected) in cases {
        assert_eq!(checked(&[(name, lines)]).err(), *expected, "{name}: {lines:?}");
    }
}

#[test]
fn every_request_names_one_host_but_http_1_0_may_name_none() {
    for (version, lines, expected) in [
        (Version::HTTP_11, &["example.com"][..], Ok(())),
        (Version::HTTP_11, &[], Err(Refusal::Host)),
        (Version::HTTP_11, &["a", "a"], Err(Refusal::Host)),
        (Version::HTTP_11, &["a b"], Err(Refusal::Host)),
        (Version::HTTP_10, &["example.com"], Ok(())),
        (Version::HTTP_10, &[], Ok(())),
        (Version::HTTP_10, &["a", "a"], Err(Refusal::Host)),
    ] {
        assert_eq!(check_host(version, &request(&[("host", lines)]).headers), expected, "{version:?} {lines:?}");
    }
}

#[test]
fn the_clients_first_supported_subprotocol_is_taken() {
    for (lines, expected) in [
        (&["fanfare.v1"][..], Some("fanfare.v1")),
        (&["unknown, other ,fanfare.v1"], Some("other")),
        (&["unknown", "fanfare.v1", "other"], Some("fanfare.v1")),
        (&["unknown"], None),
        (&["FANFARE.V1"], None), // RFC 6455 §11.3.4: compared as they are
    ] {
        assert_eq!(checked(&[("sec-websocket-protocol", lines)]).unwrap().protocol, expected, "{lines:?}");
    }
}

#[test]
fn a_refusal_says_what_to_do_to_programs_and_to_people() {
    for (refusal, status, headers) in [
        (Refusal::Method, 405, &[("allow", "GET")][..]),
        (Refusal::HttpVersion, 400, &[]),
        (Refusal::Host, 400, &[]),
        (Refusal::Body, 400, &[("connection", "close")]),
        (
            Refusal::Upgrade,
            426,
            &[("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13")],
        ),
        (Refusal::Connection, 400, &[]),
        (
            Refusal::WebSocketVersion,
            426,
            &[("sec-websocket-version", "13"), ("upgrade", "websocket"), ("connection", "Upgrade")],
        ),
        (Refusal::Key, 400, &[]),
        (Refusal::Origin, 403, &[]),
        (Refusal::Protocol, 400, &[]),
    ] {
        let response = refusal.into_response();
        assert_eq!(response.status(), status, "{refusal:?}");
        assert_eq!(response.body(), &format!("{refusal}\n"));
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers().len(), 1 + headers.len(), "{refusal:?}");
        for (name, value) in headers {
            assert_eq!(response.headers()[*name], value, "{refusal:?}");
        }
    }
}
