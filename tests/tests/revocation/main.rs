//! Rights that end before their token does, because the token is revoked or a new one allows less: on every node, also on one
//! that starts afterwards.

mod coming_and_going;
mod flow;
mod member;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tests::tokens::Issuer;
use tests::wire::{Head, Wire};
use tests::{Broker, Cluster};
use tokio::process::Command;

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_revoked_user_is_closed_on_all_nodes_within_a_second_and_a_later_node_knows_it,
} }

/// The close code of a client without a valid token.
const UNAUTHORISED: Option<u16> = Some(4401);

async fn handshake(cluster: &Cluster, node: usize, token: &str) -> Result<(Wire, u16)> {
    let mut wire = Wire::connect(cluster.node_address(node)).await?;
    wire.send(Head::upgrade("/ws").with("Authorization", format!("Bearer {token}")).bytes()).await?;
    let status = wire.response().await?.status;
    Ok((wire, status))
}

async fn open(cluster: &Cluster, node: usize, token: &str) -> Result<Wire> {
    let (wire, status) = handshake(cluster, node, token).await?;
    assert_eq!(status, 101);
    Ok(wire)
}

/// Runs `fanfare revoke` with the cluster's broker.
async fn revoke(cluster: &Cluster, flags: &[&str]) -> Result<()> {
    let mut command = Command::new(tests::binary("fanfare")?);
    command.arg("revoke").args(flags).args(["--broker", &cluster.broker_url()]);
    let output = command.output().await.context("cannot run fanfare revoke")?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn a_revoked_user_is_closed_on_all_nodes_within_a_second_and_a_later_node_knows_it(broker: Broker) -> Result<()> {
    let issuer = Issuer::new()?;
    let (variable, keys) = Issuer::keys();
    let mut cluster = Cluster::of(3).shared(broker).set(variable, &keys).start().await?;
    let (ann, bob) = (issuer.token("ann", &[])?, issuer.token("bob", &[])?);
    let mut of_ann = [open(&cluster, 1, &ann).await?, open(&cluster, 2, &ann).await?];
    let mut of_bob = open(&cluster, 2, &bob).await?;
    cluster.kill_node("node-3").await?;
    revoke(&cluster, &["--user", "ann"]).await?;
    let begin = Instant::now();
    for wire in &mut of_ann {
        let end = wire.end().await?;
        assert_eq!(end.code, UNAUTHORISED, "{end:?}");
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    cluster.start_node("node-3").await?;
    for node in 1..=3 {
        assert_eq!(handshake(&cluster, node, &ann).await?.1, 401, "node {node} lets a revoked token in");
    }
    assert_eq!(of_bob.ask(&json!({ "id": 1, "ping": {} }).to_string()).await?["ok"], json!({}));
    // The revocation is of tokens issued until then, in whole seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(open(&cluster, 3, &issuer.token("ann", &[])?).await?);
    revoke(&cluster, &["--everyone"]).await?;
    assert_eq!(of_bob.end().await?.code, UNAUTHORISED);
    Ok(())
}
