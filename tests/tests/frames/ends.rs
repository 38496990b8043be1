//! How connections end: by a close, without one, or because nothing comes any more.

use std::time::Instant;

use anyhow::{Result, ensure};
use tests::PATIENCE;
use tests::wire::{self, CLOSE, Frame, Head, Wire};

use crate::{ENDPOINTS, Row, each_ends, logged, logged_of};

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
