//! Channels whose rule is `slow = latest`: a client that reads slowly skips to the newest message, and knows how many it missed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::Program;
use tests::wire::{self, Frame, Wire};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Messages a second, and how long they come.
const RATE: u64 = 1_000;
const SECONDS: u64 = 5;
/// The size of each.
const SIZE: usize = 2_000;

const RULES: &str = r#"[{ match = "price:*", subscribe = "anyone", publish = "anyone", slow = "latest", last = 1 }, { match = "*", subscribe = "anyone", publish = "anyone" }]"#;

async fn node() -> Result<Program> {
    wire::serve("fanfare", &[("FANFARE__CHANNELS", RULES), ("FANFARE__NODE__WORKERS", "1")]).await
}

async fn publish(publisher: &mut Wire, channel: &str, number: u64) -> Result<()> {
    let data = format!("{number} {}", "x".repeat(SIZE));
    let command = json!({ "publish": { "channel": channel, "data": data } }).to_string();
    Ok(publisher.exchange(Frame::text(command).bytes()).await?)
}

#[tokio::test]
async fn a_slow_reader_ends_with_the_newest_value_and_knows_how_many_it_missed() -> Result<()> {
    let node = node().await?;
    let mut slow = Wire::narrow(node.address).await?.upgraded("/ws").await?;
    slow.ask(r#"{"id":1,"subscribe":{"channel":"price:a"}}"#).await?;
    let mut other = Wire::open(node.address, "/ws").await?;
    other.ask(r#"{"id":1,"subscribe":{"channel":"price:a"}}"#).await?;
    let (mut publisher, process) = (Wire::open(node.address, "/ws").await?, node.process()?);
    let before = process.memory()?;
    let reading = tokio::spawn(async move {
        let (mut received, mut last) = (0, 0);
        while last + 1 < RATE * SECONDS {
            let message: Value = serde_json::from_str(&other.message().await?)?;
            last = number(&message)?;
            received += 1;
        }
        anyhow::Ok(received)
    });
    let mut pace = interval(Duration::from_micros(1_000_000 / RATE));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..RATE * SECONDS {
        pace.tick().await;
        publish(&mut publisher, "price:a", number).await?;
    }
    assert_eq!(reading.await??, RATE * SECONDS, "a client that reads gets every value");
    let grown = process.memory()?.saturating_sub(before);
    let (mut received, mut skipped, mut last) = (0, 0, None);
    while last != Some(RATE * SECONDS - 1) {
        let message: Value = serde_json::from_str(&slow.message().await?)?;
        match message["skipped"].as_u64() {
            Some(count) => skipped += count,
            None => {
                let number = number(&message)?;
                assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
                (received, last) = (received + 1, Some(number));
            }
        }
    }
    assert_eq!(received + skipped, RATE * SECONDS, "{received} received, {skipped} skipped");
    assert!(skipped > RATE, "{skipped}");
    // The window holds the messages themselves, and the slow client one outbox of 1 MiB at most.
    let window = RATE * SECONDS * (2 * SIZE as u64 + 600);
    assert!(grown < window + (4 << 20), "{grown} bytes");
    let metrics = wire::get(node.address, "/metrics").await?.body;
    assert!(metrics.contains(&format!("fanfare_messages_skipped_total {skipped}\n")), "{metrics}");
    Ok(())
}

/// A client that resumes from the position of a ping must not miss the value that still waits for it.
#[tokio::test]
async fn a_ping_names_no_position_behind_a_value_that_still_waits() -> Result<()> {
    const PING: Duration = Duration::from_secs(4);
    let timing = [("FANFARE__TIMING__PING", "4s"), ("FANFARE__TIMING__PONG", "3900ms")];
    let node = wire::serve("fanfare", &[("FANFARE__CHANNELS", RULES), timing[0], timing[1]]).await?;
    let mut slow = Wire::narrow(node.address).await?.upgraded("/ws").await?;
    slow.ask(r#"{"id":1,"subscribe":{"channel":"price:a"}}"#).await?;
    let connected = Instant::now();
    let mut publisher = Wire::open(node.address, "/ws").await?;
    for number in 0..RATE {
        publish(&mut publisher, "price:a", number).await?;
    }
    // The first ping comes within the time of one, behind what the socket does not take.
    sleep((PING + Duration::from_millis(200)).saturating_sub(connected.elapsed())).await;
    let (mut pinged, mut last) = (Value::Null, 0);
    while last < RATE - 1 || pinged.is_null() {
        let message: Value = serde_json::from_str(&slow.message().await?)?;
        if message["ping"].is_object() {
            pinged = message["ping"]["at"].clone();
        } else if message["skipped"].is_null() {
            last = number(&message)?;
            let (at, pinged) = (message["at"].as_str(), pinged["price:a"].as_str());
            // Positions sort as text within a channel.
            assert!(at > pinged, "{at:?} came after a ping that named {pinged:?}");
        }
    }
    Ok(())
}

/// The same for the position in the reply to a second `subscribe`.
#[tokio::test]
async fn a_repeated_subscribe_names_no_position_behind_a_value_that_still_waits() -> Result<()> {
    let node = node().await?;
    let mut slow = Wire::narrow(node.address).await?.upgraded("/ws").await?;
    slow.ask(r#"{"id":1,"subscribe":{"channel":"price:a"}}"#).await?;
    let mut other = Wire::open(node.address, "/ws").await?;
    other.ask(r#"{"id":1,"subscribe":{"channel":"price:a"}}"#).await?;
    let mut publisher = Wire::open(node.address, "/ws").await?;
    for number in 0..RATE {
        publish(&mut publisher, "price:a", number).await?;
        other.message().await?;
    }
    slow.send(Frame::text(r#"{"id":2,"subscribe":{"channel":"price:a"}}"#).bytes()).await?;
    // The only worker has read the command before it answers these.
    for _ in 0..2 {
        other.ask(r#"{"ping":{}}"#).await?;
    }
    let (mut answered, mut last) = (Value::Null, 0);
    while last < RATE - 1 || answered.is_null() {
        let message: Value = serde_json::from_str(&slow.message().await?)?;
        if message["id"] == 2 {
            answered = message["ok"]["at"].clone();
        } else if message["skipped"].is_null() {
            last = number(&message)?;
            let (at, answered) = (message["at"].as_str(), answered.as_str());
            assert!(at > answered, "{at:?} came after a reply that named {answered:?}");
        }
    }
    Ok(())
}

/// The rule is about clients that read slowly. One that was away has its position, and gets what it asks for.
#[tokio::test]
async fn a_client_that_was_away_gets_every_value_after_its_position_or_only_the_last_as_it_asks() -> Result<()> {
    // More than an outbox.
    const MISSED: u64 = 1_500;
    let node = node().await?;
    let mut publisher = Wire::open(node.address, "/ws").await?;
    let mut client = Wire::open(node.address, "/ws").await?;
    client.ask(r#"{"id":1,"subscribe":{"channel":"price:a"}}"#).await?;
    publish(&mut publisher, "price:a", 0).await?;
    let first: Value = serde_json::from_str(&client.message().await?)?;
    drop(client);
    let mut there = Wire::open(node.address, "/ws").await?;
    there.ask(r#"{"id":1,"subscribe":{"channel":"price:a"}}"#).await?;
    for number in 1..=MISSED {
        publish(&mut publisher, "price:a", number).await?;
        there.message().await?;
    }
    let mut every = Wire::open(node.address, "/ws").await?;
    let since = json!({ "id": 1, "subscribe": { "channel": "price:a", "since": first["at"] } });
    let reply = every.ask(&since.to_string()).await?;
    assert_eq!(reply["ok"]["recovered"], true, "{reply}");
    let mut newest = Wire::open(node.address, "/ws").await?;
    let reply = newest.ask(r#"{"id":1,"subscribe":{"channel":"price:a","last":1}}"#).await?;
    assert_eq!(reply["ok"]["last"], 1, "{reply}");
    for expected in 1..=MISSED {
        assert_eq!(number(&serde_json::from_str(&every.message().await?)?)?, expected);
    }
    publish(&mut publisher, "price:a", MISSED + 1).await?;
    assert_eq!(number(&serde_json::from_str(&every.message().await?)?)?, MISSED + 1);
    for expected in [MISSED, MISSED + 1] {
        assert_eq!(number(&serde_json::from_str(&newest.message().await?)?)?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn on_other_channels_a_slow_reader_is_closed_and_loses_nothing_silently() -> Result<()> {
    let node = node().await?;
    let mut slow = Wire::narrow(node.address).await?.upgraded("/ws").await?;
    slow.ask(r#"{"id":1,"subscribe":{"channel":"news"}}"#).await?;
    let mut publisher = Wire::open(node.address, "/ws").await?;
    for number in 0..2_000 {
        publish(&mut publisher, "news", number).await?;
    }
    let end = slow.end().await?;
    assert!(end.code == Some(4410) || end.reset, "{end:?}");
    Ok(())
}

/// The number of a message.
fn number(message: &Value) -> Result<u64> {
    let data = message["data"].as_str().with_context(|| format!("no message: {message}"))?;
    Ok(data.split(' ').next().unwrap_or_default().parse()?)
}
