//! Clients that stop reading, beside others that do not.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use futures_util::future::try_join_all;
use tests::Cluster;
use tests::latency::Beat;
use tests::lateness::Lateness;
use tests::measure::Process;
use tests::wire::{Frame, Wire};

use crate::flood::Flood;
use crate::stage::{Case, Stage};

/// Clients on all nodes.
const ALL: usize = 100;
const BEAT: Beat = Beat { channel: "stalls", messages: 150, pace: Duration::from_millis(20), size: 2048 };
/// How much longer the others may wait.
const FACTOR: f64 = 1.2;
/// And so much longer: what two measurements of the same on a busy machine differ by.
const NOISE: Duration = Duration::from_millis(10);
/// And so much longer where a flood is sent and read on the same machine.
const CROWDED: Duration = Duration::from_millis(50);
/// Measurements. Whatever else runs on this machine only ever adds to a delay, and not to each of them.
const TRIES: usize = 3;
/// What a node may need for its stalled clients: outboxes, and what surrounds them.
const ROOM: u64 = 16 << 20;

pub(crate) async fn one_reader_in_100_that_stalls_is_ended_unnoticed(case: Case) -> Result<()> {
    stalled(case, ALL / 100).await
}

pub(crate) async fn half_of_the_readers_that_stall_are_ended_unnoticed(case: Case) -> Result<()> {
    stalled(case, ALL / 2).await
}

pub(crate) async fn sockets_that_join_and_leave_without_an_end_are_unnoticed(case: Case) -> Result<()> {
    const CHURNERS: usize = 4;
    let mut cluster = Cluster::of(1).broker(case.broker).start().await?;
    let address = cluster.node_address(1);
    let churn: Vec<u8> = (0..1000)
        .flat_map(|n| {
            let join = format!(r#"{{"subscribe":{{"channel":"room-{}"}}}}"#, n % 50);
            let leave = format!(r#"{{"unsubscribe":{{"channel":"room-{}"}}}}"#, n % 50);
            [Frame::text(join).bytes(), Frame::text(leave).bytes()].concat()
        })
        .collect();
    let mut others = try_join_all((0..20).map(|_| Wire::open(address, "/raw/stalls"))).await?;
    let mut tries = Vec::new();
    while tries.len() < TRIES {
        let (alone, beside);
        (others, alone) = BEAT.p99(address, others).await?;
        let churners = Flood::begin(address, &churn, CHURNERS)?;
        let machine = Lateness::watch();
        (others, beside) = BEAT.p99(address, others).await?;
        churners.end()?;
        println!("{case}: p99 of the others {alone:.1?}, beside {CHURNERS} of them {beside:.1?}");
        if beside <= alone.mul_f64(FACTOR) + CROWDED + machine.longest() {
            cluster.well();
            return Ok(());
        }
        tries.push((alone, beside));
    }
    bail!("the others wait: {tries:?}")
}

async fn stalled(case: Case, count: usize) -> Result<()> {
    let limits = [("FANFARE__LIMITS__MESSAGE", "16KiB"), ("FANFARE__LIMITS__OUTBOX", "32KiB")];
    let plan = |plan| limits.iter().fold(plan, |plan: tests::cluster::Plan, (name, value)| plan.set(name, value));
    let mut stage = Stage::planned(case, plan).await?;
    let addresses = [1, 2, 3].map(|node| stage.cluster.node_address(node));
    let address = |number: usize| addresses[number % addresses.len()];
    let nodes = ["node-1", "node-2", "node-3"].map(|node| stage.cluster.process(node));
    let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
    let mut others = try_join_all((count..ALL).map(|number| Wire::open(address(number), "/raw/stalls"))).await?;
    let mut tries = Vec::new();
    while tries.len() < TRIES {
        let (alone, beside);
        (others, alone) = BEAT.p99(address(0), others).await?;
        let before = memory(&nodes)?;
        let narrow = async |number| Wire::narrow(address(number)).await?.upgraded("/raw/stalls").await;
        let stalled = try_join_all((0..count).map(narrow)).await?;
        let machine = Lateness::watch();
        (others, beside) = BEAT.p99(address(0), others).await?;
        let grown: Vec<_> =
            memory(&nodes)?.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
        for (number, mut wire) in stalled.into_iter().enumerate() {
            let name = format!("node-{}", number % 3 + 1);
            let line = stage.cluster.line(&name, &format!("peer={} ", wire.local())).await?;
            ensure!(line.contains("reason=\"too_slow\" code=4410"), "{line}");
            let end = wire.end().await?;
            ensure!(
                end.reset || end.code == Some(4410),
                "it got neither a reset nor 4410: {:?} {}",
                end.code,
                end.reason
            );
        }
        println!("{case}: p99 of the others {alone:.1?}, {beside:.1?} beside those; memory grew by {grown:?}");
        ensure!(grown.iter().all(|grown| *grown < ROOM), "memory grew by {grown:?} bytes");
        if beside <= alone.mul_f64(FACTOR) + NOISE + machine.longest() {
            return stage.whole().await;
        }
        tries.push((alone, beside));
    }
    bail!("the others wait: {tries:?}")
}

fn memory(nodes: &[Process]) -> Result<Vec<u64>> {
    nodes.iter().map(|node| node.memory()).collect()
}
