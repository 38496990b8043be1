//! Requests that are no lawful handshake: each is refused as RFC 6455 §4.2 and RFC 9112 want it, and costs its sender only.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::wire::{self, ACCEPT, Frame, Head, KEY, Response, Wire};
use tests::{Program, http};

/// Every endpoint of the two programs, and a page of each.
const ENDPOINTS: [(&str, &[&str], &str); 2] =
    [("fanfare", &["/ws", "/raw/news"], "/"), ("echo-server", &["/ws/echo"], "/ws")];

/// The pause of a client that dribbles.
const DRIBBLE: Duration = Duration::from_millis(200);

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

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    for path in ["/ws", "/raw/news", "/", "/nowhere"] {
        let good = || Head::upgrade(path);
        for (what, bytes, statuses) in [
            ("17 KiB", good().with("X", vec![b'x'; 17 << 10]).bytes(), [431].as_slice()),
            ("65 lines", (5..66).fold(good(), |head, n| head.with(&format!("X-{n}"), "x")).bytes(), &[431]),
            ("1 MiB", good().with("X", vec![b'x'; 1 << 20]).bytes(), &[431]),
            ("no end", [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 1 << 20]].concat(), &[431]),
            ("a long target", Head::upgrade([path.as_bytes(), &[b'x'; 1 << 20]].concat()).bytes(), &[414, 431]),
        ] {
            let answers = answers(&server, bytes).await?;
            assert!(answers.len() == 1 && statuses.contains(&answers[0].status), "{path}: {what}: {answers:?}");
        }
    }
    wire::visit(server.address, "/raw/news").await
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_the_server_lives() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let get = |line: &str| Head::get("/ws").line(line).bytes();
    for (what, bytes) in [
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("HTTP/1.2", get("GET /ws HTTP/1.2")),
        ("HTTP/0.9", b"GET /ws\r\n\r\n".to_vec()),
        ("no target", get("GET HTTP/1.1")),
        ("a space in the target", get("GET /ra w HTTP/1.1")),
        ("an escape in the target", get("GET /raw/\x1b[31m HTTP/1.1")),
        ("a NUL in the target", get("GET /raw/a\0b HTTP/1.1")),
        ("a NUL in a value", Head::upgrade("/ws").with("X", b"a\0b").bytes()),
        ("a bare CR in a value", Head::upgrade("/ws").with("X", b"a\rb").bytes()),
        ("a folded line", Head::upgrade("/ws").with("X", b"a\r\n b").bytes()),
        ("a space before the colon", Head::upgrade("/ws").with("X ", b"a").bytes()),
        ("a line without a colon", b"GET /ws HTTP/1.1\r\nHost: a\r\nwhat\r\n\r\n".to_vec()),
    ] {
        let answers = answers(&server, bytes).await?;
        assert_eq!(statuses(&answers), [400], "{what}");
    }
    // HTTP/2 would not understand an answer.
    let preface = answers(&server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    assert!(preface.is_empty(), "{preface:?}");
    for (line, statuses) in [
        ("OPTIONS * HTTP/1.1", [400, 404, 405].as_slice()),
        ("CONNECT localhost:80 HTTP/1.1", &[400, 404, 405]),
        ("GET //ws HTTP/1.1", &[404]),
        ("GET /ws/ HTTP/1.1", &[404]),
        ("GET /../ws HTTP/1.1", &[404]),
        ("GET /%77s HTTP/1.1", &[404]),
        ("GET /raw HTTP/1.1", &[404]),
        ("GET /raw/ HTTP/1.1", &[404]),
        ("GET /raw/a/b HTTP/1.1", &[404]),
        ("GET /nowhere HTTP/1.1", &[404]),
        ("POST / HTTP/1.1", &[405]),
    ] {
        for head in [Head::get("/"), Head::upgrade("/")] {
            let response = answer(&server, head.line(line).bytes()).await?;
            assert!(statuses.contains(&response.status), "{line}: {response:?}");
        }
    }
    wire::visit(server.address, "/raw/news").await
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_closed() -> Result<()> {
    let server = wire::serve("fanfare", &[("FANFARE__HTTP__HEAD_TIME", "1s")]).await?;
    let head = Head::upgrade("/ws").bytes();
    let dribble = async {
        let (mut wire, start) = (Wire::connect(server.address).await?, Instant::now());
        ensure!(wire.trickle(&head, 1, DRIBBLE).await.is_err(), "it may dribble for as long as it likes");
        ended_after(&mut wire, start, Duration::from_secs(1)).await
    };
    let dribble_lines = async {
        let (mut wire, start) = (Wire::connect(server.address).await?, Instant::now());
        let lines = b"GET /ws HTTP/1.1\r\n".iter().chain(b"X: x\r\n".iter().cycle().take(600)).copied();
        ensure!(wire.trickle(lines.collect::<Vec<_>>(), 6, DRIBBLE).await.is_err(), "it may send lines for ever");
        ended_after(&mut wire, start, Duration::from_secs(1)).await
    };
    let silent = async {
        let (mut wire, start) = (Wire::connect(server.address).await?, Instant::now());
        ended_after(&mut wire, start, Duration::from_secs(1)).await
    };
    let half = async {
        let (mut wire, start) = (Wire::connect(server.address).await?, Instant::now());
        wire.send(&head[..head.len() - 1]).await?;
        ended_after(&mut wire, start, Duration::from_secs(1)).await
    };
    let idle = async {
        let mut wire = Wire::connect(server.address).await?;
        wire.send(Head::get("/live").bytes()).await?;
        assert_eq!(wire.response().await?.status, 200);
        ended_after(&mut wire, Instant::now(), Duration::from_secs(1)).await
    };
    let left = async {
        let mut wire = Wire::connect(server.address).await?;
        wire.send(&head[..20]).await?;
        wire.shut().await?;
        ended_after(&mut wire, Instant::now(), Duration::ZERO).await
    };
    let all = async { tokio::try_join!(dribble, dribble_lines, silent, half, idle, left) };
    // However slow this machine is, they end before one that has the five seconds of the default.
    let patient = wire::serve("fanfare", &[]).await?;
    let mut control = Wire::connect(patient.address).await?;
    tokio::select! {
        biased;
        ended = all => ended?,
        _ = control.next_response() => bail!("they have more than the second that the operator gives them"),
    };
    wire::visit(server.address, "/raw/news").await
}

#[tokio::test]
async fn a_head_has_five_seconds_unless_the_operator_says_otherwise() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let (mut wire, start) = (Wire::connect(server.address).await?, Instant::now());
    ended_after(&mut wire, start, Duration::from_secs(5)).await
}

/// The connection ends without a response, and not before its time.
async fn ended_after(wire: &mut Wire, start: Instant, time: Duration) -> Result<()> {
    if let Some(response) = wire.next_response().await? {
        ensure!(response.status == 408, "{response:?}");
        ensure!(wire.next_response().await?.is_none(), "it goes on after {response:?}");
    }
    let took = start.elapsed();
    let slack = Duration::from_millis(100);
    ensure!(took + slack >= time, "closed after {took:?} instead of {time:?}");
    Ok(())
}

#[tokio::test]
async fn pages_of_other_origins_are_kept_out() -> Result<()> {
    let listed = [("FANFARE__HTTP__ORIGINS", "https://listed.org,https://*.wide.org,http://ported.org:8000")];
    let server = wire::serve("fanfare", &listed).await?;
    for (origin, host, status) in [
        ("http://localhost:8080", "localhost:8080", 101),
        ("https://localhost", "localhost", 101),
        ("https://LISTED.org", "localhost", 101),
        ("https://listed.org:443", "localhost", 101),
        ("https://a.wide.org", "localhost", 101),
        ("http://ported.org:8000", "localhost", 101),
        ("https://foreign.org", "localhost", 403),
        ("null", "localhost", 403),
        ("", "localhost", 403),
        ("file://", "localhost", 403),
        ("*", "localhost", 403),
        ("listed.org", "localhost", 403),
        ("http://listed.org", "localhost", 403),
        ("https://listed.org:444", "localhost", 403),
        ("https://listed.org.evil.org", "localhost", 403),
        ("https://evil-listed.org", "localhost", 403),
        ("https://listed.org@evil.org", "localhost", 403),
        ("https://evil.org#listed.org", "localhost", 403),
        ("https://listed.org/", "localhost", 403),
        ("https://listed.org evil.org", "localhost", 403),
        ("https://wide.org", "localhost", 403),
        ("https://evilwide.org", "localhost", 403),
        ("http://localhost:8081", "localhost:8080", 101),
        ("http://127.0.0.1:5173", "localhost:8080", 101),
        ("http://[::1]:5173", "127.0.0.1:8080", 101),
        ("http://localhost:8081", "192.0.2.7:8080", 403),
        ("http://evil.example:8080", "evil.example:8080", 421),
        ("http://listed.org", "listed.org", 101),
        ("http://localhost.evil.org", "localhost", 403),
        ("https://lísted.org", "localhost", 403),
    ] {
        for path in ["/ws", "/raw/news"] {
            let head = Head::upgrade(path).set("Host", host).with("Origin", origin);
            let response = answer(&server, head.bytes()).await?;
            assert_eq!(response.status, status, "{path}: {origin} at {host}");
        }
    }
    let two = Head::upgrade("/ws").with("Origin", "https://listed.org").with("Origin", "https://listed.org");
    assert_eq!(answer(&server, two.bytes()).await?.status, 403, "two origins");
    Ok(())
}

#[tokio::test]
async fn a_refused_origin_is_answered_logged_and_counted_with_the_line_that_allows_it() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    for origin in ["http://app.example:5173", "null", "file://"] {
        let head = |path: &str| Head::upgrade(path).with("Origin", origin);
        let response = answer(&server, head("/ws?token=hunter2").bytes()).await?;
        let line = format!("http.origins = [\"{origin}\"]");
        ensure!(response.status == 403 && response.body.contains(&line), "{response:?}");
        ensure!(!response.body.contains("https://") && response.body.contains("fanfare probe"), "{response:?}");

        let allowing = wire::serve("fanfare", &[("FANFARE__HTTP__ORIGINS", origin)]).await?;
        ensure!(answer(&allowing, head("/ws").bytes()).await?.status == 101, "the line does not help {origin}");
    }
    let line = server.line("requests refused").await?;
    for word in ["WARN", "peer=127.0.0.1:", "path=/ws ", "http.origins = [\"http://app.example:5173\"]", "times=1"] {
        ensure!(line.contains(word), "{word} is not in {line}");
    }
    for origin in [&b"https://\xff\x9b31m.example"[..], &[b'x'; 8_000], b"a\tb", b"\"", b"https://a.example/\"]"] {
        let response = answer(&server, Head::upgrade("/ws").with("Origin", origin).bytes()).await?;
        ensure!(response.status == 403 && response.body.len() < 500, "{response:?}");
        ensure!(response.body.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{response:?}");
    }
    ensure!(server.output().matches("requests refused").count() < 8, "a line for each: {}", server.output());
    ensure!(!server.output().contains("hunter2"), "a query is nothing for a log: {}", server.output());
    counts(&server, "origin", 8).await
}

#[tokio::test]
async fn a_name_that_the_node_does_not_have_is_refused_to_pages_with_the_line_that_adds_it() -> Result<()> {
    const NAME: &str = "evil.example";
    let server = wire::serve("fanfare", &[]).await?;
    let socket = |name: &str| Head::upgrade("/ws").set("Host", name).with("Origin", format!("http://{name}"));
    let page = |path: &str| Head::get(path).set("Host", NAME);
    for (what, head, status) in [
        ("a socket of its page", socket(NAME), 421),
        ("with a port", socket("evil.example:8080"), 421),
        ("a page", page("/"), 421),
        ("the metrics", page("/metrics"), 421),
        ("an absolute target", Head::get("/").line("GET http://evil.example/ HTTP/1.1"), 421),
        ("no page's socket", Head::upgrade("/ws").set("Host", NAME), 101),
        (
            "a page that came over TLS",
            Head::upgrade("/ws").set("Host", NAME).with("Origin", "https://evil.example"),
            101,
        ),
        ("a health check", page("/ready"), 200),
        ("another", page("/live"), 200),
        ("an address", socket("192.0.2.7:8080"), 101),
        ("its page", Head::get("/").set("Host", "192.0.2.7:8080"), 200),
        ("a forged word", page("/").with("X-Forwarded-Host", "localhost").with("X-Forwarded-Proto", "https"), 421),
        ("a neighbour's name", Head::get("/").set("Host", "printer.local"), 421),
    ] {
        let response = answer(&server, head.bytes()).await?;
        ensure!(response.status == status, "{what}: {response:?}");
        ensure!(status != 421 || response.body.contains(".hosts = [\""), "{what}: {response:?}");
    }
    let line = server.line("requests refused").await?;
    ensure!(line.contains("WARN") && line.contains("http.hosts = [\"evil.example\"]"), "{line}");
    counts(&server, "host", 7).await?;

    for named in [("FANFARE__HTTP__HOSTS", NAME), ("FANFARE__HTTP__ORIGINS", "http://evil.example")] {
        let server = wire::serve("fanfare", &[named]).await?;
        for (head, status) in [(socket(NAME), 101), (page("/"), 200)] {
            ensure!(answer(&server, head.bytes()).await?.status == status, "{named:?}");
        }
    }
    // Where neighbours can reach it anyway, names that no stranger can register are as good as addresses.
    let open = wire::serve("fanfare", &[("FANFARE__HTTP__LISTEN", "0.0.0.0:0")]).await?;
    for (name, status) in [("node-1:8080", 101), ("fanfare.default.svc.cluster.local", 101), (NAME, 421)] {
        ensure!(answer_at(open.address.port(), socket(name).bytes()).await?.status == status, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_trusted_proxy_s_word_for_host_and_scheme_counts() -> Result<()> {
    let proxied = [("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1"), ("FANFARE__HTTP__HOSTS", "public.example")];
    let server = wire::serve("fanfare", &proxied).await?;
    let page = |host: &str| Head::get("/").set("Host", host);
    let socket = |origin: &str| Head::upgrade("/ws").set("Host", "upstream").with("Origin", origin);
    for (what, head, status) in [
        ("its own name for the node", page("upstream.example"), 421),
        ("the client's", page("upstream.example").with("X-Forwarded-Host", "public.example"), 200),
        ("the nearest one's", page("upstream.example").with("X-Forwarded-Host", "evil.example, public.example"), 200),
        ("over TLS", page("any.example").with("X-Forwarded-Proto", "HTTPS"), 200),
        (
            "a page of the client's host",
            socket("http://public.example").with("X-Forwarded-Host", "public.example"),
            101,
        ),
        ("a page of another", socket("http://evil.example").with("X-Forwarded-Host", "public.example"), 403),
        ("a stranger's page", socket("http://evil.example").with("X-Forwarded-Host", "evil.example"), 421),
    ] {
        let response = answer(&server, head.bytes()).await?;
        ensure!(response.status == status, "{what}: {response:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_path_and_a_large_head_are_explained_and_logged() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let missing = answer(&server, Head::upgrade("/sockets?token=hunter2").bytes()).await?;
    ensure!(missing.status == 404, "{missing:?}");
    for word in ["no WebSocket at /sockets", "/ws, /raw/{channel}", "fanfare probe"] {
        ensure!(missing.body.contains(word), "{word} is not in {missing:?}");
    }
    let page = answer(&server, Head::get("/nowhere").bytes()).await?;
    ensure!(page.status == 404 && page.body.contains("there are /, /ws, /raw/{channel}, /live"), "{page:?}");
    let large = answers(&server, Head::upgrade("/ws").with("Cookie", vec![b'x'; 17 << 10]).bytes()).await?;
    ensure!(large.len() == 1 && large[0].status == 431, "{large:?}");
    ensure!(large[0].body.contains("16 KiB") && large[0].body.contains("cookies"), "{large:?}");
    let tls = answers(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await?;
    ensure!(tls.len() == 1 && tls[0].status == 400 && tls[0].body.contains("TLS"), "{tls:?}");
    for why in ["no WebSocket at /sockets", "16 KiB"] {
        let line = server.line(why).await?;
        ensure!(line.contains("WARN") && line.contains("requests refused"), "{line}");
    }
    ensure!(!server.output().contains("hunter2"), "{}", server.output());
    counts(&server, "path", 1).await?;
    counts(&server, "head", 1).await
}

/// Waits until so many requests were refused for this reason.
async fn counts(server: &Program, reason: &str, times: u32) -> Result<()> {
    let counted = format!("fanfare_connections_refused_total{{reason=\"{reason}\"}} {times}\n");
    http::until(server.address, "/metrics", |page| page.body.contains(&counted)).await.map(drop)
}

#[tokio::test]
async fn a_bad_channel_name_is_refused_and_every_event_stays_one_line_of_the_log() -> Result<()> {
    let server = wire::serve("fanfare", &[("FANFARE__LOG__LEVEL", "debug")]).await?;
    let banner = server.output();
    let long = "x".repeat(256);
    for (name, status) in [
        ("%0d%0aINFO%20forged", 400),
        ("a%0Ab", 400),
        ("%1b[31mred", 400),
        ("%9b31m", 400),
        ("%c2%9b31m", 400),
        ("%00", 400),
        ("%7f", 400),
        ("{}", 400),
        ("%7B%7D", 400),
        ("*", 400),
        ("news*", 400),
        ("%20", 400),
        ("a%20b", 400),
        ("a%E2%80%A8b", 400),
        ("%ff", 400),
        ("%c3", 400),
        ("%ed%a0%80", 400),
        (&long, 400),
        (&long[1..], 101),
        ("gr%C3%B6%C3%9Fe", 101),
        ("a%2Fb", 101),
        ("a%2fb+c", 101),
        ("50%", 101),
        ("%zz", 101),
    ] {
        let response = answer(&server, Head::upgrade(format!("/raw/{name}")).bytes()).await?;
        assert_eq!(response.status, status, "{name}: {response:?}");
        assert!(!response.body.contains(|c: char| c.is_control() && c != '\n'), "{name}: {response:?}");
    }
    for name in [&b"\xff"[..], "größe".as_bytes(), b"a\x1bb", b"a\"b", b"a\\b", b"a\tb"] {
        let head = Head::upgrade([b"/raw/", name].concat());
        assert!([101, 400].contains(&answer(&server, head.bytes()).await?.status), "{name:?}");
    }
    wire::visit(server.address, "/raw/news").await?;
    server.line("connection closed").await?;
    let output = server.output();
    for line in output.lines().filter(|line| !banner.contains(line)) {
        let time = line.split(' ').next().unwrap_or_default();
        assert!(time.len() == 27 && time.ends_with('Z'), "a line that is no event: {line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(!line.contains("forged"), "{line:?}");
    }
    Ok(())
}

#[tokio::test]
async fn frames_behind_the_handshake_in_the_same_segment_are_not_lost() -> Result<()> {
    let fanfare = wire::serve("fanfare", &[]).await?;
    let echo = wire::serve("echo-server", &[]).await?;
    let ask = r#"{"id":1,"ping":{}}"#;
    for (server, path, text, reply) in [
        (&fanfare, "/raw/news", "early", "early"),
        (&fanfare, "/ws", ask, r#"{"id":1,"ok":{}}"#),
        (&echo, "/ws/echo", "early", "Received: early"),
    ] {
        let mut wire = Wire::connect(server.address).await?;
        let two = [Frame::text(text).bytes(), Frame::text(text).bytes()].concat();
        wire.send([Head::upgrade(path).bytes(), two].concat()).await?;
        assert_eq!(wire.response().await?.status, 101, "{path}");
        assert_eq!((wire.message().await?, wire.message().await?), (reply.into(), reply.into()), "{path}");
        // As large as the head may be and more than one read takes.
        let mut wire = Wire::connect(server.address).await?;
        let many = Frame::text(text).bytes().repeat(2_000);
        wire.send([Head::upgrade(path).bytes(), many, Frame::close(1000, "").bytes()].concat()).await?;
        assert_eq!(wire.response().await?.status, 101, "{path}");
        if path == "/ws" {
            assert_eq!(wire.end().await?.frames.len(), 2_000, "{path}");
        } else {
            assert_eq!(wire.end().await?.code, Some(1000), "{path}");
        }
        // A violation, too, is found there.
        let mut wire = Wire::connect(server.address).await?;
        wire.send([Head::upgrade(path).bytes(), Frame::text("").unmasked().bytes()].concat()).await?;
        assert_eq!(wire.response().await?.status, 101, "{path}");
        assert_eq!(wire.end().await?.code, Some(1002), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_handshake_may_arrive_in_pieces_cut_anywhere() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let bytes = [Head::upgrade("/raw/news").bytes(), Frame::text("after").bytes()].concat();
    for cut in 1..bytes.len() {
        let mut wire = Wire::connect(server.address).await?;
        wire.trickle(&bytes[..cut], cut, Duration::from_millis(1)).await?;
        wire.trickle(&bytes[cut..], bytes.len(), Duration::from_millis(1)).await?;
        let response = wire.response().await.with_context(|| format!("cut at {cut}"))?;
        assert_eq!((response.status, response.header("sec-websocket-accept")), (101, Some(ACCEPT)), "cut at {cut}");
        // Messages of earlier rows may come too; the own message must come.
        assert_eq!(wire.message().await?, "after", "cut at {cut}");
    }
    let mut wire = Wire::connect(server.address).await?;
    wire.trickle(&bytes, 1, Duration::from_millis(1)).await?;
    assert_eq!(wire.response().await?.status, 101, "byte by byte");
    assert_eq!(wire.message().await?, "after");
    Ok(())
}

/// The only response to some bytes.
async fn answer(server: &Program, bytes: impl AsRef<[u8]>) -> Result<Response> {
    let mut wire = Wire::connect(server.address).await?;
    wire.send(bytes).await?;
    wire.response().await
}

/// The only response of this machine's server on a port.
async fn answer_at(port: u16, bytes: impl AsRef<[u8]>) -> Result<Response> {
    let mut wire = Wire::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    wire.send(bytes).await?;
    wire.response().await
}

/// All responses to some bytes, after which the server must close; it may do so before it has taken all of them.
async fn answers(server: &Program, bytes: impl AsRef<[u8]>) -> Result<Vec<Response>> {
    let mut wire = Wire::connect(server.address).await?;
    let _ = wire.send(bytes).await;
    let mut answers = Vec::new();
    while let Some(response) = wire.next_response().await? {
        answers.push(response);
    }
    Ok(answers)
}

fn statuses(answers: &[Response]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}
