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
    checked_head(&request(changes), false)
}

fn checked_head(parts: &Parts, over_tls: bool) -> Result<Accepted, Refusal> {
    let origins = Origins::parse(["https://listed.org"]).unwrap();
    let hosts = Hosts::parse(&["example.com".to_owned()], &origins, [127, 0, 0, 1].into()).unwrap();
    let terms = Terms { hosts: &hosts, origins: &origins, over_tls, protocols: &["fanfare.v1", "other"] };
    check(parts, host(parts.version, &parts.uri, &parts.headers)?.as_ref(), &terms)
}

fn foreign(origin: &str) -> Option<Refusal> {
    Some(Refusal::Origin(origin.to_owned()))
}

fn no_origin(shown: &str) -> Option<Refusal> {
    Some(Refusal::NoOrigin(shown.to_owned()))
}

fn stranger(host: &str) -> Option<Refusal> {
    Some(Refusal::Stranger(host.to_owned()))
}

#[test]
fn the_example_of_the_rfc_gets_the_rfcs_answer() {
    let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(checked(&[]), Ok(Accepted { accept, protocol: None, unsupported: None }));
    // §4.1, item 7: the bytes 1 to 16.
    let accept = checked(&[("sec-websocket-key", &["AQIDBAUGBwgJCgsMDQ4PEC=="])]).unwrap().accept;
    assert_eq!(accept, "OfS0wDaT5NoxF2gqm7Zj2YtetzM=");
}

#[test]
fn only_a_get_over_http_1_1_can_be_upgraded() {
    for method in [Method::POST, Method::HEAD, Method::OPTIONS, Method::CONNECT] {
        let mut parts = request(&[("content-length", &["5"])]);
        parts.method = method;
        assert_eq!(checked_head(&parts, false), Err(Refusal::Method));
    }
    for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_2] {
        let mut parts = request(&[]);
        parts.version = version;
        assert_eq!(checked_head(&parts, false), Err(Refusal::HttpVersion));
    }
}

/// A header, its lines, and the expected refusal, if any.
type Case = (&'static str, &'static [&'static str], Option<Refusal>);

fn check_cases(cases: &[Case]) {
    for (name, lines, expected) in cases {
        assert_eq!(checked(&[(name, lines)]).err(), *expected, "{name}: {lines:?}");
    }
}

#[test]
fn each_header_of_an_upgrade_is_checked() {
    check_cases(&[
        ("host", &[], Some(Refusal::Host)),
        ("host", &["example.com", "example.com"], Some(Refusal::Host)),
        ("host", &[""], Some(Refusal::Host)),
        ("host", &["user@example.com"], Some(Refusal::Host)),
        ("host", &["example.com:port"], Some(Refusal::Host)),
        ("host", &["example.com, evil.org"], Some(Refusal::Host)),
        ("host", &["examéple.com"], Some(Refusal::Host)),
        ("host", &["[::1]:3000"], None),
        ("host", &["[0:0::1]"], None),
        ("host", &["EXAMPLE.com.:"], None),
        ("host", &["evil.example"], None), // no page, so no browser
        ("host", &["10.0.0.1:3000"], None),
        ("content-length", &["0"], None),
        ("content-length", &["00"], None),
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
        ("upgrade", &[", ,WEBSOCKET\t,"], None),
        ("upgrade", &["é, websocket"], None),
        ("upgrade", &["websocket/13"], Some(Refusal::Upgrade)),
        ("upgrade", &["\"websocket\""], Some(Refusal::Upgrade)),
        ("upgrade", &["foo/\"1, websocket\""], Some(Refusal::Upgrade)),
        ("connection", &[], Some(Refusal::Connection)),
        ("connection", &["keep-alive"], Some(Refusal::Connection)),
        ("connection", &["notupgrade"], Some(Refusal::Connection)),
        ("connection", &["upgrade-not"], Some(Refusal::Connection)),
        ("connection", &["not upgrade"], Some(Refusal::Connection)),
        ("connection", &["é"], Some(Refusal::Connection)),
        ("connection", &["keep-alive, Upgrade"], None),
        ("connection", &["keep-alive,,\tUPGRADE ,"], None),
        ("connection", &["keep-alive", "upgrade"], None),
        ("connection", &["", "upgrade"], None),
        ("connection", &["upgrade, close"], None),
        ("connection", &["x=\"a, upgrade\""], Some(Refusal::Connection)),
        ("sec-websocket-version", &[], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["13", "8"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["8"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["013"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["13, 8"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-version", &["13", "13"], Some(Refusal::WebSocketVersion)),
        ("sec-websocket-key", &[], Some(Refusal::Key)),
        ("sec-websocket-key", &[""], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], Some(Refusal::Key)),
        ("sec-websocket-key", &["AQIDBAUGBwgJCgsMDQ4PEC=="], None), // bits that an encoder leaves at zero
        ("sec-websocket-key", &["//////////////////////=="], None),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZ==="], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZS-ub25jZQ=="], Some(Refusal::Key)), // of another alphabet
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], Some(Refusal::Key)),   // no padding
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25j"], Some(Refusal::Key)),     // 15 bytes
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZTE="], Some(Refusal::Key)), // 17 bytes
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZTEy"], Some(Refusal::Key)), // 18 bytes
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ=="], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZTEydGhlIHNhbXBsZSBub25jZTEy"], Some(Refusal::Key)),
        ("sec-websocket-key", &["dGhlIHNhbXBsZS!ub25jZQ=="], Some(Refusal::Key)),
    ]);
}

#[test]
fn each_origin_and_each_list_of_subprotocols_is_checked() {
    check_cases(&[
        ("origin", &["https://example.com"], None),
        ("origin", &["https://listed.org"], None),
        ("origin", &["http://example.com"], None),
        ("origin", &["HTTPS://LISTED.org"], None),
        ("origin", &["https://listed.org", "https://listed.org"], no_origin("it was sent several times")),
        ("origin", &["https://foreign.org"], foreign("https://foreign.org")),
        ("origin", &["http://localhost:5173"], foreign("http://localhost:5173")),
        ("origin", &["https://listed.org.evil.org"], foreign("https://listed.org.evil.org")),
        ("origin", &["https://lísted.org"], no_origin("https://l??sted.org")),
        ("origin", &["https://foreign.org https://listed.org"], no_origin("https://foreign.org https://listed.org")),
        ("origin", &["https://foreign.org/\"]"], no_origin("https://foreign.org/\"]")),
        ("origin", &[""], no_origin("")),
        ("origin", &["*"], no_origin("*")),
        ("origin", &["null"], foreign("null")),
        ("origin", &["file://"], foreign("file://")),
        ("sec-websocket-protocol", &[""], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &[", ,"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["other,,fanfare.v1"], None), // RFC 9110 §5.6.1.2
        ("sec-websocket-protocol", &["", "other ,"], None),
        ("sec-websocket-protocol", &["other", "fanfare.v1, other"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["\"other\""], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["fanfare v1"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["other", "other"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["other;q=1"], Some(Refusal::Protocol)),
        ("sec-websocket-protocol", &["é"], Some(Refusal::Protocol)),
    ]);
}

#[test]
fn a_page_of_a_host_that_is_not_the_nodes_is_refused() {
    for (name, origin, over_tls, expected) in [
        ("evil.example", "http://evil.example", false, stranger("evil.example")),
        ("EVIL.example:8080", "http://evil.example:8080", false, stranger("evil.example")),
        ("evil.example.", "http://evil.example.", false, stranger("evil.example")),
        ("evil.example", "https://listed.org", false, None),
        ("evil.example", "https://evil.example", false, None), // over TLS up to a balancer
        ("evil.example", "https://evil.example", true, None),
        ("evil.example", "http://evil.example", true, foreign("http://evil.example")),
        ("example.com:8080", "http://example.com:8080", false, None),
        ("192.0.2.7:8080", "http://192.0.2.7:8080", false, None),
        ("localhost:8080", "http://127.0.0.1:5173", false, None),
    ] {
        let parts = request(&[("host", &[name]), ("origin", &[origin])]);
        assert_eq!(checked_head(&parts, over_tls).err(), expected, "{origin} to {name}");
    }
}

#[test]
fn a_clients_origin_is_shown_short_and_printable() {
    let long = format!("https://{}.example", "x".repeat(1000));
    for origin in ["https://a\tb", "https://\u{9b}31m.example", &long] {
        let refusal = checked(&[("origin", &[origin])]).expect_err(origin);
        let text = refusal.to_string();
        assert!(matches!(refusal, Refusal::NoOrigin(_)) && text.len() < 300, "{text}");
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
    }
}

#[test]
fn an_upgrade_to_another_protocol_is_ignored() {
    for (version, lines, expected) in [
        (Version::HTTP_11, &["websocket"][..], true),
        (Version::HTTP_11, &["WebSocket"], true),
        (Version::HTTP_11, &["h2c, websocket"], true),
        (Version::HTTP_11, &["h2c"], false),
        (Version::HTTP_11, &["TLS/1.0, HTTP/2.0"], false),
        (Version::HTTP_11, &[""], false),
        (Version::HTTP_11, &[], false),
        (Version::HTTP_10, &["websocket"], false), // RFC 9110 §7.8
    ] {
        assert_eq!(is_wanted(version, &request(&[("upgrade", lines)]).headers), expected, "{version:?} {lines:?}");
    }
}

#[test]
fn every_request_names_one_host_but_http_1_0_may_name_none() {
    let named = |text: &str| Ok(Some(Host::parse(text).unwrap()));
    for (version, target, lines, expected) in [
        (Version::HTTP_11, "/", &["example.com"][..], named("example.com")),
        (Version::HTTP_11, "/", &[], Err(Refusal::Host)),
        (Version::HTTP_11, "/", &["a", "a"], Err(Refusal::Host)),
        (Version::HTTP_11, "/", &["a b"], Err(Refusal::Host)),
        (Version::HTTP_10, "/", &["example.com"], named("example.com")),
        (Version::HTTP_10, "/", &[], Ok(None)),
        (Version::HTTP_10, "/", &["a", "a"], Err(Refusal::Host)),
        // RFC 9112 §3.2.2: an absolute target takes precedence, but Host must be present too.
        (Version::HTTP_11, "http://target.example:81/", &["example.com"], named("target.example:81")),
        (Version::HTTP_11, "http://target.example/", &[], Err(Refusal::Host)),
        (Version::HTTP_11, "http://target.example/", &["a b"], Err(Refusal::Host)),
        (Version::HTTP_11, "http://user@target.example/", &["example.com"], Err(Refusal::Host)),
    ] {
        let found = host(version, &target.parse().unwrap(), &request(&[("host", lines)]).headers);
        assert_eq!(found, expected, "{version:?} {target} {lines:?}");
    }
}

#[test]
fn the_clients_first_supported_subprotocol_is_taken() {
    for (lines, expected) in [
        (&["fanfare.v1"][..], Some("fanfare.v1")),
        (&["unknown, other ,fanfare.v1"], Some("other")),
        (&["unknown", "fanfare.v1", "other"], Some("fanfare.v1")),
        (&["unknown"], None),
        (&[",unknown ,,\tother"], Some("other")),
        (&["FANFARE.V1"], None), // RFC 6455 §11.3.4: compared as they are
    ] {
        assert_eq!(checked(&[("sec-websocket-protocol", lines)]).unwrap().protocol, expected, "{lines:?}");
    }
}

#[test]
fn unsupported_subprotocols_are_shown_shortened_since_they_may_be_secrets() {
    for (lines, expected) in [
        (&[][..], None),
        (&["unknown, other"], None),
        (&["chat"], Some("chat")),
        (&["chat, graphql-ws"], Some("chat, graphql-ws")),
        (&["a,b,c,d,e"], Some("a, b, c, d, ...")),
        (&["token, eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.secret"], Some("token, eyJhbGciOiJIUzI1NiJ9...")),
    ] {
        let accepted = checked(&[("sec-websocket-protocol", lines)]).unwrap();
        assert_eq!(accepted.unsupported.as_deref(), expected, "{lines:?}");
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
        (Refusal::Origin("http://localhost:5173".into()), 403, &[]),
        (Refusal::NoOrigin("*".into()), 403, &[]),
        (Refusal::Stranger("evil.example".into()), 421, &[]),
        (Refusal::Protocol, 400, &[]),
    ] {
        let response = refusal.clone().into_response();
        assert_eq!(response.status(), status, "{refusal:?}");
        assert_eq!(response.body(), &format!("{refusal}; see docs/errors.md#{status}\n"));
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers().len(), 1 + headers.len(), "{refusal:?}");
        for (name, value) in headers {
            assert_eq!(response.headers()[*name], value, "{refusal:?}");
        }
    }
    let origin = Refusal::Origin("http://localhost:5173".into()).to_string();
    for words in ["http.origins = [\"http://localhost:5173\"]", "fanfare probe", "FANFARE__HTTP__ORIGINS"] {
        assert!(origin.contains(words), "{origin}");
    }
    assert!(!origin.contains("https://"), "{origin}");
    let host = Refusal::Stranger("evil.example".into()).to_string();
    assert!(host.contains("http.hosts = [\"evil.example\"]"), "{host}");
}
