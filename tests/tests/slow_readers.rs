//! Clients that read slowly, but read: they are alive, and what waits for them reaches them.
//!
//! Each reads at a pace of its own, however fast the machine is; a slower one only makes it slower.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::Program;
use tests::wire::{self, CLOSE, End, Frame, PING, PONG, Wire};
use tokio::time::{MissedTickBehavior, interval};

/// The time between two reads of a slow client.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of such a read: 80 KB a second.
const BITE: usize = 4 << 10;

/// Room in the kernel of a client.
const ROOM: u32 = 16 << 10;

/// A client with little room in its kernel that reads a bite at a time.
struct Slow(Wire);

impl Slow {
    async fn open(server: &Program, path: &str) -> Result<Self> {
        Ok(Self(Wire::with_room(server.address, ROOM).await?.upgraded(path).await?))
    }

    /// Reads on until it has so many messages, or to the end, and answers each ping as soon as it sees it.
    async fn read(&mut self, messages: usize) -> Result<End> {
        let mut pace = interval(PAUSE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut end = End { frames: Vec::new(), code: None, reason: String::new(), reset: false };
        loop {
            while let Some(received) = self.0.received()? {
                match received.opcode {
                    PING => self.0.send(Frame::new(PONG, received.payload).bytes()).await?,
                    CLOSE => end.code = received.payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
                    _ if received.payload.starts_with(b"{\"ping\"") => {}
                    _ => end.frames.push(received),
                }
            }
            if end.frames.len() >= messages {
                return Ok(end);
            }
            pace.tick().await;
            match self.0.bite(BITE).await {
                Ok(true) => {}
                Ok(false) => return Ok(end),
                Err(_) => return Ok(End { reset: true, ..end }),
            }
        }
    }
}

/// Publishes a text, and waits until it is acknowledged.
async fn publish(publisher: &mut Wire, channel: &str, text: &str) -> Result<()> {
    publisher.send(Frame::text(json!({"publish": {"channel": channel, "data": text}}).to_string()).bytes()).await?;
    let mut reply = publisher.message().await?;
    while reply.starts_with("{\"ping\"") {
        reply = publisher.message().await?;
    }
    ensure!(reply.starts_with("{\"ok\""), "{reply}");
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_that_answers_its_pings_gets_everything() -> Result<()> {
    const MESSAGES: usize = 8;
    // What the kernels hold alone takes this client longer than it has for a pong.
    let server = wire::serve("fanfare", &[("FANFARE__TIMING__PING", "2s"), ("FANFARE__TIMING__PONG", "1s")]).await?;
    let raw = Slow::open(&server, "/raw/news").await?;
    let mut native = Slow::open(&server, "/ws").await?;
    native.0.ask(r#"{"subscribe":{"channel":"news"}}"#).await?;
    let mut publisher = Wire::open(server.address, "/ws").await?;
    for _ in 0..MESSAGES {
        publish(&mut publisher, "news", &"x".repeat(60_000)).await?;
    }
    let everything = async |mut slow: Slow| {
        let end = slow.read(MESSAGES).await?;
        ensure!(end.frames.len() == MESSAGES, "{} messages, {:?}, reset: {}", end.frames.len(), end.code, end.reset);
        ensure!(end.frames.iter().all(|frame| frame.payload.len() >= 60_000));
        // It is still there when all is read.
        slow.0.send(Frame::new(PING, "still here").bytes()).await?;
        while slow.0.frame().await?.opcode != PONG {}
        anyhow::Ok(())
    };
    tokio::try_join!(everything(raw), everything(native))?;
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_that_closes_gets_what_was_sent_before_and_the_close() -> Result<()> {
    const MESSAGES: usize = 8;
    let server = wire::serve("fanfare", &[("FANFARE__NODE__WORKERS", "1")]).await?;
    let mut slow = Slow::open(&server, "/raw/news").await?;
    let mut other = Wire::open(server.address, "/raw/news").await?;
    let mut publisher = Wire::open(server.address, "/ws").await?;
    for _ in 0..MESSAGES {
        publish(&mut publisher, "news", &"x".repeat(60_000)).await?;
        // What one has been sent, all have.
        other.message().await?;
    }
    slow.0.send(Frame::close(1000, "").bytes()).await?;
    let end = slow.read(usize::MAX).await?;
    let came = end.frames.len();
    ensure!((came, end.code, end.reset) == (MESSAGES, Some(1000), false), "{came}, {:?} {}", end.code, end.reset);
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_larger_than_an_outbox_reaches_steady_readers() -> Result<()> {
    // Valid, and six times as large in JSON: two control characters are twelve.
    let limits = [
        ("FANFARE__NODE__WORKERS", "1"),
        ("FANFARE__LIMITS__MESSAGE", "64KiB"),
        ("FANFARE__LIMITS__OUTBOX", "128KiB"),
        ("FANFARE__LIMITS__OUTBOX_TOTAL", "128KiB"),
    ];
    let server = wire::serve("fanfare", &limits).await?;
    let mut readers = try_join_all((0..3).map(|_| Slow::open(&server, "/ws"))).await?;
    for slow in &mut readers {
        slow.0.ask(r#"{"subscribe":{"channel":"news"}}"#).await?;
    }
    let mut publisher = Wire::open(server.address, "/raw/news").await?;
    // Each in turn is behind the large one, and in front of the next.
    for _ in 0..2 {
        for text in ["\u{1}".repeat(64 << 10), "small".to_owned()] {
            publisher.send(Frame::text(&text).bytes()).await?;
            ensure!(publisher.message().await? == text);
        }
        for end in try_join_all(readers.iter_mut().map(|slow| slow.read(2))).await? {
            let sizes: Vec<_> = end.frames.iter().map(|frame| frame.payload.len()).collect();
            ensure!(
                sizes.first().is_some_and(|first| *first > 6 * (64 << 10)),
                "{sizes:?} {:?} {}",
                end.code,
                end.reset
            );
            ensure!(end.frames.get(1).is_some_and(|frame| frame.text().contains("small")), "{sizes:?} {:?}", end.code);
        }
    }
    Ok(())
}

#[tokio::test]
async fn when_room_is_short_those_that_stall_are_closed_and_those_that_read_are_not() -> Result<()> {
    const STALLED: usize = 20;
    const STEADY: usize = 8;
    const ROUNDS: usize = 70;
    /// Messages that a steady reader is behind, which is more than the kernels hold.
    const BEHIND: usize = 8;
    let budget = [
        ("FANFARE__NODE__WORKERS", "1"),
        ("FANFARE__LIMITS__OUTBOX", "1MiB"),
        ("FANFARE__LIMITS__OUTBOX_TOTAL", "3MiB"),
    ];
    let server = wire::serve("fanfare", &budget).await?;
    // Each on a channel of its own: nothing that waits for one waits for another.
    let open = async |name: String| {
        let wire = Wire::with_room(server.address, ROOM).await?.upgraded(&format!("/raw/{name}")).await?;
        anyhow::Ok((name, wire))
    };
    let mut stalled = try_join_all((0..STALLED).map(|n| open(format!("stalled-{n}")))).await?;
    let mut steady = try_join_all((0..STEADY).map(|n| open(format!("steady-{n}")))).await?;
    let mut publisher = Wire::open(server.address, "/ws").await?;
    let text = "x".repeat(20 << 10);
    for _ in 0..BEHIND {
        for (name, _) in &steady {
            publish(&mut publisher, name, &text).await?;
        }
    }
    // When there is no room any more, the stalled have long been full, and the steady have taken something since.
    for round in 0..ROUNDS {
        for (name, _) in steady.iter().chain(&stalled) {
            publish(&mut publisher, name, &text).await?;
        }
        for (name, wire) in &mut steady {
            let message = wire.message().await.with_context(|| format!("{name}, which reads, in round {round}"))?;
            ensure!(message == text);
        }
    }
    for (name, wire) in &mut stalled {
        let line = server.line(&format!("peer={} ", wire.local())).await?;
        ensure!(line.contains("reason=\"too_slow\" code=4410"), "{name}: {line}");
    }
    let page = wire::get(server.address, "/metrics").await?.body;
    let count = page.lines().find_map(|line| line.strip_prefix("fanfare_connections_closed_for_room_total "));
    let count: usize = count.context("it is counted")?.parse()?;
    ensure!((1..=STALLED).contains(&count), "{count} were closed for room");
    Ok(())
}
