//! The broker dies, loses its disk, stands still, or is away for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{Client, http};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::load::PUBLISHERS;
use crate::stage::{CHANNELS, Case, Stage, last_positions};

pub(crate) async fn a_broker_killed_and_restarted_loses_nothing(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    for _ in 0..if case.whole { 3 } else { 1 } {
        stage.cluster.broker().kill().await?;
        stage.cluster.broker().start().await?;
        stage.back().await?;
    }
    stage.whole().await
}

pub(crate) async fn a_broker_killed_and_wiped_is_announced_to_every_subscriber(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    let old = last_positions(&stage.steady[0])?;
    stage.cluster.broker().kill().await?;
    stage.cluster.broker().wipe().await?;
    stage.cluster.broker().start().await?;
    stage.back().await?;
    stage.until_lost(&CHANNELS, "reset", |_| true).await?;
    stage.refill().await?;
    stage.flows().await?;
    let stranger = Client::native(&stage.cluster.gateway_url()).await?;
    for (channel, since) in CHANNELS.iter().zip(old) {
        let ok = stranger.resume(channel, &since).await?;
        ensure!(ok["recovered"] == json!(false), "a position of the old log is worth something in the new one: {ok}");
    }
    ensure!(stage.steady.iter().all(Client::is_open), "native clients stay");
    stage.lawful().await
}

pub(crate) async fn a_broker_that_stands_still_for_2_s_delivers_nothing_twice(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    let server = stage.cluster.broker();
    server.freeze().await?;
    sleep(Duration::from_secs(2)).await;
    server.thaw().await?;
    stage.back().await?;
    stage.whole().await
}

pub(crate) async fn a_broker_that_stands_still_for_30_s_leaves_publishes_unknown(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    let (server, begin) = (stage.cluster.broker(), Instant::now());
    server.freeze().await?;
    stage.load.more("unknown", PUBLISHERS, |outcomes| outcomes.unknown).await?;
    stage.notice(true, |_| true).await?;
    sleep(Duration::from_secs(30).saturating_sub(begin.elapsed())).await;
    server.thaw().await?;
    stage.back().await?;
    stage.whole().await
}

/// What may wait for the broker at a time.
const BUDGET: u64 = 2 << 20;
/// What a node may need for anything else that an outage brings.
const ROOM: u64 = 16 << 20;
/// The size of a message of the flood.
const DROP: usize = 16 << 10;
/// Publishes of a flooding client that wait for their end at a time.
const ABREAST: usize = 200;
/// The pause before it publishes again.
const AGAIN: Duration = Duration::from_millis(500);
/// CPU time that a node may spend on a broker that is away: of a core, one part in so many.
const IDLE: u32 = 10;

/// Ten minutes, scaled: the flood begins anew every 3 s, and the pause between two tries is at its longest after 2 s.
pub(crate) async fn a_broker_away_for_long_takes_neither_memory_nor_cpu_nor_sockets(case: Case) -> Result<()> {
    let stage = Stage::planned(case, |plan| plan.set("FANFARE__BROKER__IN_FLIGHT_BYTES", "2MiB")).await?;
    let length = Duration::from_secs(if case.whole { 30 } else { 5 });
    let nodes = ["node-1", "node-2", "node-3"].map(|node| stage.cluster.process(node));
    let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
    let memory = || nodes.iter().map(|node| node.memory()).collect::<Result<Vec<_>>>();
    let before = memory()?;
    stage.cluster.broker().kill().await?;
    for node in 1..=3 {
        let address = stage.cluster.node_address(node);
        http::until(address, "/ready", |answer| answer.status == 503).await?;
        ensure!(http::get(address, "/live").await?.status == 200);
    }
    stage.load.more("failed", PUBLISHERS, |outcomes| outcomes.failed + outcomes.unknown).await?;

    let flood = Flood::start(&stage).await?;
    let (begin, mut most) = (Instant::now(), before.clone());
    while begin.elapsed() < length {
        sleep(Duration::from_millis(100)).await;
        most = most.iter().zip(memory()?).map(|(most, now)| now.max(*most)).collect();
    }
    let refused = flood.stop()?;
    let grown: Vec<_> = most.iter().zip(&before).map(|(most, before)| most.saturating_sub(*before)).collect();
    println!("{case}: memory of the nodes grew by {grown:?} bytes, {refused} publishes were refused");
    ensure!(refused > 0, "the budget was never full");
    ensure!(grown.iter().all(|grown| *grown < BUDGET + ROOM), "memory grew by {grown:?} bytes");

    let cpu = || nodes.iter().map(|node| node.cpu()).collect::<Result<Vec<_>>>();
    let (begin, before) = (Instant::now(), cpu()?);
    sleep(length).await;
    let spent: Vec<_> = cpu()?.into_iter().zip(before).map(|(now, before)| now - before).collect();
    println!("{case}: in {length:?} without the broker the nodes spent {spent:?} of CPU time");
    ensure!(spent.iter().all(|spent| *spent < begin.elapsed() / IDLE), "the nodes spent {spent:?} in {length:?}");

    stage.cluster.broker().start().await?;
    stage.back().await?;
    stage.whole().await
}

/// Large publishes at every node, more than may wait.
struct Flood {
    refused: Arc<AtomicUsize>,
    tasks: JoinSet<Result<()>>,
}

impl Flood {
    async fn start(stage: &Stage) -> Result<Self> {
        let mut flood = Self { refused: Arc::default(), tasks: JoinSet::new() };
        for node in 1..=3 {
            let client = Arc::new(Client::native(&stage.node(node)).await?);
            for _ in 0..ABREAST {
                let (client, refused) = (Arc::clone(&client), Arc::clone(&flood.refused));
                flood.tasks.spawn(async move {
                    let command = json!({ "publish": { "channel": "flood", "data": "x".repeat(DROP) } });
                    loop {
                        let reply = client.ask(command.clone()).await?;
                        if reply["error"]["code"] == json!("overloaded") {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        sleep(AGAIN).await;
                    }
                });
            }
        }
        Ok(flood)
    }

    /// Ends, and says how many publishes were refused for want of room.
    fn stop(mut self) -> Result<usize> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        Ok(self.refused.load(Ordering::Relaxed))
    }
}
