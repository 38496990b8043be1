//! A node dies.

use anyhow::{Result, ensure};
use tests::client::Ended;
use tests::history::Run;
use tests::{Broker, Client, Cluster, Returning};

use crate::stage::{Case, Stage};

pub(crate) async fn clients_of_a_killed_node_resume_elsewhere_without_loss(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.kill_node("node-1").await?;
    let homeless = |client: &&Client| client.node == "node-1";
    for client in stage.steady.iter().chain(&stage.raw).filter(homeless) {
        let ended = client.ended().await?;
        ensure!(ended == Ended::Broken, "a killed node cannot say anything, but a client ended with {ended:?}");
    }
    let mut moved = 0;
    for client in &stage.returning {
        if client.first()?.node == "node-1" {
            client.connects(2).await?;
            moved += 1;
        }
        ensure!(client.client()?.node != "node-1");
    }
    ensure!(moved > 0, "no client was on the node");
    stage.flows().await?;
    stage.cluster.start_node("node-1").await?;
    stage.flows().await?;
    stage.came_back_whole()?;
    let elsewhere = stage.steady.iter().chain(&stage.raw).filter(|client| client.node != "node-1");
    ensure!(elsewhere.into_iter().all(Client::is_open), "all others stay");
    stage.lawful().await
}

/// The embedded log dies with its node, and clients that come back are notified.
pub(crate) async fn clients_of_a_killed_embedded_log_are_not_recovered(case: Case) -> Result<()> {
    ensure!(case.broker == Broker::Memory);
    let mut cluster = Cluster::of(1).haproxy().start().await?;
    let (url, run) = (cluster.gateway_url(), Run::on("news"));
    let client = Returning::start(&url, &["news"]).await?;
    let speaker = Client::native(&url).await?;
    for number in 0..100 {
        run.publish(&speaker, &format!("before {number}")).await?;
    }
    client.sees("before 99").await?;
    cluster.kill_node("node-1").await?;
    cluster.start_node("node-1").await?;
    client.connects(2).await?;
    let speaker = Client::native(&url).await?;
    for number in 0..100 {
        run.publish(&speaker, &format!("after {number}")).await?;
    }
    client.sees("after 99").await?;
    ensure!(client.recoveries() == [false], "{:?}", client.recoveries());
    let report = run.judge_views([client.view("news")].into_iter());
    println!("{case}: {report}");
    report.assert_lawful();
    ensure!((report.acked, report.delivered) == (200, 200), "{report}");
    cluster.well();
    Ok(())
}
