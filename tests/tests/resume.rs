//! Clients that were away: what they missed, exactly, or the plain word that it cannot be had.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use real_brokers::Direction;
use serde_json::{Value, json};
use tests::history::{earlier_text, parts};
use tests::{Broker, Client, Cluster, Frame, Program, http};
use tokio::time::interval;

/// Subscribes from a position; gives the reply's `ok`.
async fn resume(client: &Client, channel: &str, since: &str) -> Result<Value> {
    let reply = client.ask(json!({ "subscribe": { "channel": channel, "since": since } })).await?;
    reply.get("ok").cloned().with_context(|| format!("refused: {reply}"))
}

fn messages(client: &Client) -> Vec<String> {
    let message = |frame| if let Frame::Message { data, .. } = frame { Some(data) } else { None };
    client.frames().into_iter().filter_map(message).collect()
}

async fn publish(client: &Client, channel: &str, numbers: std::ops::Range<u32>) -> Result<()> {
    for number in numbers {
        client.publish(channel, &number.to_string()).await?;
    }
    Ok(())
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn at(reply: &Value) -> Result<String> {
    Ok(reply["at"].as_str().context("no position")?.to_owned())
}

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_client_that_comes_back_on_another_node_gets_exactly_what_it_missed,
    a_node_that_was_killed_and_started_again_gives_a_client_exactly_what_it_missed,
    a_thousand_clients_that_come_back_at_once_all_recover_and_cost_the_broker_nothing,
    a_key_makes_a_repeated_publish_harmless_on_every_node,
    a_node_that_is_behind_a_client_never_takes_it_back,
    clients_are_notified_once_that_the_broker_is_away_and_once_that_it_is_back,
} }

// The node is the only one, and its log dies with it.
tests::on_brokers! { memory Memory: { a_client_that_comes_back_on_another_node_gets_exactly_what_it_missed } }

/// How many messages a client misses.
const MISSED: u32 = 1000;

/// A client that went away, and what it needs to come back.
struct Away {
    speaker: Client,
    /// Its position when it subscribed, before any message.
    first: String,
    /// The last that it saw.
    since: String,
}

impl Away {
    /// Hears the first ten messages on node 1, and misses the next 1,000, each of which comes `pace` after the other.
    async fn from(cluster: &Cluster, pace: Duration) -> Result<Self> {
        let speaker = Client::native(&url(cluster, 1)).await?;
        let client = Client::native(&url(cluster, 1)).await?;
        let first = at(&client.subscribe("news").await?)?;
        publish(&speaker, "news", 0..10).await?;
        client.messages(10).await?;
        let Some(Frame::Message { at: Some(since), .. }) = client.frames().pop() else { panic!("no position") };
        client.close().await?;
        let mut pace = (!pace.is_zero()).then(|| interval(pace));
        for number in 10..10 + MISSED {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            publish(&speaker, "news", number..number + 1).await?;
            if number % 20 == 0 {
                publish(&speaker, "other", 0..5).await?;
            }
        }
        Ok(Self { speaker, first, since })
    }

    /// Comes back on a node, and receives what it missed and then live messages, each once and in order.
    async fn comes_back(&self, cluster: &Cluster, node: usize) -> Result<()> {
        let back = Client::native(&url(cluster, node)).await?;
        let ok = resume(&back, "news", &self.since).await?;
        assert_eq!((&ok["recovered"], at(&ok)?), (&json!(true), self.since.clone()));
        publish(&self.speaker, "news", 10 + MISSED..20 + MISSED).await?;
        back.messages(10 + MISSED as usize).await?;
        assert_eq!(messages(&back), texts(10..20 + MISSED));
        Ok(())
    }
}

async fn a_client_that_comes_back_on_another_node_gets_exactly_what_it_missed(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(broker.nodes()).shared(broker).start().await?;
    let away = Away::from(&cluster, Duration::ZERO).await?;
    away.comes_back(&cluster, broker.nodes()).await
}

async fn a_node_that_was_killed_and_started_again_gives_a_client_exactly_what_it_missed(broker: Broker) -> Result<()> {
    let mut cluster = Cluster::of(2).shared(broker).start().await?;
    let away = Away::from(&cluster, Duration::ZERO).await?;
    cluster.kill_node("node-2").await?;
    cluster.start_node("node-2").await?;
    away.comes_back(&cluster, 2).await?;
    let from_start = Client::native(&url(&cluster, 2)).await?;
    assert_eq!(resume(&from_start, "news", &away.first).await?["recovered"], json!(true));
    from_start.messages(20 + MISSED as usize).await?;
    assert_eq!(messages(&from_start), texts(0..20 + MISSED));
    Ok(())
}

#[tokio::test]
async fn a_client_away_for_30_s_gets_exactly_what_it_missed() -> Result<()> {
    let cluster = Cluster::of(2).shared(Broker::Redis).start().await?;
    let away = Away::from(&cluster, Duration::from_secs(30) / MISSED).await?;
    away.comes_back(&cluster, 2).await
}

async fn a_thousand_clients_that_come_back_at_once_all_recover_and_cost_the_broker_nothing(
    broker: Broker,
) -> Result<()> {
    const CLIENTS: usize = 1000;
    const FILLERS: usize = 40;
    // Enough for what it missed, not for the messages after that.
    let cluster = Cluster::of(2).broker(broker).set("FANFARE__WINDOW__BYTES", "2MiB").start().await?;
    let away = Away::from(&cluster, Duration::ZERO).await?;
    let url = &url(&cluster, 2);
    // Warm: the node has read all of it.
    let witness = Client::native(url).await?;
    assert_eq!(resume(&witness, "news", &away.since).await?["recovered"], json!(true));
    witness.messages(MISSED as usize).await?;
    let clients: Vec<_> =
        stream::iter(0..CLIENTS).map(|_| Client::native(url)).buffer_unordered(16).try_collect().await?;

    let before = Reads::of(&cluster, broker).await?;
    let resumed = clients.iter().map(async |client| {
        assert_eq!(resume(client, "news", &away.since).await?["recovered"], json!(true));
        client.messages(MISSED as usize).await
    });
    try_join_all(resumed).await?;
    let storm = Reads::of(&cluster, broker).await?.since(&before);
    let missed = texts(10..10 + MISSED);
    for client in &clients {
        assert_eq!(messages(client), missed);
    }
    println!("{CLIENTS} clients at once: {storm:?}");
    assert_eq!((storm.asked, storm.commands), (0, 0), "reads at the broker");
    // Heartbeats go on; one reading of what was missed would already be more.
    let one_reading = u64::from(MISSED) * 40;
    assert!(storm.bytes < one_reading, "the broker sent {} bytes", storm.bytes);

    // What these numbers are when the broker is asked: the window has no room for all of this.
    let filler = "x".repeat(60 << 10);
    for number in 0..FILLERS {
        away.speaker.publish("news", &format!("{number} {filler}")).await?;
    }
    away.speaker.publish("news", "full").await?;
    witness.sees("full").await?;
    let late = Client::native(url).await?;
    let before = Reads::of(&cluster, broker).await?;
    resume(&late, "news", &away.since).await?;
    // It is read by pages, as the client takes them.
    late.sees("full").await?;
    let asked = Reads::of(&cluster, broker).await?.since(&before);
    println!("one client older than the window: {asked:?}");
    assert!(asked.asked > 0 && asked.bytes > (FILLERS / 2 * filler.len()) as u64, "{asked:?}");
    assert!(broker != Broker::Redis || asked.commands > 0, "{asked:?}");
    Ok(())
}

/// How often the second node has read at the broker beyond its tail.
#[derive(Debug)]
struct Reads {
    /// By the node's own count.
    asked: u64,
    /// By Redis's count of the command that only this is done with, on all nodes; 0 on other brokers.
    commands: u64,
    /// By the wire between the two, with the tail.
    bytes: u64,
}

impl Reads {
    async fn of(cluster: &Cluster, broker: Broker) -> Result<Self> {
        let number = |text: &str| text.parse::<u64>().ok();
        let metrics = http::get(cluster.node_address(2), "/metrics").await?.body;
        let asked = metrics.lines().find_map(|line| number(line.strip_prefix("fanfare_broker_read_backs_total ")?));
        let mut commands = 0;
        if broker == Broker::Redis {
            let statistics = cluster.broker().tool(&["INFO", "commandstats"]).await?;
            let calls =
                statistics.lines().find_map(|line| line.strip_prefix("cmdstat_xrevrange:calls=")?.split(',').next());
            commands = calls.and_then(number).unwrap_or_default();
        }
        let bytes = cluster.wire("node-2")?.carried(Direction::FromBroker);
        Ok(Self { asked: asked.context("no such metric")?, commands, bytes })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            asked: self.asked - before.asked,
            commands: self.commands - before.commands,
            bytes: self.bytes - before.bytes,
        }
    }
}

#[tokio::test]
async fn many_channels_resumed_at_once_are_all_given_at_the_pace_of_the_client() -> Result<()> {
    const CHANNELS: usize = 50;
    const EACH: usize = 20;
    let small = [("FANFARE__LIMITS__OUTBOX", "128KiB")];
    let node = Program::start("fanfare", &[], &small).await?;
    let url = format!("http://{}", node.address);
    let speaker = Client::native(&url).await?;
    let names: Vec<_> = (0..CHANNELS).map(|n| format!("room-{n}")).collect();
    let mut since = Vec::new();
    for name in &names {
        since.push(at(&speaker.subscribe(name).await?)?);
        speaker.unsubscribe(name).await?;
    }
    let filler = "x".repeat(8 << 10);
    for number in 0..EACH {
        for name in &names {
            speaker.publish(name, &format!("{number} {filler}")).await?;
        }
    }
    let back = Client::native(&url).await?;
    let resumed = try_join_all(names.iter().zip(&since).map(|(name, since)| resume(&back, name, since))).await?;
    assert!(resumed.iter().all(|ok| ok["recovered"] == true), "{resumed:?}");
    for name in &names {
        speaker.publish(name, &format!("{EACH} live")).await?;
    }
    back.messages(CHANNELS * (EACH + 1)).await?;
    let mut heard: std::collections::HashMap<String, Vec<String>> = std::collections::HashMap::new();
    for frame in back.frames() {
        let Frame::Message { channel, data, .. } = frame else { continue };
        heard.entry(channel).or_default().push(data.split(' ').next().unwrap_or_default().to_owned());
    }
    let expected: Vec<_> = (0..=EACH).map(|number| number.to_string()).collect();
    for name in &names {
        assert_eq!(heard[name], expected, "on {name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_is_left_at_once_and_joined_again_whatever_its_resume_waits_for() -> Result<()> {
    // The resume needs the broker.
    let small = [("FANFARE__WINDOW__BYTES", "16KiB")];
    let node = Program::start("fanfare", &[], &small).await?;
    let url = format!("http://{}", node.address);
    let speaker = Client::native(&url).await?;
    let since = at(&speaker.subscribe("news").await?)?;
    let filler = "x".repeat(2000);
    for _ in 0..60 {
        speaker.publish("news", &filler).await?;
    }
    let join = json!({ "subscribe": { "channel": "news", "since": since } });
    let leave = json!({ "unsubscribe": { "channel": "news" } });
    let (left, again) = (Client::native(&url).await?, Client::native(&url).await?);
    let (joined, gone) = tokio::try_join!(left.ask(join.clone()), left.ask(leave.clone()))?;
    assert!(joined["ok"].is_object() || joined["error"]["code"] == "left", "{joined}");
    assert!(gone["ok"].is_object(), "{gone}");
    let count = left.count();
    let (_, _, once, twice) =
        tokio::try_join!(again.ask(join.clone()), again.ask(leave), again.ask(join.clone()), again.ask(join))?;
    assert_eq!((&once["ok"]["recovered"], &twice["ok"]["recovered"]), (&json!(true), &json!(true)), "{once} {twice}");
    speaker.publish("news", "live").await?;
    again.sees("live").await?;
    let lives = messages(&again).iter().filter(|text| *text == "live").count();
    assert_eq!((left.count(), lives), (count, 1), "nothing after leaving, and twice is once");
    Ok(())
}

async fn a_node_that_is_behind_a_client_never_takes_it_back(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(2).broker(broker).start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    client.subscribe("news").await?;
    publish(&client, "news", 0..10).await?;
    client.messages(10).await?;
    let behind = Client::native(&url(&cluster, 2)).await?;
    cluster.wire("node-2")?.stall(&[Direction::FromBroker, Direction::ToBroker]);
    publish(&client, "news", 10..20).await?;
    client.messages(20).await?;
    let Some(Frame::Message { at: Some(since), .. }) = client.frames().pop() else { panic!("no position") };
    let reply = behind.ask(json!({ "subscribe": { "channel": "news", "since": since } })).await?;
    assert_eq!((&reply["error"]["code"], &reply["error"]["retry"]), (&json!("unavailable"), &json!(true)), "{reply}");
    cluster.wire("node-2")?.mend();
    loop {
        let reply = behind.ask(json!({ "subscribe": { "channel": "news", "since": since } })).await?;
        if reply["error"]["code"] != "unavailable" {
            assert_eq!((&reply["ok"]["recovered"], &reply["ok"]["at"]), (&json!(true), &json!(since)), "{reply}");
            break;
        }
    }
    publish(&client, "news", 20..21).await?;
    behind.messages(1).await?;
    assert_eq!(messages(&behind), ["20"]);
    Ok(())
}

#[tokio::test]
async fn the_window_takes_the_memory_that_it_is_given() -> Result<()> {
    const BYTES: u64 = 16 << 20;
    let set = [
        ("FANFARE__WINDOW__BYTES", "16MiB"),
        ("FANFARE__BROKER__RETENTION", "1000"),
        ("FANFARE__LIMITS__PUBLISHES_PER_SECOND", "0"),
    ];
    let node = Program::start("fanfare", &[], &set).await?;
    let url = format!("http://{}", node.address);
    let speaker = Client::native(&url).await?;
    // With a frame of each message.
    let reader = Client::native(&url).await?;
    let names: Vec<_> = (0..64).map(|n| format!("room-{n}")).collect();
    for name in &names {
        reader.subscribe(name).await?;
    }
    let say = async |count: usize| -> Result<()> {
        let publish = |n: usize| {
            speaker.publish(&names[n % names.len()], "64 bytes of a message, as they are in many a chat, more or less")
        };
        stream::iter(0..count).map(publish).buffer_unordered(64).try_collect::<Vec<_>>().await.map(drop)
    };
    // What else grows with messages, up to a bound: the ids of each, the embedded log.
    say(2_000).await?;
    let before = node.process()?.memory()?;
    say(60_000).await?;
    reader.messages(62_000).await?;
    let grown = node.process()?.memory()?.saturating_sub(before);
    // Ids of 60,000 messages take 26 bytes each; then what waits for a busy reader, and what the allocator keeps of memory
    // that was given back. A window that takes twice what it says is found.
    let others = 60_000 * 26 + (8 << 20);
    println!("a window of {BYTES} bytes has taken {grown}");
    assert!(grown <= BYTES * 11 / 10 + others, "a window of {BYTES} bytes has taken {grown}");
    Ok(())
}

#[tokio::test]
async fn a_position_that_proves_nothing_recovers_nothing() -> Result<()> {
    let node = Program::start("fanfare", &[], &[]).await?;
    let url = format!("http://{}", node.address);
    let speaker = Client::native(&url).await?;
    let other = at(&speaker.subscribe("other").await?)?;
    publish(&speaker, "news", 0..10).await?;
    let position = at(&speaker.subscribe("news").await?)?;
    let (offset, partition, check) = parts(&position)?;
    let another = earlier_text((offset, partition, 1));
    let far = earlier_text((offset << 24, partition, check));
    for (since, what) in [(another, "another record"), (other, "another partition"), (far, "the future")] {
        let client = Client::native(&url).await?;
        let ok = resume(&client, "news", &since).await?;
        assert_eq!(ok["recovered"], json!(false), "{what}: {ok}");
        speaker.publish("news", what).await?;
        client.sees(what).await?;
        assert_eq!(messages(&client), [what], "nothing partial");
    }
    let client = Client::native(&url).await?;
    let known = resume(&client, "news", &earlier_text(parts(&position)?)).await?;
    assert_eq!(known["recovered"], json!(true), "the text of earlier builds: {known}");
    let client = Client::native(&url).await?;
    let refused = client.ask(json!({ "subscribe": { "channel": "news", "since": "yesterday" } })).await?;
    assert_eq!(refused["error"]["code"], json!("bad_request"));
    Ok(())
}

async fn a_key_makes_a_repeated_publish_harmless_on_every_node(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(2).shared(broker).start().await?;
    let clients = [Client::native(&url(&cluster, 1)).await?, Client::native(&url(&cluster, 2)).await?];
    for client in &clients {
        client.subscribe("orders").await?;
    }
    for client in clients.iter().cycle().take(6) {
        let command = json!({ "publish": { "channel": "orders", "data": "order 7", "key": "7" } });
        assert!(client.ask(command).await?.get("ok").is_some(), "each try is acknowledged");
    }
    clients[0].publish("orders", "last").await?;
    for client in &clients {
        client.sees("last").await?;
        assert_eq!(messages(client), ["order 7", "last"]);
    }
    Ok(())
}

async fn clients_are_notified_once_that_the_broker_is_away_and_once_that_it_is_back(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(1).broker(broker).start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    client.subscribe("news").await?;
    cluster.broker().kill().await?;
    client.meets("the notice", |frame| *frame == Frame::Other(r#"{"degraded":true}"#.into())).await?;
    cluster.broker().start().await?;
    client.meets("its end", |frame| *frame == Frame::Other(r#"{"degraded":false}"#.into())).await?;
    client.publish("news", "on").await?;
    client.sees("on").await?;
    let notices =
        client.frames().into_iter().filter(|frame| matches!(frame, Frame::Other(text) if text.contains("degraded")));
    assert_eq!(notices.count(), 2);
    Ok(())
}

#[tokio::test]
async fn pings_carry_positions_so_that_quiet_channels_resume() -> Result<()> {
    let quick = [("FANFARE__TIMING__PING", "1s"), ("FANFARE__TIMING__PONG", "500ms")];
    let node = Program::start("fanfare", &[], &quick).await?;
    let url = format!("http://{}", node.address);
    let client = Client::native(&url).await?;
    client.subscribe("quiet").await?;
    let ping = |frame: &Frame| matches!(frame, Frame::Other(text) if text.contains(r#""quiet":"#));
    let Frame::Other(text) = client.meets("a ping", ping).await? else { panic!("no ping") };
    let ping: Value = serde_json::from_str(&text)?;
    let since = ping["ping"]["at"]["quiet"].as_str().context("no position")?;
    client.close().await?;
    let speaker = Client::native(&url).await?;
    publish(&speaker, "quiet", 0..3).await?;
    let back = Client::native(&url).await?;
    assert_eq!(resume(&back, "quiet", since).await?["recovered"], json!(true));
    back.messages(3).await?;
    assert_eq!(messages(&back), texts(0..3));
    Ok(())
}
