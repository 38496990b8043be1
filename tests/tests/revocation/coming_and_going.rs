//! Rights that come and go while messages flow, judged by the law: no message without the right, and none missed with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tests::history::Run;
use tests::lateness::Lateness;
use tests::tokens::Issuer;
use tests::{Broker, Client, Cluster, Ended, PATIENCE};
use tokio::time::{interval, timeout};

use super::flow::Flow;
use super::member::Member;
use super::{UNAUTHORISED, handshake, revoke};

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq, memory Memory: {
    rights_that_come_and_go_by_refresh_are_kept_on_all_nodes,
} }

// `fanfare revoke` needs a broker that it can reach.
tests::on_brokers! { redis_revocations Redis, kafka_revocations Kafka, rabbitmq_revocations RabbitMq: {
    rights_that_come_and_go_by_revocation_are_kept_on_all_nodes,
} }

/// How often each member loses its right and gets it back.
const ROUNDS: usize = 6;
/// How long a revocation may take to act on all nodes.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A cluster with messages that flow, and a token that allows all of it.
struct Room {
    cluster: Cluster,
    issuer: Issuer,
    run: Arc<Run>,
    flow: Flow,
    members: Vec<Member>,
    /// Members that do not get their right back.
    away: Vec<Member>,
    /// Clients that keep their right, one on each node with members.
    steady: Vec<Client>,
    all: String,
}

impl Room {
    /// Two members of one user on each of so many nodes, and messages that flow through the first node.
    async fn open(broker: Broker, nodes: usize) -> Result<Self> {
        let issuer = Issuer::new()?;
        let (variable, keys) = Issuer::keys();
        let cluster = Cluster::of(broker.nodes()).shared(broker).set(variable, &keys).start().await?;
        let all = issuer.token("ann", &["--channel", "*", "--can", "subscribe,publish"])?;
        let (run, began, other) = (Arc::new(Run::on("room")), Instant::now(), issuer.token("bob", &[])?);
        let (mut members, mut steady) = (Vec::new(), Vec::new());
        for node in 1..=nodes {
            let url = url(&cluster, node);
            for _ in 0..2 {
                members.push(Member::join(&run, began, &url, &all).await?);
            }
            steady.push(Client::with_token(&url, &other).await?);
            steady[node - 1].subscribe(run.channel()).await?;
        }
        let speaker = Client::with_token(&url(&cluster, 1), &other).await?;
        let flow = Flow::start(Arc::clone(&run), speaker);
        Ok(Self { cluster, issuer, run, flow, members, away: Vec::new(), steady, all })
    }

    /// Stops the flow, waits until all who have the right have everything, and judges what was met.
    async fn judge(self) -> Result<()> {
        let last = self.flow.stop().await?;
        for client in self.members.iter().map(Member::client).chain(&self.steady) {
            client.sees(&last).await?;
        }
        let steady = self.steady.iter().map(|client| self.run.view(client));
        let report = self.run.judge_views(self.members.iter().chain(&self.away).map(Member::view).chain(steady));
        report.assert_whole();
        Ok(())
    }
}

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

async fn rights_that_come_and_go_by_refresh_are_kept_on_all_nodes(broker: Broker) -> Result<()> {
    let mut room = Room::open(broker, broker.nodes()).await?;
    let fewer = room.issuer.token("ann", &["--channel", "lobby", "--can", "subscribe"])?;
    let (flow, all) = (&room.flow, &room.all);
    try_join_all(room.members.iter_mut().map(async |member| {
        for _ in 0..ROUNDS {
            flow.more(fastrand::usize(1..40)).await?;
            member.loses_the_right(&fewer).await?;
            flow.more(fastrand::usize(1..40)).await?;
            member.regains_the_right(all).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    let member = room.members.swap_remove(0);
    member.loses_the_right(&fewer).await?;
    room.away.push(member);
    room.flow.more(100).await?;
    room.judge().await
}

async fn rights_that_come_and_go_by_revocation_are_kept_on_all_nodes(broker: Broker) -> Result<()> {
    let mut room = Room::open(broker, 2).await?;
    let lateness = Lateness::watch();
    // A node that is not there when the tokens are revoked.
    room.cluster.kill_node("node-3").await?;
    room.is_revoked(&lateness).await?;
    room.cluster.start_node("node-3").await?;
    room.returns().await?;
    // Now there is a member on each node.
    room.is_revoked(&lateness).await?;
    room.returns().await?;
    room.judge().await
}

impl Room {
    /// Revokes the tokens of all members, and lets messages flow for longer than that may take.
    async fn is_revoked(&mut self, lateness: &Lateness) -> Result<()> {
        self.flow.more(20).await?;
        revoke(&self.cluster, &["--user", "ann"]).await?;
        let acknowledged = Instant::now();
        for member in &self.members {
            let ended = member.client().ended().await?;
            ensure!(matches!(ended, Ended::Closed(code, _) if Some(code) == UNAUTHORISED), "{ended:?}");
        }
        while acknowledged.elapsed() < AT_ONCE {
            self.flow.more(10).await?;
        }
        self.flow.more(50).await?;
        let within = AT_ONCE + lateness.longest();
        self.members.iter_mut().for_each(|member| member.was_revoked(acknowledged, within));
        Ok(())
    }

    /// All members but one come back with a new token, on another node each.
    async fn returns(&mut self) -> Result<()> {
        for node in 1..=3 {
            let (_, status) = handshake(&self.cluster, node, &self.all).await?;
            ensure!(status == 401, "node {node} lets a revoked token in: {status}");
        }
        self.all = valid_again(self).await?;
        self.away.push(self.members.swap_remove(0));
        for (node, member) in (1..).zip(&mut self.members) {
            member.returns(&url(&self.cluster, node), &self.all).await?;
        }
        self.flow.more(20).await
    }
}

/// A token that the last revocation does not concern: it was issued in a later second.
async fn valid_again(room: &Room) -> Result<String> {
    let mut again = interval(Duration::from_millis(100));
    let valid = async {
        loop {
            again.tick().await;
            let token = room.issuer.token("ann", &["--channel", "*", "--can", "subscribe,publish"])?;
            if handshake(&room.cluster, 3, &token).await?.1 == 101 {
                return Ok(token);
            }
        }
    };
    timeout(PATIENCE, valid).await.context("no token is accepted after the revocation")?
}
