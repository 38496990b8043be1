//! HAProxy is reloaded, restarted, or gone with all clients at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use tests::{Client, Returning};
use tokio::time::{Instant, timeout};

use crate::stage::{CHANNELS, Case, Stage};

pub(crate) async fn sockets_outlive_a_reload_of_the_balancer(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.balancer_mut().reload().await?;
    stage.cluster.balanced().await?;
    let new = Client::native(&stage.cluster.gateway_url()).await?;
    ensure!(new.node.starts_with("node-"), "the new process takes clients");
    stage.flows().await?;
    stage.whole().await
}

pub(crate) async fn clients_recover_after_a_restart_of_the_balancer(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.balancer_mut().restart().await?;
    for client in stage.steady.iter().chain(&stage.raw) {
        client.ended().await?;
    }
    for client in &stage.returning {
        client.connects(2).await?;
    }
    stage.refill().await?;
    stage.flows().await?;
    stage.came_back_whole()?;
    stage.lawful().await
}

/// Clients that are cut at once.
const CROWD: usize = 200;
/// How long they may take to be back. Less than it takes nodes to find that the broker stands still.
const BACK: Duration = Duration::from_secs(5);

/// The broker stands still while they come back, so that no client can have caused a read there.
pub(crate) async fn clients_cut_all_at_once_come_back_without_the_broker(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    let url = stage.cluster.gateway_url();
    stage.crowd = try_join_all((0..CROWD).map(|_| Returning::start(&url, &CHANNELS))).await?;
    stage.flows().await?;
    stage.cluster.broker().freeze().await?;
    let begin = Instant::now();
    stage.cluster.balancer_mut().restart().await?;
    let everyone = || stage.returning.iter().chain(&stage.crowd);
    let back = try_join_all(everyone().map(|client| client.connects(2)));
    let in_time = timeout(BACK, back).await;
    let took = begin.elapsed();
    stage.cluster.broker().thaw().await?;
    let whole = everyone().flat_map(Returning::recoveries).filter(|whole| *whole).count();
    println!("{case}: {} clients are back after {took:.1?}, {whole} recoveries", everyone().count());
    ensure!(in_time.is_ok(), "not all clients came back without the broker");
    in_time??;
    stage.refill().await?;
    stage.back().await?;
    stage.came_back_whole()?;
    stage.lawful().await
}
