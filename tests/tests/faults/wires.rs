//! What stands between nodes and the broker breaks: for one node or for all, with a word or without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_brokers::Direction;
use tests::{Client, PATIENCE, http};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::stage::{CHANNELS, Case, Stage};

/// `broker.heartbeat`.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How far a node that finds its link dead may be behind: it looks four times a heartbeat, and the machine is busy.
const SLACK: Duration = Duration::from_millis(1500);

pub(crate) async fn packets_that_vanish_are_noticed_within_three_heartbeats(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    let (wire, begin) = (stage.cluster.wire("node-1")?, Instant::now());
    wire.stall(&[Direction::ToBroker, Direction::FromBroker]);
    let here = |client: &Client| client.node == "node-1";
    stage.notice(true, here).await?;
    let took = begin.elapsed();
    // Open connections stay dead; new ones work.
    wire.mend();
    println!("{case}: noticed after {took:.1?}");
    ensure!(took < 3 * HEARTBEAT + SLACK + stage.slack(), "the dead link was found only after {took:?}");
    stage.notice(false, here).await?;
    stage.back().await?;
    stage.whole().await
}

pub(crate) async fn connections_reset_every_second_leave_nothing_behind(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    let nodes = ["node-1", "node-2", "node-3"].map(|node| stage.cluster.process(node));
    let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
    let count = || {
        let held = nodes.iter().map(|node| Ok((node.descriptors()?, node.threads()?)));
        held.collect::<Result<Vec<_>>>()
    };
    let before = count()?;
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..if case.whole { 60 } else { 5 } {
        second.tick().await;
        for node in ["node-1", "node-2", "node-3"] {
            let wire = stage.cluster.wire(node)?;
            wire.cut();
            wire.mend();
        }
    }
    stage.back().await?;
    let begin = Instant::now();
    loop {
        let now = count()?;
        if now.iter().zip(&before).all(|(now, before)| now.0 <= before.0 && now.1 <= before.1) {
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "descriptors and threads were {before:?} and are {now:?}");
        sleep(Duration::from_millis(100)).await;
    }
    stage.whole().await
}

pub(crate) async fn a_node_cut_from_the_broker_tells_only_its_own_clients(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.wire("node-1")?.cut();
    let (here, elsewhere) = (|client: &Client| client.node == "node-1", |client: &Client| client.node != "node-1");
    stage.notice(true, here).await?;
    http::until(stage.cluster.node_address(1), "/ready", |answer| answer.status == 503).await?;
    stage.cluster.balancer_mut().sees_up(&["node-2", "node-3"]).await?;
    for _ in 0..6 {
        let client = Client::native(&stage.cluster.gateway_url()).await?;
        ensure!(elsewhere(&client), "a node that is cut off gets new clients");
    }
    stage.flows_for(elsewhere).await?;
    stage.cluster.wire("node-1")?.mend();
    stage.notice(false, here).await?;
    stage.back().await?;
    stage.cluster.balanced().await?;
    for client in &stage.steady {
        let (notices, meant) = (Stage::notices(client), if here(client) { 2 } else { 0 });
        ensure!(notices == meant, "a client on {} has {notices} notices of the broker, not {meant}", client.node);
    }
    stage.whole().await
}

pub(crate) async fn all_nodes_that_lose_the_broker_keep_their_clients(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    for node in ["node-1", "node-2", "node-3"] {
        stage.cluster.wire(node)?.cut();
    }
    stage.notice(true, |_| true).await?;
    for node in 1..=3 {
        http::until(stage.cluster.node_address(node), "/ready", |answer| answer.status == 503).await?;
    }
    stage.cluster.balancer_mut().sees_up(&[]).await?;
    stage.late.push(Client::raw(&stage.cluster.gateway_url(), CHANNELS[0]).await.context("HAProxy routes on")?);
    for node in ["node-1", "node-2", "node-3"] {
        stage.cluster.wire(node)?.mend();
    }
    stage.notice(false, |_| true).await?;
    stage.back().await?;
    ensure!(
        stage.steady.iter().all(|client| Stage::notices(client) == 2),
        "each client is notified once of the outage, and once of its end"
    );
    stage.whole().await
}

pub(crate) async fn connections_closed_by_the_broker_lose_nothing(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    for _ in 0..3 {
        stage.cluster.broker().close_connections().await?;
        stage.back().await?;
    }
    stage.whole().await
}
