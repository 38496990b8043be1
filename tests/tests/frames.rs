//! Frames that break a rule: each ends its sender's connection only, and the close reason names the rule.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use gateway::config::{ByteSize, Config, Http, Limits, Node as Workers, Timing};
use gateway::node::Node;
use gateway::{App, Message, Socket, SocketError};
use tests::wire::{self, BINARY, CLOSE, CONTINUATION, End, Frame, Head, Length, PING, PONG, Received, TEXT, Wire};
use tests::{PATIENCE, Program};
use tokio::sync::Semaphore;

/// Both programs and all their endpoints; a good client visits the first of each.
const ENDPOINTS: [(&str, &[&str]); 2] = [("fanfare", &["/raw/news", "/ws"]), ("echo-server", &["/ws/echo"])];

/// What a client sends, and what that is.
type Row = (&'static str, Vec<u8>);

/// Sends each row on a connection of its own to every endpoint: it ends with the code, a good client is served
/// after it, and the log has one line on it.
async fn each_ends(rows: &[Row], environment: &[(&str, &str)], reason: &str, code: u16) -> Result<()> {
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, environment).await?;
        for path in paths {
            for (what, bytes) in rows {
                let mut wire = Wire::open(server.address, path).await?;
                // The server may be done with us before we are done.
                let _ = wire.send(bytes).await;
                let end = wire.end().await.with_context(|| format!("{path}: {what}"))?;
                assert_eq!(end.code, Some(code), "{path}: {what}: {end:?}");
                assert!(!end.reason.is_empty() && !end.reset, "{path}: {what}: {end:?}");
                wire::visit(server.address, paths[0]).await.with_context(|| format!("{path}: after {what}"))?;
                logged(&server, wire, reason, Some(code)).await?;
            }
        }
    }
    Ok(())
}

/// Leaves, if that is still to be done; then the log has exactly one line on the connection, with this reason.
async fn logged(server: &Program, wire: Wire, reason: &str, code: Option<u16>) -> Result<()> {
    let peer = wire.local();
    drop(wire);
    logged_of(server, peer, reason, code).await
}

async fn logged_of(server: &Program, peer: SocketAddr, reason: &str, code: Option<u16>) -> Result<()> {
    let peer = format!("peer={peer} ");
    let line = server.line(&peer).await?;
    let code = code.map_or_else(String::new, |code| format!(" code={code} "));
    ensure!(line.contains(&format!("reason=\"{reason}\"")) && line.contains(&code), "{reason}: {line}");
    ensure!(server.output().matches(&peer).count() == 1, "more than one line: {}", server.output());
    Ok(())
}

#[tokio::test]
async fn a_frame_that_breaks_a_rule_ends_its_connection_with_1002() -> Result<()> {
    let text = || Frame::text("x");
    let ping = || Frame::new(PING, "x");
    let rows: Vec<Row> = vec![
        ("an unmasked text", text().unmasked().bytes()),
        ("an unmasked empty text", Frame::text("").unmasked().bytes()),
        ("an unmasked ping", ping().unmasked().bytes()),
        ("an unmasked close", Frame::close(1000, "").unmasked().bytes()),
        ("RSV1", text().bits(0x40).bytes()),
        ("RSV2", text().bits(0x20).bytes()),
        ("RSV3", text().bits(0x10).bytes()),
        ("all RSV on a ping", ping().bits(0x70).bytes()),
        ("RSV1 on a continuation", [text().open().bytes(), Frame::new(CONTINUATION, "x").bits(0x40).bytes()].concat()),
        ("one byte is enough", vec![0xC1]),
        ("opcode 3", Frame::new(3, "x").bytes()),
        ("opcode 4", Frame::new(4, "x").bytes()),
        ("opcode 5", Frame::new(5, "x").bytes()),
        ("opcode 6", Frame::new(6, "x").bytes()),
        ("opcode 7", Frame::new(7, "x").bytes()),
        ("opcode 11", Frame::new(11, "x").bytes()),
        ("opcode 12", Frame::new(12, "x").bytes()),
        ("opcode 13", Frame::new(13, "x").bytes()),
        ("opcode 14", Frame::new(14, "x").bytes()),
        ("opcode 15", Frame::new(15, "x").bytes()),
        ("a ping of 126 bytes", Frame::new(PING, [b'x'; 126]).bytes()),
        ("a pong of 126 bytes", Frame::new(PONG, [b'x'; 126]).bytes()),
        ("a close of 126 bytes", Frame::close(1000, [b'x'; 124]).bytes()),
        ("a ping that announces much", Frame::new(PING, "").announcing(Length::Long(1 << 40)).bytes()),
        ("a fragmented ping", ping().open().bytes()),
        ("a fragmented pong", Frame::new(PONG, "").open().bytes()),
        ("a fragmented close", Frame::close(1000, "").open().bytes()),
        ("a continuation of nothing", Frame::new(CONTINUATION, "x").bytes()),
        ("an open continuation of nothing", Frame::new(CONTINUATION, "x").open().bytes()),
        (
            "a continuation after the end",
            [text().open().bytes(), Frame::new(CONTINUATION, "").bytes(), Frame::new(CONTINUATION, "").bytes()]
                .concat(),
        ),
        ("a text within a text", [text().open().bytes(), text().bytes()].concat()),
        ("a binary within a text", [text().open().bytes(), Frame::new(BINARY, "").bytes()].concat()),
        (
            "a text within a binary, after a ping",
            [Frame::new(BINARY, "").open().bytes(), ping().bytes(), text().bytes()].concat(),
        ),
        ("a length with the top bit", text().announcing(Length::Long(1 << 63)).bytes()),
        ("a length of all bits", text().announcing(Length::Long(u64::MAX)).bytes()),
        ("1 in 16 bits", text().announcing(Length::Medium(1)).bytes()),
        ("125 in 16 bits", Frame::text([b'x'; 125]).announcing(Length::Medium(125)).bytes()),
        ("0 in 64 bits", Frame::text("").announcing(Length::Long(0)).bytes()),
        ("65,535 in 64 bits", Frame::text([b'x'; 0xFFFF]).announcing(Length::Long(0xFFFF)).bytes()),
        ("half a close code", Frame::new(CLOSE, [3]).bytes()),
    ];
    each_ends(&rows, &[], "protocol_error", 1002).await
}

#[tokio::test]
async fn a_close_code_that_may_not_be_on_the_wire_is_answered_with_1002() -> Result<()> {
    let codes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    let rows: Vec<Row> = codes.map(|code| ("a close code", Frame::close(code, "why").bytes())).into();
    each_ends(&rows, &[], "protocol_error", 1002).await
}

#[tokio::test]
async fn a_lawful_close_is_answered_with_its_own_code() -> Result<()> {
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, &[]).await?;
        for path in paths {
            for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
            {
                let mut wire = Wire::open(server.address, path).await?;
                // What comes after a close frame has no meaning, however bad it is.
                let bytes = [Frame::close(code, "größe").bytes(), Frame::text("x").unmasked().bytes()].concat();
                wire.send(bytes).await?;
                let end = wire.end().await?;
                assert_eq!((end.code, end.reset), (Some(code), false), "{path}: {end:?}");
                logged(&server, wire, "peer_closed", Some(code)).await?;
            }
            for (what, before) in [("at rest", vec![]), ("within a message", Frame::text("x").open().bytes())] {
                let mut wire = Wire::open(server.address, path).await?;
                wire.send([before, Frame::new(CLOSE, "").bytes()].concat()).await?;
                let end = wire.end().await?;
                assert_eq!((end.code, &*end.reason), (None, ""), "{path}: {what}");
                logged(&server, wire, "peer_closed", Some(1000)).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_its_connection_with_1007_at_its_first_bad_byte() -> Result<()> {
    let announced = |bytes: &[u8]| Frame::text(bytes).announcing(Length::Medium(200)).bytes();
    let fragments = |first: &[u8], rest: &[u8]| {
        [Frame::text(first).open().bytes(), Frame::new(CONTINUATION, rest).bytes()].concat()
    };
    let rows: Vec<Row> = vec![
        ("a byte that is never used", Frame::text(b"\xff").bytes()),
        ("at the end", Frame::text(b"x\xff").bytes()),
        ("an overlong slash", Frame::text(b"\xc0\xaf").bytes()),
        ("an overlong NUL", Frame::text(b"\xe0\x80\x80").bytes()),
        ("a surrogate", Frame::text(b"\xed\xa0\x80").bytes()),
        ("past the last code point", Frame::text(b"\xf4\x90\x80\x80").bytes()),
        ("a stray continuation byte", Frame::text(b"\x80").bytes()),
        ("cut short", Frame::text(b"\xce").bytes()),
        ("cut short in the last fragment", fragments(b"x", b"\xf0\x9f\x98")),
        ("cut in two and continued wrongly", fragments(b"\xce", b"x")),
        ("in the first fragment, with more to come", Frame::text(b"\xff").open().bytes()),
        ("in the second fragment", fragments(b"x", b"\xff")),
        ("before its frame is complete", announced(b"x\xff")),
        ("a hopeless beginning, before its frame is complete", announced(b"\xf4\x90")),
        ("in a close reason", Frame::close(1000, b"\xff").bytes()),
        ("cut short in a close reason", Frame::close(1000, b"\xce").bytes()),
    ];
    each_ends(&rows, &[], "bad_utf8", 1007).await
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_connection_with_1009_before_it_is_sent() -> Result<()> {
    const LIMIT: usize = 1024;
    let announced = |length| Frame::text("").announcing(length).bytes();
    let part = |opcode, size| Frame::new(opcode, vec![b'x'; size]).open().bytes();
    let rows: Vec<Row> = vec![
        ("one byte more, only announced", announced(Length::Medium(LIMIT as u16 + 1))),
        ("much more, only announced", announced(Length::Long(1 << 32))),
        ("the most that can be announced", announced(Length::Long(u64::MAX >> 1))),
        ("a fragment that is too big", Frame::text("").open().announcing(Length::Medium(LIMIT as u16 + 1)).bytes()),
        (
            "a second fragment, only announced",
            [part(TEXT, LIMIT), Frame::new(CONTINUATION, "").announcing(Length::Short(1)).bytes()].concat(),
        ),
        (
            "an open second fragment, only announced",
            [part(TEXT, LIMIT - 1), Frame::new(CONTINUATION, "").open().announcing(Length::Short(2)).bytes()].concat(),
        ),
        ("many fragments", [part(TEXT, 0), part(CONTINUATION, 100).repeat(11)].concat()),
        ("a binary, too", Frame::new(BINARY, "").announcing(Length::Long(1 << 32)).bytes()),
    ];
    each_ends(&rows, &[("FANFARE__LIMITS__MESSAGE", "1KiB")], "message_too_big", 1009).await
}

#[tokio::test]
async fn a_message_in_too_many_fragments_ends_its_connection_with_1008() -> Result<()> {
    let fragments = |count: usize| {
        [Frame::text("").open().bytes(), Frame::new(CONTINUATION, "").open().bytes().repeat(count - 1)].concat()
    };
    each_ends(&[("16,385 fragments", fragments(16_385))], &[], "too_many_fragments", 1008).await
}

#[tokio::test]
async fn messages_at_their_limits_arrive() -> Result<()> {
    for (program, path, prefix) in [("fanfare", "/raw/news", ""), ("echo-server", "/ws/echo", "Received: ")] {
        let server = wire::serve(program, &[]).await?;
        let mut wire = Wire::open(server.address, path).await?;
        let large = "x".repeat(64 << 10);
        let letters = "κόσμε😀".as_bytes();
        let halves = |opcode, half: &[u8]| Frame::new(opcode, half).open().bytes();
        for (what, bytes, text) in [
            ("empty", Frame::text("").bytes(), ""),
            ("125 bytes", Frame::text(&large[..125]).bytes(), &large[..125]),
            ("126 bytes", Frame::text(&large[..126]).bytes(), &large[..126]),
            ("65,535 bytes", Frame::text(&large[..0xFFFF]).bytes(), &large[..0xFFFF]),
            ("65,536 bytes", Frame::text(&large).bytes(), &large),
            (
                "16,384 fragments",
                [halves(TEXT, b"x"), halves(CONTINUATION, b"").repeat(16_382), Frame::new(CONTINUATION, "y").bytes()]
                    .concat(),
                "xy",
            ),
            (
                "letters cut in two, with pings between",
                [
                    halves(TEXT, &letters[..1]),
                    Frame::new(PING, "").bytes(),
                    halves(CONTINUATION, &letters[1..letters.len() - 2]),
                    Frame::new(PONG, "").bytes(),
                    Frame::new(CONTINUATION, &letters[letters.len() - 2..]).bytes(),
                ]
                .concat(),
                "κόσμε😀",
            ),
        ] {
            wire.send(bytes).await?;
            let message = wire.message().await.with_context(|| format!("{path}: {what}"))?;
            assert!(message.strip_prefix(prefix) == Some(text), "{path}: {what}: {} bytes came", message.len());
        }
        let bytes = Frame::text("größe 😀").bytes();
        for cut in 1..bytes.len() {
            wire.trickle(&bytes[..cut], cut, Duration::from_millis(1)).await?;
            wire.trickle(&bytes[cut..], bytes.len(), Duration::from_millis(1)).await?;
            assert_eq!(wire.message().await?, format!("{prefix}größe 😀"), "{path}: cut at {cut}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_message_that_takes_too_long_ends_its_connection_with_1008() -> Result<()> {
    const PACE: Duration = Duration::from_millis(200);
    let slow = Frame::text([b'x'; 100]).bytes();
    let begun = |payload: &[u8]| Frame::text(payload).announcing(Length::Short(100)).bytes();
    let cases: [(&str, Vec<u8>, Vec<u8>, usize); 7] = [
        ("silent after a byte", vec![0x81], vec![], 1),
        ("silent within a header", begun(b"")[..4].to_vec(), vec![], 1),
        ("silent within a frame", begun(b"x"), vec![], 1),
        ("silent within a ping", Frame::new(PING, "").announcing(Length::Short(9)).bytes(), vec![], 1),
        ("silent within a message", Frame::text("x").open().bytes(), vec![], 1),
        ("trickling a frame", slow[..6].to_vec(), slow[6..].to_vec(), 1),
        ("pings between", Frame::text("x").open().bytes(), Frame::new(PING, "").bytes().repeat(60), 6),
    ];
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, &[("FANFARE__LIMITS__MESSAGE_TIME", "1s")]).await?;
        for path in paths {
            let mut wires = Vec::new();
            for (what, first, rest, size) in &cases {
                let mut wire = Wire::open(server.address, path).await?;
                let server = &server;
                wires.push(async move {
                    let start = Instant::now();
                    wire.send(first).await?;
                    // It ends when the server closes, or when all is sent.
                    let _ = wire.trickle(rest, *size, PACE).await;
                    let end = wire.end().await.with_context(|| format!("{path}: {what}"))?;
                    let took = start.elapsed();
                    assert_eq!(end.code, Some(1008), "{path}: {what}: {end:?}");
                    // The default is thirty seconds.
                    let expected = Duration::from_millis(950)..Duration::from_secs(15);
                    assert!(expected.contains(&took), "{path}: {what}: after {took:?}");
                    logged(server, wire, "message_too_slow", Some(1008)).await
                });
            }
            for done in join_all(wires).await {
                done?;
            }
        }
        // Whole messages, each in time, may go on for ever.
        let mut wire = Wire::open(server.address, paths[0]).await?;
        for _ in 0..3 {
            wire.trickle(Frame::text("in time").bytes(), 7, Duration::from_millis(300)).await?;
            assert!(wire.message().await?.ends_with("in time"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_pong_repeats_its_ping_and_a_flood_of_pings_gets_few_pongs_and_then_1008() -> Result<()> {
    let pings = |count: u32| (0..count).flat_map(|n| Frame::new(PING, n.to_string()).bytes()).collect::<Vec<_>>();
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, &[]).await?;
        for path in paths {
            let mut wire = Wire::open(server.address, path).await?;
            for payload in [&b""[..], b"x", &[0xFF; 125]] {
                wire.send(Frame::new(PING, payload).bytes()).await?;
                assert_eq!(wire.frame().await?, Received { opcode: PONG, payload: payload.into() }, "{path}");
            }
            wire.send(Frame::new(PONG, "not asked for").bytes()).await?;
            // More than are answered one by one; the last is answered all the same (RFC 6455 §5.5.3).
            wire.send([pings(100), Frame::close(1000, "").bytes()].concat()).await?;
            let End { frames, code, .. } = wire.end().await?;
            assert_eq!(code, Some(1000), "{path}");
            assert!(frames.iter().all(|frame| frame.opcode == PONG), "{path}: {frames:?}");
            // Twenty in each of the at most two seconds that it took, with those before, and one at the end of each read.
            assert!((17..=45).contains(&frames.len()), "{path}: {} pongs", frames.len());
            assert_eq!(frames.first().map(Received::text).as_deref(), Some("0"), "{path}");
        }
    }
    let rows: Vec<Row> = vec![
        ("empty pings", Frame::new(PING, "").bytes().repeat(500)),
        ("pings with payload", Frame::new(PING, [b'x'; 125]).bytes().repeat(500)),
        ("pings within a message", [Frame::text("").open().bytes(), pings(500)].concat()),
    ];
    each_ends(&rows, &[], "ping_flood", 1008).await
}

#[tokio::test]
async fn the_last_of_many_pings_is_answered() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let mut wire = Wire::open(server.address, "/ws").await?;
    let pings: Vec<u8> = (1..=100).flat_map(|n| Frame::new(PING, n.to_string()).bytes()).collect();
    wire.send(pings).await?;
    while wire.frame().await?.text() != "100" {}
    Ok(())
}

#[tokio::test]
async fn binary_is_1003_where_only_text_has_a_meaning() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    for path in ["/raw/news", "/ws"] {
        for bytes in [
            Frame::new(BINARY, "x").bytes(),
            Frame::new(BINARY, "").bytes(),
            [Frame::new(BINARY, "x").open().bytes(), Frame::new(CONTINUATION, "y").bytes()].concat(),
        ] {
            let mut wire = Wire::open(server.address, path).await?;
            wire.send(bytes).await?;
            assert_eq!(wire.end().await?.code, Some(1003), "{path}");
            logged(&server, wire, "unsupported_data", Some(1003)).await?;
        }
    }
    let echo = wire::serve("echo-server", &[]).await?;
    let mut wire = Wire::open(echo.address, "/ws/echo").await?;
    wire.send(Frame::new(BINARY, [0xFF; 3]).bytes()).await?;
    assert_eq!(wire.message().await?, "Received: [3 bytes]");
    Ok(())
}

#[tokio::test]
async fn clients_that_leave_without_a_word_are_logged_and_what_they_said_counts() -> Result<()> {
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, &[]).await?;
        for path in paths {
            for before in [vec![], Frame::text("x").open().bytes(), Frame::text("x").bytes()[..3].to_vec()] {
                let mut half = Wire::open(server.address, path).await?;
                half.send(&before).await?;
                half.shut().await?;
                let end = half.end().await?;
                assert_eq!(end.code, None, "{path}: {end:?}");
                logged(&server, half, "peer_vanished", None).await?;

                let mut reset = Wire::open(server.address, path).await?;
                reset.send(&before).await?;
                let peer = reset.local();
                reset.reset()?;
                logged_of(&server, peer, "peer_vanished", None).await?;
            }
        }
        let mut other = Wire::open(server.address, paths[0]).await?;
        let mut half = Wire::open(server.address, paths[0]).await?;
        half.send(Frame::text("last words").bytes()).await?;
        half.shut().await?;
        assert!(other.message().await?.ends_with("last words"), "{program}");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_keeps_sending_after_the_end_is_cut_off() -> Result<()> {
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, &[]).await?;
        for path in paths {
            for last in [Frame::text("").unmasked().bytes(), Frame::close(1000, "").bytes()] {
                let mut wire = Wire::open(server.address, path).await?;
                wire.send(last).await?;
                let (start, noise) = (Instant::now(), vec![0; 256 << 10]);
                while wire.send(&noise).await.is_ok() {
                    ensure!(start.elapsed() < PATIENCE, "{path}: it may talk for ever");
                }
            }
        }
        wire::visit(server.address, paths[0]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_own_socket_with_1011_and_no_other() -> Result<()> {
    let mut app = App::new();
    app.ws("/echo", async |mut socket: Socket| {
        while let Some(message) = socket.recv().await {
            assert!(message != Message::from("panic"), "as the client wishes");
            socket.send(message)?;
        }
        Ok(())
    });
    app.ws("/at-once", async |socket: Socket| panic!("before {} says anything", socket.peer()));
    app.ws("/error", async |_: Socket| Err("it went wrong".into()));
    let node = Node::start(app, quiet(), "panics".into())?;
    wire::ready(node.address).await?;
    let mut other = Wire::open(node.address, "/echo").await?;
    for path in ["/echo", "/at-once", "/error", "/echo"] {
        let mut wire = Wire::open(node.address, path).await?;
        let _ = wire.send(Frame::text("panic").bytes()).await;
        let end = wire.end().await?;
        assert_eq!((end.code, end.reset), (Some(1011), false), "{path}: {end:?}");
        other.send(Frame::text(path).bytes()).await?;
        assert_eq!(other.message().await?, path, "the other socket is served");
    }
    let closed = wire::get(node.address, "/metrics").await?.body;
    assert!(closed.contains("fanfare_connections_closed_total{reason=\"internal\"} 4\n"), "{closed}");
    drop(other);
    node.stop(Duration::ZERO, std::future::pending()).await;
    Ok(())
}

#[tokio::test]
async fn a_client_that_must_wait_for_the_app_is_not_blamed_for_its_silence() -> Result<()> {
    const MESSAGES: usize = 1_000;
    let gate = Arc::new(Semaphore::new(0));
    let mut app = App::new();
    let shut = Arc::clone(&gate);
    app.ws("/slow", async move |mut socket: Socket| {
        let _open = shut.acquire().await?;
        while let Some(message) = socket.recv().await {
            socket.send(message)?;
        }
        Ok(())
    });
    let second = Duration::from_secs(1);
    let timing = Timing { ping: second, pong: second / 2, ..Timing::default() };
    let limits = Limits { message_time: second, ..Limits::default() };
    let node = Node::start(app, Config { timing, limits, ..quiet() }, "slow".into())?;
    wire::ready(node.address).await?;
    let mut wire = Wire::open(node.address, "/slow").await?;
    let messages: Vec<u8> = (0..MESSAGES).flat_map(|n| Frame::text(n.to_string()).bytes()).collect();
    // All but the end of the last: it is under way for as long as the app is busy.
    let (first, last) = messages.split_at(messages.len() - 1);
    wire.send(first).await?;
    for _ in 0..3 {
        while wire.frame().await?.opcode != PING {}
    }
    gate.add_permits(1);
    wire.send(last).await?;
    for n in 0..MESSAGES {
        assert_eq!(wire.message().await?, n.to_string());
    }
    drop(wire);
    node.stop(Duration::ZERO, std::future::pending()).await;
    Ok(())
}

#[tokio::test]
async fn an_app_that_sends_more_than_an_outbox_waits_for_its_reader() -> Result<()> {
    const MESSAGES: usize = 2_000;
    let refused = Arc::new(Semaphore::new(0));
    let mut app = App::new();
    let full = Arc::clone(&refused);
    app.ws("/much", async move |socket: Socket| {
        let filler = "x".repeat(4 << 10);
        for number in 0..MESSAGES {
            while let Err(error) = socket.send(format!("{number} {filler}")) {
                if error != SocketError::Full {
                    return Err(error.into());
                }
                full.add_permits(1);
                socket.ready().await;
            }
        }
        Ok(())
    });
    let limits = Limits { outbox: ByteSize::kib(128), ..Limits::default() };
    let node = Node::start(app, Config { limits, ..quiet() }, "much".into())?;
    wire::ready(node.address).await?;
    let mut wire = Wire::open(node.address, "/much").await?;
    // The app gets the end before its reader begins.
    let _permit = refused.acquire().await?;
    for number in 0..MESSAGES {
        let message = wire.message().await?;
        assert_eq!(message.split(' ').next(), Some(number.to_string().as_str()));
    }
    assert_eq!(wire.end().await?.code, Some(1000));
    node.stop(Duration::ZERO, std::future::pending()).await;
    Ok(())
}

/// An own node's configuration.
fn quiet() -> Config {
    Config {
        node: Workers { workers: 1, ..Workers::default() },
        http: Http { listen: ([127, 0, 0, 1], 0).into(), ..Http::default() },
        ..Config::default()
    }
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_is_dropped() -> Result<()> {
    let times = [("FANFARE__TIMING__PING", "1s"), ("FANFARE__TIMING__PONG", "500ms")];
    for (program, paths) in ENDPOINTS {
        let server = wire::serve(program, &times).await?;
        for path in paths {
            let (mut lively, mut silent) =
                (Wire::open(server.address, path).await?, Wire::open(server.address, path).await?);
            let start = Instant::now();
            let gone = Cell::new(false);
            let answering = async {
                let mut pings = 0;
                while pings < 3 || !gone.get() {
                    // By the server's own clock: it sends one a second.
                    ensure!(pings < 6, "{path}: the silent one is still there");
                    let received = lively.frame().await?;
                    if received.opcode == PING {
                        lively.send(Frame::new(PONG, received.payload).bytes()).await?;
                        pings += 1;
                    } else {
                        assert_eq!(received.text(), r#"{"ping":{"at":{}}}"#, "{path}");
                    }
                }
                anyhow::Ok(())
            };
            let dropped = async {
                let end = silent.end().await?;
                assert_eq!(end.code, None, "{path}: no client would read it");
                assert!(end.frames.iter().any(|frame| frame.opcode == PING), "{path}: {end:?}");
                gone.set(true);
                let took = start.elapsed();
                assert!(took > Duration::from_millis(950), "{path}: after {took:?}");
                logged(&server, silent, "ping_timeout", None).await
            };
            tokio::try_join!(answering, dropped)?;
            lively.send(Frame::close(1000, "").bytes()).await?;
            assert_eq!(lively.end().await?.code, Some(1000), "{path}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_unused_connection_is_closed_and_a_subscribed_one_stays() -> Result<()> {
    let server = wire::serve("fanfare", &[("FANFARE__TIMING__IDLE", "1s")]).await?;
    let open = async || Wire::open(server.address, "/ws").await;
    let (unused, mut left) = (open().await?, open().await?);
    let (mut subscribed, mut raw) = (open().await?, Wire::open(server.address, "/raw/news").await?);
    subscribed.ask(r#"{"subscribe":{"channel":"news"}}"#).await?;
    left.ask(r#"{"subscribe":{"channel":"news"}}"#).await?;
    left.ask(r#"{"unsubscribe":{"channel":"news"}}"#).await?;
    for mut wire in [unused, left] {
        let end = wire.end().await?;
        assert_eq!((end.code, &*end.reason), (Some(1000), "idle for too long"));
        logged(&server, wire, "idle", Some(1000)).await?;
    }
    // Clients that only listen have been idle for twice the limit.
    raw.send(Frame::text("still here").bytes()).await?;
    assert_eq!(raw.message().await?, "still here");
    assert!(subscribed.message().await?.contains("still here"));
    Ok(())
}

#[tokio::test]
async fn a_connection_that_never_shook_hands_gets_no_frames() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let mut wire = Wire::connect(server.address).await?;
    wire.send(Head::get("/live").bytes()).await?;
    assert_eq!(wire.response().await?.status, 200);
    wire.send(Frame::text("x").bytes()).await?;
    let answer = wire.next_response().await?;
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{answer:?}");
    Ok(())
}
