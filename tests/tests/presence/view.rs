//! What clients see of who is there, and what tests wait for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::cluster::Plan;
use tests::tokens::{Issuer, OPEN};
use tests::{Broker, Client, Cluster, Frame, PATIENCE};
use tokio::time::{sleep, timeout};

/// Between two looks at something that a node must come to know.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

pub(crate) const RULES: &str =
    r#"[{ match = "room:*", presence = "members" }, { match = "count:*", presence = "counts" }, { match = "*" }]"#;

pub(crate) fn plan(broker: Broker) -> Plan {
    let (keys, secret) = Issuer::keys();
    let plan = Cluster::of(broker.nodes()).shared(broker).apis().set("FANFARE__CHANNELS", RULES).set(keys, &secret);
    plan.set(OPEN.0, OPEN.1)
        .set("FANFARE__PRESENCE__LINGER", "3s")
        .set("FANFARE__CLUSTER__LEASE", "3s")
        .set("FANFARE__BROKER__HEARTBEAT", "500ms")
}

pub(crate) fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

pub(crate) async fn user(cluster: &Cluster, node: usize, issuer: &Issuer, user: &str) -> Result<Client> {
    Client::with_token(&url(cluster, node), &issuer.token(user, &[])?).await
}

/// Subscribes and asks who is there.
pub(crate) async fn watch(client: &Client, channel: &str) -> Result<Value> {
    let reply = client.ask(json!({ "subscribe": { "channel": channel, "presence": true } })).await?;
    Ok(reply.get("ok").with_context(|| format!("refused: {reply}"))?["presence"].clone())
}

/// What `presence` says.
pub(crate) async fn ask(client: &Client, channel: &str) -> Result<Value> {
    let reply = client.ask(json!({ "presence": { "channel": channel, "limit": 1000 } })).await?;
    Ok(reply.get("ok").with_context(|| format!("refused: {reply}"))?.clone())
}

/// Asks until a node knows of so many members, and of all nodes. Gives the answer.
pub(crate) async fn counts(client: &Client, channel: &str, count: u64) -> Result<Value> {
    let mut last = Value::Null;
    let asked = async {
        loop {
            last = ask(client, channel).await?;
            if last["count"] == count && last["partial"].is_null() {
                return Ok(last.clone());
            }
            sleep(GLANCE).await;
        }
    };
    let answer = timeout(PATIENCE, asked).await;
    answer
        .unwrap_or_else(|_| Err(anyhow::anyhow!("{count} members of {channel} are not seen")))
        .with_context(|| last.to_string())
}

pub(crate) fn names(members: &Value) -> Vec<String> {
    let name = |member: &Value| member["user"].as_str().or(member["client"].as_str()).unwrap_or_default().to_owned();
    members.as_array().into_iter().flatten().map(name).collect()
}

/// The events of a channel's members that a client has: which names came, and which left.
pub(crate) fn events(client: &Client, channel: &str) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for frame in client.frames() {
        let Frame::Other(text) = frame else { continue };
        let Ok(event) = serde_json::from_str::<Value>(&text) else { continue };
        if event["channel"] == channel {
            all.extend(names(&event["presence"]["left"]).into_iter().map(|name| (name, false)));
            all.extend(names(&event["presence"]["joined"]).into_iter().map(|name| (name, true)));
        }
    }
    all
}

/// Waits for the event that a member came or left.
pub(crate) async fn meets(client: &Client, channel: &str, name: &str, joins: bool) -> Result<()> {
    let wanted = (name.to_owned(), joins);
    let met = async {
        while !events(client, channel).contains(&wanted) {
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, met).await.with_context(|| format!("{wanted:?} is not among {:?}", events(client, channel)))
}

/// Waits until so many members have left.
pub(crate) async fn leave(client: &Client, channel: &str, count: usize) -> Result<()> {
    let left = || events(client, channel).iter().filter(|(_, joins)| !joins).count();
    let all = async {
        while left() < count {
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, all).await.with_context(|| format!("{} of {count} members have left", left()))
}

/// So many anonymous members of room:1 on one node.
pub(crate) async fn crowd(address: &str, members: usize) -> Result<Vec<Client>> {
    try_join_all((0..members).map(async |_| {
        let client = Client::native(address).await?;
        client.subscribe("room:1").await?;
        anyhow::Ok(client)
    }))
    .await
}

/// A user on each of three nodes, who watches room:1 and sees all of them.
pub(crate) async fn one_on_each(cluster: &Cluster, issuer: &Issuer) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for node in 1..=3 {
        let client = user(cluster, node, issuer, &format!("user-{node}")).await?;
        watch(&client, "room:1").await?;
        clients.push(client);
    }
    for client in &clients {
        counts(client, "room:1", 3).await?;
    }
    Ok(clients)
}

/// Only these members have left room:1, each once.
pub(crate) fn only_leave(client: &Client, names: &[&str]) -> Result<()> {
    let left: Vec<_> = events(client, "room:1").into_iter().filter(|(_, joins)| !joins).map(|(name, _)| name).collect();
    ensure!(left == names, "{left:?} have left, and not {names:?}");
    Ok(())
}
