//! Where HAProxy sends clients when nodes lose their broker: one alone is left out, all together go on.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tests::{Client, Cluster, Frame, http};

/// More connections than there are nodes: each gets some.
const CLIENTS: usize = 12;

async fn connected(url: &str) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::native(url).await?);
    }
    Ok(clients)
}

fn nodes(clients: &[Client]) -> BTreeSet<&str> {
    clients.iter().map(|client| client.node.as_str()).collect()
}

async fn notice(client: &Client, degraded: bool) -> Result<()> {
    let text = format!("{{\"degraded\":{degraded}}}");
    client.meets("the notice", |frame| *frame == Frame::Other(text.clone())).await.map(drop)
}

#[tokio::test]
async fn while_no_node_has_a_broker_clients_still_connect_and_get_degraded() -> Result<()> {
    let mut cluster = Cluster::of(3).echo(2).redis().haproxy().start().await?;
    let url = cluster.gateway_url();
    let before = connected(&url).await?;
    before[0].subscribe("news").await?;
    cluster.broker().kill().await?;
    cluster.balancer_mut().sees_up(&[]).await?;

    let during = connected(&url).await?;
    assert_eq!(nodes(&during), BTreeSet::from(["node-1", "node-2", "node-3"]));
    for client in before.iter().chain(&during) {
        notice(client, true).await?;
    }
    during[0].subscribe("news").await?;
    let raw = Client::raw(&url, "news").await?;
    let echo = Client::echo(&cluster.echo_url()).await?;
    assert_eq!(http::get(cluster.balancer().echo(), "/ws").await?.status, 200);
    assert_eq!(http::get(cluster.balancer().statistics(), "/up").await?.status, 200);

    cluster.broker().start().await?;
    for client in before.iter().chain(&during) {
        notice(client, false).await?;
    }
    cluster.balanced().await?;
    during[1].publish("news", "as before").await?;
    for client in [&before[0], &during[0], &raw] {
        client.sees("as before").await?;
    }
    let all = before.iter().chain(&during).chain([&raw, &echo]);
    assert!(all.into_iter().all(Client::is_open), "every socket is still open");
    assert_eq!(nodes(&connected(&url).await?), BTreeSet::from(["node-1", "node-2", "node-3"]));
    Ok(())
}

#[tokio::test]
async fn a_node_that_alone_loses_its_broker_gets_no_new_clients_and_keeps_its_own() -> Result<()> {
    let mut cluster = Cluster::of(3).redis().haproxy().start().await?;
    let url = cluster.gateway_url();
    let before = connected(&url).await?;
    assert_eq!(nodes(&before), BTreeSet::from(["node-1", "node-2", "node-3"]));
    let own = |client: &&Client| client.node == "node-3";

    cluster.wire("node-3")?.cut();
    cluster.balancer_mut().sees_up(&["node-1", "node-2"]).await?;
    assert_eq!(nodes(&connected(&url).await?), BTreeSet::from(["node-1", "node-2"]));
    for client in before.iter().filter(own) {
        notice(client, true).await?;
    }

    cluster.wire("node-3")?.mend();
    for client in before.iter().filter(own) {
        notice(client, false).await?;
    }
    cluster.balanced().await?;
    let notified = |client: &&Client| client.frames().iter().any(|frame| matches!(frame, Frame::Other(_)));
    assert_eq!(
        before.iter().filter(notified).count(),
        before.iter().filter(own).count(),
        "no other client is notified"
    );
    assert!(before.iter().all(Client::is_open), "every socket is still open");
    let mut after = Vec::new();
    // It gets its share slowly.
    while !nodes(&after).contains("node-3") {
        ensure!(after.len() < 50 * CLIENTS, "node-3 gets no client out of {} new ones", after.len());
        after.append(&mut connected(&url).await?);
    }
    Ok(())
}
