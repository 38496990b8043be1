//! The upgrade itself: every lawful way to ask is accepted, everything else is refused.

use anyhow::{Context, Result, ensure};
use tests::wire::{self, ACCEPT, Head, KEY, Wire};

use crate::{ENDPOINTS, answer, answers, statuses};

#[tokio::test]
async fn what_is_no_handshake_is_refused_with_its_status_and_the_connection_can_try_again() -> Result<()> {
    for (program, paths, _) in ENDPOINTS {
        let server = wire::serve(program, &[]).await?;
        for path in paths {
            for (what, head, status) in refusals(path) {
                let mut wire = Wire::connect(server.address).await?;
                wire.send(head.bytes()).await?;
                let response = wire.response().await.with_context(|| format!("{path}: {what}"))?;
                assert_eq!(response.status, status, "{path}: {what}: {response:?}");
                assert!(response.body.ends_with('\n'), "{path}: {what}: it says why: {response:?}");
                let version = (status == 426).then_some("13");
                assert_eq!(response.header("sec-websocket-version"), version, "{path}: {what}");
                assert_eq!(response.header("upgrade"), version.and(Some("websocket")), "{path}: {what}");
                assert_eq!(response.header("allow"), (status == 405).then_some("GET"), "{path}: {what}");
                if !what.contains("HTTP/1.0") {
                    wire.upgraded(path).await.with_context(|| format!("{path}: after {what}"))?;
                }
            }
            if *path != "/ws" {
                wire::visit(server.address, path).await?;
            }
        }
    }
    Ok(())
}

fn refusals(path: &str) -> Vec<(&'static str, Head, u16)> {
    let good = || Head::upgrade(path);
    let key = |value: &str| good().set("Sec-WebSocket-Key", value);
    vec![
        ("POST", good().line(&format!("POST {path} HTTP/1.1")), 405),
        ("PUT", good().line(&format!("PUT {path} HTTP/1.1")), 405),
        ("no Upgrade", good().without("Upgrade"), 426),
        ("another Upgrade", good().set("Upgrade", "h2c"), 426),
        ("a longer Upgrade", good().set("Upgrade", "websockets"), 426),
        ("no key", good().without("Sec-WebSocket-Key"), 400),
        ("an empty key", key(""), 400),
        ("a short key", key("dGhlIHNhbXBsZSBub25j"), 400),
        ("a long key", key("dGhlIHNhbXBsZSBub25jZTE="), 400),
        ("a key without padding", key("dGhlIHNhbXBsZSBub25jZQ"), 400),
        ("a key that is not base64", key("dGhlIHNhbXBsZS!ub25jZQ=="), 400),
        ("two keys", good().with("Sec-WebSocket-Key", KEY), 400),
        ("version 8", good().set("Sec-WebSocket-Version", "8"), 426),
        ("no version", good().without("Sec-WebSocket-Version"), 426),
        ("two versions", good().set("Sec-WebSocket-Version", "13, 8"), 426),
        ("HTTP/1.0", good().line(&format!("GET {path} HTTP/1.0")), 400),
        ("no Connection", good().without("Connection"), 400),
        ("Connection: notupgrade", good().set("Connection", "notupgrade"), 400),
        ("Connection: keep-alive", good().set("Connection", "keep-alive"), 400),
        ("a protocol twice", good().with("Sec-WebSocket-Protocol", "fanfare.v1, fanfare.v1"), 400),
        ("an empty protocol", good().with("Sec-WebSocket-Protocol", ""), 400),
    ]
}

#[tokio::test]
async fn every_lawful_way_to_ask_is_accepted_with_the_proof_of_the_rfc() -> Result<()> {
    let connection = |value: &str| Head::upgrade("/ws").set("Connection", value);
    let lawful = [
        ("the sample of the RFC", Head::upgrade("/ws")),
        ("a token among others", connection("keep-alive, Upgrade")),
        ("in any case", connection("UPGRADE").set("Upgrade", "WebSocket")),
        ("on two lines", connection("keep-alive").with("Connection", "Upgrade")),
        ("an upgrade among others", Head::upgrade("/ws").set("Upgrade", "h2c, websocket")),
        ("an absolute target", Head::upgrade("/ws").line("GET http://localhost/ws HTTP/1.1")),
        ("a query", Head::upgrade("/ws?token=x")),
        ("an empty body", Head::upgrade("/ws").with("Content-Length", "0")),
        ("64 lines", (5..64).fold(Head::upgrade("/ws"), |head, n| head.with(&format!("X-{n}"), "x"))),
        ("16,000 bytes", Head::upgrade("/ws").with("X-Long", vec![b'x'; 15_800])),
    ];
    let server = wire::serve("fanfare", &[]).await?;
    for (what, head) in lawful {
        let mut wire = Wire::connect(server.address).await?;
        wire.send(head.bytes()).await?;
        let response = wire.response().await.context(what)?;
        assert_eq!(response.status, 101, "{what}: {response:?}");
        assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT), "{what}");
        assert_eq!(response.header("sec-websocket-protocol"), None, "{what}");
        assert_eq!(response.header("sec-websocket-extensions"), None, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn one_subprotocol_is_spoken_and_others_are_not_promised() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    for (path, wanted, agreed) in [
        ("/ws", "fanfare.v1", Some("fanfare.v1")),
        ("/ws", "unknown, fanfare.v1", Some("fanfare.v1")),
        ("/ws", "unknown", None),
        ("/ws", "FANFARE.V1", None),
        ("/raw/news", "fanfare.v1", None),
        ("/raw/news", "fanfare.raw", Some("fanfare.raw")),
        ("/raw/news", "chat,, fanfare.raw", Some("fanfare.raw")),
        ("/ws", "fanfare.raw", None),
    ] {
        let mut wire = Wire::connect(server.address).await?;
        wire.send(Head::upgrade(path).with("Sec-WebSocket-Protocol", wanted).bytes()).await?;
        let response = wire.response().await?;
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, agreed), "{path}: {wanted}");
    }
    let line = server.line("no common subprotocol").await?;
    for word in ["WARN", "path=/ws", "offered=\"unknown\"", "supported=\"fanfare.v1\"", "browsers close", "1006"] {
        ensure!(line.contains(word), "{word} is not in {line}");
    }
    ensure!(server.output().matches("no common subprotocol").count() < 4, "a line for each: {}", server.output());
    Ok(())
}

#[tokio::test]
async fn a_request_names_exactly_one_host_whatever_it_asks_for() -> Result<()> {
    for (program, paths, page) in ENDPOINTS {
        let server = wire::serve(program, &[]).await?;
        let sockets = paths.iter().map(|path| (Head::upgrade(path), 101));
        let pages = [page, "/live", "/ready", "/metrics"].map(|path| (Head::get(path), 200));
        for (good, status) in sockets.chain(pages).chain([(Head::get("/nowhere"), 404)]) {
            for (what, head, status) in [
                ("one", good.clone(), status),
                ("with a port", good.clone().set("Host", "[::1]:8080"), status),
                ("none", good.clone().without("Host"), 400),
                ("two", good.clone().with("Host", "localhost"), 400),
                ("two that differ", good.clone().with("Host", "other"), 400),
                ("no host's name", good.clone().set("Host", "a b"), 400),
                ("a list", good.clone().set("Host", "a, b"), 400),
            ] {
                assert_eq!(answer(&server, head.bytes()).await?.status, status, "{program}: {what} host: {good:?}");
            }
        }
        // Health checks of old balancers know neither HTTP/1.1 nor Host.
        assert_eq!(answer(&server, b"GET /ready HTTP/1.0\r\n\r\n").await?.status, 200);
        let two = answer(&server, b"GET /ready HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").await?;
        assert_eq!(two.status, 400, "two hosts are one too many in any version");
    }
    Ok(())
}

#[tokio::test]
async fn a_handshake_with_a_body_is_refused_and_what_is_smuggled_in_it_has_no_answer() -> Result<()> {
    const SMUGGLED: &[u8] = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let chunk = [b"27\r\n", SMUGGLED, b"\r\n0\r\n\r\n", SMUGGLED].concat();
    let length = SMUGGLED.len().to_string();
    for (program, paths, page) in ENDPOINTS {
        let server = wire::serve(program, &[]).await?;
        for path in paths {
            for (what, fields, body) in [
                ("a length", vec![("Content-Length", &*length)], SMUGGLED),
                ("chunks", vec![("Transfer-Encoding", "chunked")], &chunk),
                ("both", vec![("Content-Length", "5"), ("Transfer-Encoding", "chunked")], &chunk),
                ("both, the other way", vec![("Transfer-Encoding", "chunked"), ("Content-Length", "5")], &chunk),
                ("no body, but chunks", vec![("Content-Length", "0"), ("Transfer-Encoding", "chunked")], &chunk),
                ("two lengths", vec![("Content-Length", "0"), ("Content-Length", &*length)], SMUGGLED),
                ("a list of lengths", vec![("Content-Length", "0, 39")], SMUGGLED),
                ("a sign", vec![("Content-Length", "+39")], SMUGGLED),
                ("not a number", vec![("Content-Length", "x")], SMUGGLED),
                ("too large a number", vec![("Content-Length", "18446744073709551616")], SMUGGLED),
                ("an unknown encoding", vec![("Transfer-Encoding", "gzip")], SMUGGLED),
                ("chunks, disguised", vec![("Transfer-Encoding", "\x0bchunked")], &chunk),
            ] {
                let head = fields.iter().fold(Head::upgrade(path), |head, (name, value)| head.with(name, value));
                let answers = answers(&server, [&head.bytes(), body].concat()).await?;
                assert_eq!(statuses(&answers), [400], "{path}: {what}");
            }
        }
        // A page may be asked for with a body; of two lengths the chunks count, and then the connection ends (RFC 9112 §6.1).
        for order in [["Content-Length", "Transfer-Encoding"], ["Transfer-Encoding", "Content-Length"]] {
            let value = |name| if name == "Content-Length" { "5" } else { "chunked" };
            let head = order.into_iter().fold(Head::get(page), |head, name| head.with(name, value(name)));
            let answers = answers(&server, [&head.bytes(), &chunk[..]].concat()).await?;
            assert_eq!(statuses(&answers), [200], "{page}: {order:?}");
        }
    }
    Ok(())
}
