//! What a backend orders for connections of all nodes: a disconnect or an unsubscribe, asked of one node, is carried out by each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::api::Api;
use tests::events::Events;
use tests::tokens::Issuer;
use tests::wire::{Head, Wire};
use tests::{Broker, Client, Cluster, Ended, Frame, PATIENCE, http};
use tokio::time::sleep;

tests::on_brokers! { memory Memory, redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_user_is_disconnected_on_all_nodes_with_every_protocol_and_others_stay,
    a_client_is_disconnected_by_its_id_and_may_be_asked_to_reconnect,
    a_users_subscriptions_end_on_all_nodes_by_channel_or_pattern,
} }

// The log in memory ends with its node.
tests::on_brokers! { redis_restarts Redis, kafka_restarts Kafka, rabbitmq_restarts RabbitMq: {
    a_node_that_starts_later_does_not_repeat_a_disconnect,
} }

/// Ended by the backend, and not to come back.
const DISCONNECTED: u16 = 4403;
/// To reconnect, and resume.
const RECONNECT: u16 = 1012;

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(20);

/// A cluster, and tokens for its users.
struct Room {
    cluster: Cluster,
    issuer: Issuer,
    nodes: usize,
}

impl Room {
    async fn open(broker: Broker, echo: usize) -> Result<Self> {
        let (variable, keys) = Issuer::keys();
        let nodes = broker.nodes();
        let plan = Cluster::of(nodes).echo(echo).shared(broker).apis().set(variable, &keys);
        Ok(Self { cluster: plan.start().await?, issuer: Issuer::new()?, nodes })
    }

    /// The node of a number, counted round.
    fn node(&self, number: usize) -> usize {
        number % self.nodes + 1
    }

    fn token(&self, user: &str) -> Result<String> {
        self.issuer.token(user, &["--channel", "*", "--can", "subscribe,publish"])
    }

    async fn native(&self, number: usize, user: &str) -> Result<Client> {
        let url = format!("http://{}", self.cluster.node_address(self.node(number)));
        Client::with_token(&url, &self.token(user)?).await
    }

    async fn raw(&self, number: usize, user: &str) -> Result<Wire> {
        socket(self.cluster.node_address(self.node(number)), "/raw/news", &self.token(user)?).await
    }

    async fn stream(&self, number: usize, user: &str) -> Result<Events> {
        let bearer = format!("Bearer {}", self.token(user)?);
        let address = self.cluster.node_address(self.node(number));
        let mut events = Events::open(address, "/sse/news", &[("Authorization", &bearer)]).await?;
        events.placed().await?;
        Ok(events)
    }

    fn api(&self) -> Result<Api> {
        self.cluster.api(1)
    }

    /// Orders something of the first node, and waits until each node has read it.
    async fn order(&self, path: &str, body: &Value) -> Result<()> {
        let (status, answer) = self.api()?.post(path, body).await?;
        ensure!(status == 200, "{status}: {answer}");
        let Some(at) = answer["at"].as_str() else { return Ok(()) };
        let begin = Instant::now();
        for node in 1..=self.nodes {
            while !self.has_read(node, at).await? {
                ensure!(begin.elapsed() < PATIENCE, "node {node} does not read {at}");
                sleep(GLANCE).await;
            }
        }
        Ok(())
    }

    async fn has_read(&self, node: usize, at: &str) -> Result<bool> {
        let (_, document) = self.cluster.api(node)?.get("/v1/nodes").await?;
        let this = document["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["this"] == true));
        Ok(this.and_then(|node| node["read"].as_str()).is_some_and(|read| read >= at))
    }
}

async fn socket(address: SocketAddr, path: &str, token: &str) -> Result<Wire> {
    let mut wire = Wire::connect(address).await?;
    wire.send(Head::upgrade(path).with("Authorization", format!("Bearer {token}")).bytes()).await?;
    ensure!(wire.response().await?.status == 101);
    Ok(wire)
}

fn ended(ended: &Ended, code: u16) -> Result<()> {
    ensure!(matches!(ended, Ended::Closed(found, _) if *found == code), "{ended:?}");
    Ok(())
}

async fn a_user_is_disconnected_on_all_nodes_with_every_protocol_and_others_stay(broker: Broker) -> Result<()> {
    let mut room = Room::open(broker, usize::from(broker != Broker::Memory)).await?;
    let natives = [room.native(0, "ann").await?, room.native(1, "ann").await?];
    let mut raw = room.raw(2, "ann").await?;
    let mut stream = room.stream(0, "ann").await?;
    let others = [room.native(0, "bob").await?, room.native(2, "bob").await?];
    let mut of_app = None;
    if broker != Broker::Memory {
        of_app = Some(socket(room.cluster.echo_address(1), "/ws/echo", &room.token("ann")?).await?);
    }
    room.order("/v1/users/ann/disconnect", &json!({})).await?;
    for client in &natives {
        ended(&client.ended().await?, DISCONNECTED)?;
    }
    for wire in [Some(&mut raw), of_app.as_mut()].into_iter().flatten() {
        let end = wire.end().await?;
        ensure!(end.code == Some(DISCONNECTED), "{end:?}");
    }
    let last = stream.event().await?;
    let what: Value = serde_json::from_str(&last.data)?;
    ensure!(last.name == "close" && what["code"] == DISCONNECTED && what["reconnect"] == false, "{last:?}");
    for client in &others {
        client.ask(json!({ "ping": {} })).await?;
    }
    // It is no revocation: the user may come back.
    room.native(1, "ann").await?.ask(json!({ "ping": {} })).await?;
    room.cluster.well();
    Ok(())
}

async fn a_client_is_disconnected_by_its_id_and_may_be_asked_to_reconnect(broker: Broker) -> Result<()> {
    let mut room = Room::open(broker, 0).await?;
    for (body, code) in [(json!({}), DISCONNECTED), (json!({ "reconnect": true }), RECONNECT)] {
        let (one, other) = (room.native(2, "ann").await?, room.native(2, "ann").await?);
        let reply = one.ask(json!({ "connect": {} })).await?;
        let id = reply["ok"]["client"].as_str().with_context(|| format!("no id: {reply}"))?;
        room.order(&format!("/v1/clients/{id}/disconnect"), &body).await?;
        ended(&one.ended().await?, code)?;
        other.ask(json!({ "ping": {} })).await?;
    }
    for unknown in ["AAAAAAAAAAAAAAAB", "no-id", "x"] {
        room.order(&format!("/v1/clients/{unknown}/disconnect"), &json!({})).await?;
    }
    room.cluster.well();
    Ok(())
}

/// Waits until a channel's subscription has ended for the reason that the backend's order gives.
async fn loses(client: &Client, channel: &str) -> Result<()> {
    let gone = |frame: &Frame| matches!(frame, Frame::Unsubscribed { channel: found, reason } if found == channel && reason == "removed");
    client.meets(&format!("the end of {channel}"), gone).await.map(drop)
}

async fn a_users_subscriptions_end_on_all_nodes_by_channel_or_pattern(broker: Broker) -> Result<()> {
    let mut room = Room::open(broker, 0).await?;
    let clients = [room.native(0, "ann").await?, room.native(1, "ann").await?, room.native(2, "bob").await?];
    for client in &clients {
        for channel in ["chat:1", "chat:2", "chat:3", "news"] {
            client.subscribe(channel).await?;
        }
    }
    let (mut stream, mut raw) = (room.stream(2, "ann").await?, room.raw(0, "ann").await?);
    room.order("/v1/users/ann/unsubscribe", &json!({ "channel": "chat:1" })).await?;
    for client in &clients[..2] {
        loses(client, "chat:1").await?;
    }
    room.order("/v1/users/ann/unsubscribe", &json!({ "match": "chat:*" })).await?;
    for client in &clients[..2] {
        loses(client, "chat:2").await?;
        loses(client, "chat:3").await?;
    }
    let publishes = ["chat:1", "chat:2", "news"].map(|channel| json!({ "channel": channel, "data": channel }));
    room.api()?.post("/v1/batch", &json!({ "messages": publishes })).await?;
    for client in &clients {
        client.sees("news").await?;
    }
    ensure!(clients[0].count() == 1 && clients[1].count() == 1, "{:?}", clients[0].frames());
    clients[2].sees("chat:2").await?;
    ensure!(stream.event().await?.data == "news");
    // It may subscribe again: its rights are as before.
    clients[0].subscribe("chat:1").await?;
    room.order("/v1/users/ann/unsubscribe", &json!({ "channel": "news" })).await?;
    let last = stream.event().await?;
    ensure!(last.name == "unsubscribed" && last.data.contains("removed"), "{last:?}");
    let end = raw.end().await?;
    ensure!(end.code == Some(DISCONNECTED), "a raw socket has no other word: {end:?}");
    room.cluster.well();
    Ok(())
}

async fn a_node_that_starts_later_does_not_repeat_a_disconnect(broker: Broker) -> Result<()> {
    let mut room = Room::open(broker, 0).await?;
    room.order("/v1/users/ann/disconnect", &json!({})).await?;
    let last = format!("node-{}", room.nodes);
    room.cluster.kill_node(&last).await?;
    room.cluster.launch_node(&last).await?;
    // It is let in as soon as the node may, which has yet to read that record or has just read it.
    let begin = Instant::now();
    let client = loop {
        match room.native(room.nodes - 1, "ann").await {
            Ok(client) => break client,
            Err(error) => ensure!(begin.elapsed() < PATIENCE, "{error:#}"),
        }
        sleep(GLANCE).await;
    };
    http::until(room.cluster.node_address(room.nodes), "/ready", |answer| answer.status == 200).await?;
    client.subscribe("news").await?;
    client.ask(json!({ "ping": {} })).await?;
    room.cluster.well();
    Ok(())
}
