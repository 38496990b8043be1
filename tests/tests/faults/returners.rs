//! Clients that come back from further away than the window reaches: honest ones, and ones that only say so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use real_brokers::Direction;
use tests::cluster::Plan;
use tests::history::{earlier_text, parts};
use tests::latency::Beat;
use tests::lateness::Lateness;
use tests::wire::{Frame, Wire};
use tests::{Client, Cluster, http};
use tokio::sync::watch;

use crate::flood::Flood;
use crate::stage::{Case, partition};

/// Honest clients.
const RETURNERS: usize = 1000;
/// How soon all of them must have all they missed.
const SOON: Duration = Duration::from_secs(3);
/// What the quiet channel's clients missed.
const MISSED: [&str; 3] = ["one", "two", "three"];
/// Messages of the busy neighbour: several times what the window holds.
const BUSY: usize = 8_000;
const WINDOW: (&str, &str) = ("FANFARE__WINDOW__BYTES", "4MiB");
/// The flood and the busy neighbour are not to be stopped by the limits of a connection.
const NO_LIMITS: [(&str, &str); 2] =
    [("FANFARE__LIMITS__PUBLISHES_PER_SECOND", "0"), ("FANFARE__LIMITS__SUBSCRIBES_PER_SECOND", "0")];

/// Commands of the flood.
const FLOOD: usize = 10_000;
const BEAT: Beat = Beat { channel: "calm", messages: 150, pace: Duration::from_millis(20), size: 256 };
/// How much longer the others may wait beside it.
const FACTOR: f64 = 1.5;
/// And so much longer: what two measurements of the same on a busy machine differ by.
const NOISE: Duration = Duration::from_millis(25);
/// Measurements. Whatever else runs on this machine only ever adds to a delay, and not to each of them.
const TRIES: usize = 3;
/// Bytes that a flood may have the node read, with what its tail reads. Kafka's client fetches ahead of what is asked for.
const BOUND: u64 = 16 << 20;

pub(crate) async fn a_thousand_returners_to_a_quiet_channel_cost_one_reading(case: Case) -> Result<()> {
    let mut cluster = cluster(case).start().await?;
    let url = format!("http://{}", cluster.node_address(1));
    let past = Past::of(&url).await?;
    // It stays busy while they come back.
    let (busy, stop) = (Arc::new(Client::native(&url).await?), watch::Sender::new(false));
    let mut stopped = stop.subscribe();
    let load = {
        let (busy, channel) = (Arc::clone(&busy), past.neighbour.clone());
        tokio::spawn(async move {
            while !*stopped.borrow_and_update() {
                busy.publish(&channel, &"x".repeat(1000)).await?;
            }
            anyhow::Ok(())
        })
    };
    let clients: Vec<_> =
        stream::iter(0..RETURNERS).map(|_| Client::native(&url)).buffer_unordered(16).try_collect().await?;
    let (before, begin) = (read_backs(&cluster).await?, Instant::now());
    try_join_all(clients.iter().map(async |client| {
        let ok = client.resume("quiet", &past.since).await?;
        ensure!(ok["recovered"] == true, "refused: {ok}");
        client.messages(MISSED.len()).await
    }))
    .await?;
    let took = begin.elapsed();
    let asked = read_backs(&cluster).await? - before;
    stop.send_replace(true);
    load.await??;
    past.speaker.publish("quiet", "live").await?;
    for client in &clients {
        client.messages(MISSED.len() + 1).await?;
        ensure!(texts(client) == [&MISSED[..], &["live"]].concat(), "{:?}", texts(client));
    }
    println!("{case}: {RETURNERS} whole in {took:.1?}, {asked} reading");
    ensure!(asked == 1, "the broker was asked {asked} times");
    ensure!(took <= SOON, "they had to wait for {took:?}");
    cluster.well();
    Ok(())
}

pub(crate) async fn a_flood_of_forged_positions_is_bounded_work_and_unnoticed(case: Case) -> Result<()> {
    let mut cluster = cluster(case).start().await?;
    let address = cluster.node_address(1);
    let past = Past::of(&format!("http://{address}")).await?;
    let (first, partition, _) = parts(&past.since)?;
    let flood: Vec<u8> = (0..FLOOD)
        .flat_map(|n| {
            let since = earlier_text((first + (n % BUSY) as u64 / 4, partition, n as u64 + 1));
            let join = format!(r#"{{"subscribe":{{"channel":"quiet","since":"{since}"}}}}"#);
            [Frame::text(join).bytes(), Frame::text(r#"{"unsubscribe":{"channel":"quiet"}}"#).bytes()].concat()
        })
        .collect();
    let mut others = try_join_all((0..20).map(|_| Wire::open(address, "/raw/calm"))).await?;
    let mut tries = Vec::new();
    while tries.len() < TRIES {
        let (alone, beside);
        (others, alone) = BEAT.p99(address, others).await?;
        let (readings, read) = (read_backs(&cluster).await?, cluster.wire("node-1")?.carried(Direction::FromBroker));
        let machine = Lateness::watch();
        let forger = Flood::begin(address, &flood, 1)?;
        (others, beside) = BEAT.p99(address, others).await?;
        forger.end()?;
        let read = cluster.wire("node-1")?.carried(Direction::FromBroker) - read;
        let readings = read_backs(&cluster).await? - readings;
        println!(
            "{case}: p99 of the others {alone:.1?}, beside the flood {beside:.1?}; {readings} readings, {read} bytes"
        );
        ensure!(read < BOUND && readings < 50, "the node read {read} bytes in {readings} readings");
        if beside <= alone.mul_f64(FACTOR) + NOISE + machine.longest() {
            cluster.well();
            return Ok(());
        }
        tries.push((alone, beside));
    }
    bail!("the others wait: {tries:?}")
}

fn cluster(case: Case) -> Plan {
    let plan = Cluster::of(1).broker(case.broker).set(WINDOW.0, WINDOW.1);
    NO_LIMITS.iter().fold(plan, |plan, (name, value)| plan.set(name, value))
}

/// A quiet channel, some messages that its clients missed, and a neighbour in its partition that has filled the window since.
struct Past {
    speaker: Client,
    neighbour: String,
    /// Where the clients were.
    since: String,
}

impl Past {
    async fn of(url: &str) -> Result<Self> {
        let speaker = Client::native(url).await?;
        let ok = speaker.subscribe("quiet").await?;
        let since = ok["at"].as_str().context("no position")?.to_owned();
        speaker.unsubscribe("quiet").await?;
        for text in MISSED {
            speaker.publish("quiet", text).await?;
        }
        let same = |name: &String| partition(name) == partition("quiet");
        let neighbour = (0..).map(|n| format!("busy-{n}")).find(same).context("some name is in the partition")?;
        let filler = "x".repeat(1000);
        let publish = |_| speaker.publish(&neighbour, &filler);
        stream::iter(0..BUSY).map(publish).buffer_unordered(64).try_collect::<Vec<_>>().await?;
        Ok(Self { speaker, neighbour, since })
    }
}

fn texts(client: &Client) -> Vec<String> {
    let text = |frame| match frame {
        tests::Frame::Message { data, .. } => Some(data),
        _ => None,
    };
    client.frames().into_iter().filter_map(text).collect()
}

/// How often the node has asked the broker for older records.
async fn read_backs(cluster: &Cluster) -> Result<u64> {
    let metrics = http::get(cluster.node_address(1), "/metrics").await?.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("fanfare_broker_read_backs_total "));
    Ok(line.context("no such metric")?.parse()?)
}
