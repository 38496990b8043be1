//! What a message may hold, how large it may be, and how long it may take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::join_all;
use tests::wire::{self, BINARY, CLOSE, CONTINUATION, Frame, Length, PING, PONG, TEXT, Wire};

use crate::{ENDPOINTS, Row, each_ends, logged};

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
