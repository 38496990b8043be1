//! The head of a request: its size, its time, its pieces, and what is not HTTP at all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::wire::{self, ACCEPT, Frame, Head, Wire};

use crate::{answer, answers, statuses};

/// The pause of a client that dribbles.
const DRIBBLE: Duration = Duration::from_millis(200);

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
