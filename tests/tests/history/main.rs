//! Older messages: `history` in both directions, the last ones for a new subscriber, and a catch-up of any size.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tests::history::{Outcome, parts};
use tests::latency::Beat;
use tests::wire::{self, Wire};
use tests::{Broker, Client, Cluster, Frame, http};
use tokio::task::JoinSet;

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq, memory Memory: {
    history_on_any_node_pages_through_exactly_what_was_published,
    the_last_messages_come_first_and_live_ones_follow_without_gap_or_duplicate,
} }

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

async fn history(client: &Client, fields: Value) -> Result<Value> {
    let mut reply = client.ask(json!({ "history": fields })).await?;
    ensure!(reply["ok"].is_object(), "refused: {reply}");
    Ok(reply["ok"].take())
}

fn data(messages: &Value) -> Vec<String> {
    let messages = messages.as_array().into_iter().flatten();
    messages.filter_map(|message| message["data"].as_str()).map(str::to_owned).collect()
}

fn live(client: &Client) -> Vec<String> {
    let message = |frame| if let Frame::Message { data, .. } = frame { Some(data) } else { None };
    client.frames().into_iter().filter_map(message).collect()
}

async fn publish(client: &Client, channel: &str, data: &str) -> Result<()> {
    let outcome = client.publish(channel, data).await?;
    ensure!(outcome == Outcome::Acknowledged, "{data} on {channel}: {outcome:?}");
    Ok(())
}

/// Reads a channel from its end back to its beginning, in pages of random sizes. Also says whether that is all.
async fn read_back(client: &Client, channel: &str) -> Result<(Vec<String>, bool)> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let mut fields = json!({ "channel": channel, "limit": fastrand::u32(1..=100) });
        if let Some(before) = before.take() {
            fields["before"] = before;
        }
        let mut page = history(client, fields).await?;
        ensure!(page["channel"] == channel, "{page}");
        found.splice(0..0, data(&page["messages"]));
        match page["next"].take() {
            Value::Null => return Ok((found, page["complete"] == true)),
            next => before = Some(next),
        }
    }
}

/// Reads a channel on from a position, in pages of random sizes.
async fn read_on(client: &Client, channel: &str, since: &str) -> Result<Vec<String>> {
    let (mut found, mut since) = (Vec::new(), json!(since));
    loop {
        let fields = json!({ "channel": channel, "limit": fastrand::u32(1..=100), "since": since });
        let mut page = history(client, fields).await?;
        found.extend(data(&page["messages"]));
        if page["complete"] == true {
            return Ok(found);
        }
        since = page["next"].take();
    }
}

async fn subscribe(client: &Client, channel: &str) -> Result<String> {
    Ok(client.subscribe(channel).await?["at"].as_str().context("no position")?.to_owned())
}

/// Three channels, the first two of them in one partition.
async fn channels(client: &Client) -> Result<[String; 3]> {
    let (_, partition, _) = parts(&subscribe(client, "room").await?)?;
    for number in 0.. {
        let beside = format!("beside-{number}");
        let same = parts(&subscribe(client, &beside).await?)?.1 == partition;
        client.unsubscribe(&beside).await?;
        if same {
            client.unsubscribe("room").await?;
            return Ok(["room".to_owned(), beside, "elsewhere".to_owned()]);
        }
    }
    anyhow::bail!("there are enough names")
}

async fn history_on_any_node_pages_through_exactly_what_was_published(broker: Broker) -> Result<()> {
    const MESSAGES: usize = 600;
    // The most recent ones alone are in memory.
    let plan = Cluster::of(broker.nodes().min(2)).shared(broker);
    let mut cluster = plan.set("FANFARE__WINDOW__BYTES", "48KiB").start().await?;
    let speaker = Client::native(&url(&cluster, 1)).await?;
    let channels = channels(&speaker).await?;
    let mut begins = Vec::new();
    for channel in &channels {
        begins.push(subscribe(&speaker, channel).await?);
    }
    let mut published = [const { Vec::new() }; 3];
    for number in 0..MESSAGES {
        let index = fastrand::usize(..channels.len());
        let text = format!("{number} {}", "x".repeat(fastrand::usize(..200)));
        if fastrand::u8(..10) == 0 {
            // Twice under one key: one message.
            for _ in 0..2 {
                let command = json!({ "channel": channels[index], "data": text, "key": number.to_string() });
                let reply = speaker.ask(json!({ "publish": command })).await?;
                ensure!(reply["ok"].is_object(), "{reply}");
            }
        } else {
            publish(&speaker, &channels[index], &text).await?;
        }
        published[index].push(text);
    }
    // A node that has seen none of it live.
    if broker.nodes() > 1 {
        cluster.kill_node("node-2").await?;
        cluster.start_node("node-2").await?;
    }
    for node in 1..=broker.nodes().min(2) {
        let client = Client::native(&url(&cluster, node)).await?;
        // It has read all of it once it hears this.
        for (channel, begin) in channels.iter().zip(&begins) {
            let last = speaker.ask(json!({ "history": { "channel": channel, "limit": 1 } })).await?;
            let since = last["ok"]["messages"][0]["at"].as_str().unwrap_or(begin).to_owned();
            ensure!(client.resume(channel, &since).await?["recovered"] == true, "the node is behind");
            client.unsubscribe(channel).await?;
        }
        for ((channel, published), begin) in channels.iter().zip(&published).zip(&begins) {
            let (found, complete) = read_back(&client, channel).await?;
            ensure!(found == *published, "node {node}, {channel}: {} of {}", found.len(), published.len());
            ensure!(complete, "node {node}: the log has no more of {channel}");
            ensure!(read_on(&client, channel, begin).await? == *published, "node {node}: {channel} onwards");
        }
        let (nothing, complete) = read_back(&client, "never-used").await?;
        ensure!(nothing.is_empty() && complete, "node {node}: a channel without messages");
    }
    let refused = speaker.ask(json!({ "history": { "channel": channels[0], "since": begins[2] } })).await?;
    ensure!(refused["error"]["code"] == "gone" && refused["error"]["retry"] == false, "{refused}");
    Ok(())
}

async fn the_last_messages_come_first_and_live_ones_follow_without_gap_or_duplicate(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(1).shared(broker).set("FANFARE__WINDOW__BYTES", "32KiB").start().await?;
    let url = url(&cluster, 1);
    let speaker = Client::native(&url).await?;
    let [channel, beside, _] = channels(&speaker).await?;
    let numbers = |numbers: std::ops::Range<usize>| numbers.map(|number| number.to_string()).collect::<Vec<_>>();
    for number in 0..30 {
        publish(&speaker, &channel, &number.to_string()).await?;
    }
    // Now they are older than the window.
    for number in 0..60 {
        publish(&speaker, &beside, &format!("{number} {}", "x".repeat(400))).await?;
    }
    let old = parts(&subscribe(&speaker, &channel).await?)?;
    for last in [1, 7, 29, 1000] {
        let client = Client::native(&url).await?;
        let ok = client.ask(json!({ "subscribe": { "channel": channel, "last": last } })).await?["ok"].take();
        let expected = last.min(30);
        ensure!(ok["last"] == expected && ok["recovered"].is_null(), "{ok}");
        ensure!(parts(ok["at"].as_str().context("no position")?)?.0 < old.0, "{ok}");
        client.messages(expected).await?;
        ensure!(live(&client) == numbers(30 - expected..30), "{:?}", live(&client));
    }
    // While messages come: those of before and those of after the subscription are one run.
    let mut readers = JoinSet::new();
    for number in 30..90 {
        publish(&speaker, &channel, &number.to_string()).await?;
        if number % 10 == 0 {
            let (client, channel) = (Client::native(&url).await?, channel.clone());
            readers.spawn(async move {
                let ok = client.ask(json!({ "subscribe": { "channel": channel, "last": 5 } })).await?["ok"].take();
                ensure!(ok["last"] == 5, "{ok}");
                client.sees("89").await?;
                let seen = live(&client);
                let first: usize = seen.first().context("no message")?.parse()?;
                ensure!(seen == (first..90).map(|number| number.to_string()).collect::<Vec<_>>(), "{seen:?}");
                Ok(())
            });
        }
    }
    while let Some(read) = readers.join_next().await {
        read??;
    }
    // A position that proves nothing: the last ones instead. One that does wins.
    let forged = tests::history::earlier_text((old.0, old.1, 1));
    let client = Client::native(&url).await?;
    let join = json!({ "channel": channel, "since": forged, "last": 3 });
    let ok = client.ask(json!({ "subscribe": join })).await?["ok"].take();
    ensure!(ok["recovered"] == false && ok["last"] == 3, "{ok}");
    client.messages(3).await?;
    ensure!(live(&client) == numbers(87..90), "{:?}", live(&client));
    let client = Client::native(&url).await?;
    let page = history(&speaker, json!({ "channel": channel, "limit": 5 })).await?;
    let join = json!({ "channel": channel, "since": page["messages"][0]["at"], "last": 50 });
    let ok = client.ask(json!({ "subscribe": join })).await?["ok"].take();
    ensure!(ok["recovered"] == true && ok["last"].is_null(), "{ok}");
    client.messages(4).await?;
    ensure!(live(&client) == numbers(86..90), "{:?}", live(&client));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_has_trimmed_is_never_called_complete_before_it_is_read() -> Result<()> {
    // The window has less than the log, and the log less than what was published.
    let plan = Cluster::of(1).shared(Broker::Redis).set("FANFARE__WINDOW__BYTES", "48KiB");
    let cluster = plan.set("FANFARE__BROKER__RETENTION", "200").start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    for number in 0..900 {
        publish(&client, "room", &format!("{number} {}", "x".repeat(100))).await?;
    }
    let first = history(&client, json!({ "channel": "room", "limit": 1000 })).await?;
    let before = first["next"].as_str().context("the log has more than the window")?.to_owned();
    // What the position stands for goes away: that is said.
    for number in 900..1800 {
        publish(&client, "room", &format!("{number} {}", "x".repeat(100))).await?;
    }
    let gone = client.ask(json!({ "history": { "channel": "room", "before": before } })).await?;
    ensure!(gone["error"]["code"] == "gone", "{gone}");
    let (found, complete) = read_back(&client, "room").await?;
    ensure!(complete, "the log has no more");
    ensure!((200..600).contains(&found.len()), "{} are kept", found.len());
    let numbers: Vec<usize> = found.iter().filter_map(|text| text.split(' ').next()?.parse().ok()).collect();
    ensure!(numbers == (1800 - found.len()..1800).collect::<Vec<_>>(), "{numbers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_from_before_a_break_are_not_mixed_with_those_after_it() -> Result<()> {
    let cluster = Cluster::of(1).broker(Broker::Redis).start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    client.subscribe("room").await?;
    for number in 0..20 {
        publish(&client, "room", &format!("old {number}")).await?;
    }
    let page = history(&client, json!({ "channel": "room", "limit": 5 })).await?;
    cluster.broker().tool(&["FLUSHALL"]).await?;
    client.meets("the loss", |frame| matches!(frame, Frame::Lost { channel, .. } if channel == "room")).await?;
    for number in 0..20 {
        publish(&client, "room", &format!("new {number}")).await?;
    }
    client.sees("new 19").await?;
    // Whether this is complete, a node may not be able to prove: it may have joined the new log after its first record.
    let (found, _) = read_back(&client, "room").await?;
    let new: Vec<_> = (0..20).map(|number| format!("new {number}")).collect();
    ensure!(found == new, "{found:?}");
    for direction in ["since", "before"] {
        let gone = client.ask(json!({ "history": { "channel": "room", direction: page["next"] } })).await?;
        ensure!(gone["error"]["code"] == "gone", "{direction}: {gone}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_bounded_in_bytes_and_closes_no_client_that_reads() -> Result<()> {
    let limits = [("FANFARE__LIMITS__MESSAGE", "16KiB"), ("FANFARE__LIMITS__OUTBOX", "64KiB")];
    let node = tests::Program::start("fanfare", &[], &limits).await?;
    let client = Client::native(&format!("http://{}", node.address)).await?;
    for number in 0..40 {
        publish(&client, "room", &format!("{number} {}", "x".repeat(8000))).await?;
    }
    let page = history(&client, json!({ "channel": "room", "limit": 1000 })).await?;
    ensure!((1..=4).contains(&data(&page["messages"]).len()), "{} messages", data(&page["messages"]).len());
    let asks = (0..8).map(|_| client.ask(json!({ "history": { "channel": "room", "limit": 1000 } })));
    for reply in try_join_all(asks).await? {
        ensure!(reply["ok"]["messages"] == page["messages"], "all at once");
    }
    ensure!(read_back(&client, "room").await?.0.len() == 40 && client.is_open());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_missed_50_mb_gets_all_of_it_at_its_own_pace_and_the_node_holds_one_outbox() -> Result<()> {
    const MESSAGES: usize = 1000;
    const SIZE: usize = 50_000;
    let cluster = Cluster::of(1).shared(Broker::Redis).set("FANFARE__WINDOW__BYTES", "4MiB").start().await?;
    let (address, url) = (cluster.node_address(1), url(&cluster, 1));
    let speaker = Client::native(&url).await?;
    let since = subscribe(&speaker, "news").await?;
    speaker.unsubscribe("news").await?;
    let filler = "x".repeat(SIZE);
    let texts: Vec<_> = (0..MESSAGES).map(|number| format!("{number} {filler}")).collect();
    stream::iter(&texts).map(|text| publish(&speaker, "news", text)).buffered(32).try_collect::<()>().await?;
    // What one slow client takes of the node: it reads a little at a time, and others publish meanwhile.
    let before = cluster.process("node-1")?.memory()?;
    let mut slow = Wire::with_room(address, 64 << 10).await?.upgraded("/ws").await?;
    let join = json!({ "subscribe": { "channel": "news", "since": since } }).to_string();
    slow.send(wire::Frame::text(join).bytes()).await?;
    let (mut found, mut most) = (0, 0);
    while found < MESSAGES + 1 {
        while let Some(received) = slow.received()? {
            let text = received.text();
            if text.starts_with("{\"ping\"") || received.opcode != wire::TEXT {
                continue;
            }
            let value: Value = serde_json::from_str(&text)?;
            if value["ok"].is_object() {
                ensure!(value["ok"]["recovered"] == true, "{value}");
                continue;
            }
            let number = value["data"].as_str().and_then(|data| data.split(' ').next()).context("no message")?;
            let expected = if found < MESSAGES { found.to_string() } else { "live".to_owned() };
            ensure!(number == expected, "{number} came instead of {expected}");
            found += 1;
            if found == MESSAGES / 2 {
                publish(&speaker, "news", "live").await?;
            }
            if found % 50 == 0 {
                most = most.max(cluster.process("node-1")?.memory()?);
            }
        }
        if found < MESSAGES + 1 {
            ensure!(slow.bite(64 << 10).await?, "closed after {found} messages");
        }
    }
    let grown = most.saturating_sub(before);
    println!("50 MB given to one client: the node grew by {} KiB at most", grown >> 10);
    // An outbox of 1 MiB; two pages of 1 MiB under way with their frames; what the allocator keeps.
    ensure!(grown < 16 << 20, "the node grew by {grown} bytes");
    Ok(())
}

/// Clients of a node that dies.
const CLIENTS: usize = 10_000;
/// What each of them misses.
const MISSED: usize = 200;
/// Clients share channels.
const CHANNELS: usize = 100;
/// Clients of the other nodes.
const OTHERS: usize = 200;
const BEAT: Beat = Beat { channel: "calm", messages: 200, pace: Duration::from_millis(50), size: 64 };

/// A measurement that needs the whole machine: `docs/benchmarks.md` says how to run it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a minute that needs the whole machine"]
async fn ten_thousand_clients_of_a_killed_node_are_whole_within_ten_seconds_from_memory() -> Result<()> {
    let mut cluster = Cluster::of(3).shared(Broker::Redis).start().await?;
    let names: Vec<_> = (0..CHANNELS).map(|number| format!("room-{number}")).collect();
    let there = cluster.node_address(1);
    let mut positions = Vec::new();
    let connected = stream::iter(0..CLIENTS).map(|number| subscribed(there, &names[number % CHANNELS]));
    let clients: Vec<(Wire, String)> = connected.buffer_unordered(64).try_collect().await?;
    for name in &names {
        positions.push(Client::native(&url(&cluster, 2)).await?.subscribe(name).await?["at"].take());
    }
    cluster.kill_node("node-1").await?;
    drop(clients);
    let speaker = Client::native(&url(&cluster, 2)).await?;
    let missed =
        (0..MISSED).flat_map(|number| names.iter().map(move |name| (name, format!("{number:04} {}", "x".repeat(60)))));
    let speak = |(name, text): (&String, String)| {
        let (speaker, name) = (&speaker, name.clone());
        async move { publish(speaker, &name, &text).await }
    };
    stream::iter(missed).map(speak).buffered(64).try_collect::<()>().await?;
    let nodes = [cluster.node_address(2), cluster.node_address(3)];
    // At once, which is worse than any client does, and then as docs/protocol.md asks for: after a random delay.
    for spread in [Duration::ZERO, Duration::from_secs(5)] {
        let others = try_join_all((0..OTHERS).map(|number| Wire::open(nodes[number % 2], "/raw/calm"))).await?;
        let (others, alone) = BEAT.p99(nodes[0], others).await?;
        let before = Figures::of(&cluster).await?;
        let beat = tokio::spawn(BEAT.p99(nodes[0], others));
        let begin = Instant::now();
        let returned = stream::iter(0..CLIENTS).map(|number| {
            let (name, since) = (&names[number % CHANNELS], &positions[number % CHANNELS]);
            let delay = spread.mul_f64(fastrand::f64());
            async move {
                tokio::time::sleep(delay).await;
                whole(nodes[number / CHANNELS % 2], name, since).await
            }
        });
        let whole: Vec<Wire> = returned.buffer_unordered(CLIENTS).try_collect().await?;
        let took = begin.elapsed();
        let after = Figures::of(&cluster).await?;
        let (_, beside) = beat.await??;
        println!("{} clients over {spread:?} are whole after {took:.1?}", whole.len());
        println!("p99 of {OTHERS} others: {alone:.1?} alone, {beside:.1?} beside; before {before:?}, after {after:?}");
        ensure!(after.read_backs == before.read_backs, "the broker was read");
        ensure!(
            after.memory.iter().all(|bytes| *bytes < 256 << 20),
            "a node holds more than the window and its sockets"
        );
        ensure!(took <= Duration::from_secs(10), "it took {took:?}");
    }
    Ok(())
}

/// What two nodes have read at the broker for clients, and the bytes they hold.
#[derive(Debug)]
struct Figures {
    read_backs: u64,
    memory: Vec<u64>,
}

impl Figures {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let (mut read_backs, mut memory) = (0, Vec::new());
        for node in 2..=3 {
            let metrics = http::get(cluster.node_address(node), "/metrics").await?.body;
            let line = metrics.lines().find_map(|line| line.strip_prefix("fanfare_broker_read_backs_total "));
            read_backs += line.context("no such metric")?.parse::<u64>()?;
            memory.push(cluster.process(&format!("node-{node}"))?.memory()?);
        }
        Ok(Self { read_backs, memory })
    }
}

async fn subscribed(node: std::net::SocketAddr, channel: &str) -> Result<(Wire, String)> {
    let mut wire = Wire::open(node, "/ws").await?;
    let reply = wire.ask(&json!({ "subscribe": { "channel": channel } }).to_string()).await?;
    Ok((wire, reply["ok"]["at"].as_str().context("no position")?.to_owned()))
}

/// Comes back with a position, and reads until it has everything.
async fn whole(node: std::net::SocketAddr, channel: &str, since: &Value) -> Result<Wire> {
    let mut wire = Wire::open(node, "/ws").await?;
    let reply = wire.ask(&json!({ "subscribe": { "channel": channel, "since": since } }).to_string()).await?;
    ensure!(reply["ok"]["recovered"] == true, "{reply}");
    for number in 0..MISSED {
        let message = wire.message().await?;
        ensure!(message.contains(&format!("\"data\":\"{number:04} ")), "{message} came instead of {number}");
    }
    Ok(wire)
}
