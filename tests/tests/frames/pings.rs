//! Pings and pongs, of the client and of the node.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::wire::{self, End, Frame, PING, PONG, Received, Wire};

use crate::{ENDPOINTS, Row, each_ends, logged};

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
