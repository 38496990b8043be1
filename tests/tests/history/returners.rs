//! A measurement: ten thousand clients of a killed node come back to two others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tests::latency::Beat;
use tests::wire::Wire;
use tests::{Broker, Client, Cluster, http};

use super::{publish, url};

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
