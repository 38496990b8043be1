//! Which nodes live, as `GET /v1/nodes` of each node says it: after a crash, a pause, a stop, and outages of the broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use real_brokers::signal;
use serde_json::{Value, json};
use tests::cluster::Plan;
use tests::lateness::Lateness;
use tests::{Broker, Cluster, PATIENCE, http};
use tokio::time::{sleep, timeout};

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_killed_node_is_gone_on_all_others_within_two_leases_and_is_another_one_when_it_starts_again,
    a_node_that_was_stopped_for_longer_than_its_lease_is_gone_and_comes_back_with_a_new_life,
    a_node_that_drains_is_seen_to_and_is_gone_when_it_has_ended,
} }

// Starting these brokers takes seconds, so each outage has a test of its own.
tests::on_brokers! { redis_outages Redis, rabbitmq_outages RabbitMq: {
    no_node_is_gone_because_the_broker_was_away_for_longer_than_a_lease,
    no_node_is_gone_because_the_log_was_wiped,
} }

tests::on_brokers! { redis_silence Redis, kafka_outages Kafka: {
    no_node_is_gone_because_the_broker_did_not_answer_for_longer_than_a_lease,
} }

/// A short lease, for promises that do not depend on it.
const LEASE: Duration = Duration::from_secs(3);
/// A lease that no pause of a busy machine comes near, where no node may be gone.
const LONG: Duration = Duration::from_secs(8);
/// Between two looks.
const GLANCE: Duration = Duration::from_millis(50);

fn plan(nodes: usize, lease: Duration) -> Plan {
    let heartbeat = format!("{}ms", lease.as_millis() / 8);
    let lease = format!("{}ms", lease.as_millis());
    Cluster::of(nodes).apis().set("FANFARE__CLUSTER__LEASE", &lease).set("FANFARE__BROKER__HEARTBEAT", &heartbeat)
}

/// The nodes by their names, as one node has them.
type View = BTreeMap<String, Value>;

async fn view(cluster: &Cluster, node: usize) -> Result<(View, bool)> {
    let (status, document) = cluster.api(node)?.get("/v1/nodes").await?;
    ensure!(status == 200, "{status}: {document}");
    let nodes = document["nodes"].as_array().context("a list")?;
    let named = |node: &Value| Some((node["name"].as_str()?.to_owned(), node.clone()));
    ensure!(nodes.iter().filter(|node| node["this"] == true).count() <= 1, "{document}");
    Ok((nodes.iter().filter_map(named).collect(), document["complete"] == true))
}

/// Waits until these nodes see what is wanted.
async fn all_see(cluster: &Cluster, nodes: &[usize], what: &str, wanted: impl Fn(&View, bool) -> bool) -> Result<()> {
    let begin = Instant::now();
    for &node in nodes {
        loop {
            let (view, complete) = view(cluster, node).await?;
            if wanted(&view, complete) {
                break;
            }
            if begin.elapsed() > PATIENCE {
                bail!("node {node} does not see {what}: {view:?}, {complete}");
            }
            sleep(GLANCE).await;
        }
    }
    Ok(())
}

async fn all_see_all(cluster: &Cluster, nodes: &[usize]) -> Result<()> {
    let count = nodes.len();
    all_see(cluster, nodes, "all nodes", |view, complete| view.len() == count && complete).await
}

fn life(view: &View, name: &str) -> Option<(String, u64)> {
    let node = view.get(name)?;
    Some((node["id"].as_str()?.to_owned(), node["incarnation"].as_u64()?))
}

async fn lives(cluster: &Cluster, node: usize) -> Result<Vec<Option<(String, u64)>>> {
    let (view, _) = view(cluster, node).await?;
    Ok((1..=3).map(|number| life(&view, &format!("node-{number}"))).collect())
}

async fn a_killed_node_is_gone_on_all_others_within_two_leases_and_is_another_one_when_it_starts_again(
    broker: Broker,
) -> Result<()> {
    let mut cluster = plan(3, LEASE).shared(broker).start().await?;
    all_see_all(&cluster, &[1, 2, 3]).await?;
    let before = lives(&cluster, 1).await?;
    let (begin, lateness) = (Instant::now(), Lateness::watch());
    cluster.kill_node("node-3").await?;
    all_see(&cluster, &[1, 2], "that node-3 is gone", |view, _| !view.contains_key("node-3")).await?;
    let took = begin.elapsed();
    ensure!(took < 2 * LEASE + lateness.longest(), "{took:?}");
    let metrics = http::get(cluster.node_address(1), "/metrics").await?.body;
    ensure!(metrics.contains("\nfanfare_nodes 2\n"), "{metrics}");
    cluster.start_node("node-3").await?;
    all_see_all(&cluster, &[1, 2, 3]).await?;
    let after = lives(&cluster, 3).await?;
    ensure!(before[..2] == after[..2] && before[2] != after[2], "{before:?} {after:?}");
    cluster.well();
    Ok(())
}

async fn a_node_that_was_stopped_for_longer_than_its_lease_is_gone_and_comes_back_with_a_new_life(
    broker: Broker,
) -> Result<()> {
    let mut cluster = plan(3, LEASE).shared(broker).start().await?;
    all_see_all(&cluster, &[1, 2, 3]).await?;
    let before = lives(&cluster, 1).await?;
    let stopped = cluster.process("node-3")?.pid;
    signal(stopped, "STOP").await?;
    all_see(&cluster, &[1, 2], "that node-3 is gone", |view, _| !view.contains_key("node-3")).await?;
    // For much longer than its lease.
    sleep(2 * LEASE).await;
    signal(stopped, "CONT").await?;
    let again = |view: &View, _| life(view, "node-3").is_some_and(|(_, incarnation)| incarnation == 2);
    all_see(&cluster, &[1, 2, 3], "that node-3 is back", again).await?;
    cluster.line("node-3", "it joins them again").await?;
    // What it might still declare of the others would be seen by then.
    sleep(LEASE).await;
    all_see_all(&cluster, &[1, 2, 3]).await?;
    for node in 1..=3 {
        let after = lives(&cluster, node).await?;
        let third = before[2].clone().map(|(id, _)| (id, 2));
        ensure!(after[..2] == before[..2] && after[2] == third, "node {node}: {before:?} {after:?}");
    }
    cluster.well();
    Ok(())
}

async fn a_node_that_drains_is_seen_to_and_is_gone_when_it_has_ended(broker: Broker) -> Result<()> {
    // No lease ends during this test, so the node itself must say it.
    let lease = Duration::from_secs(600);
    let plan = plan(3, lease).set("FANFARE__BROKER__HEARTBEAT", "1s").set("FANFARE__TIMING__DRAIN_WAIT", "1s");
    let mut cluster = plan.shared(broker).start().await?;
    all_see(&cluster, &[1, 2, 3], "three nodes", |view, _| view.len() == 3).await?;
    signal(cluster.process("node-3")?.pid, "TERM").await?;
    all_see(&cluster, &[1, 2], "that node-3 drains", |view, _| {
        view.get("node-3").is_none_or(|node| node["draining"] == true)
    })
    .await?;
    cluster.stopped("node-3").await?;
    all_see(&cluster, &[1, 2], "that node-3 is gone", |view, _| view.len() == 2).await?;
    let output = cluster.output("node-1")?;
    ensure!(!output.contains("counts as gone"), "{output}");
    cluster.well();
    Ok(())
}

/// A cluster on a broker of its own, which all nodes know. After `outage` each must know the same lives.
async fn nobody_is_gone_after(broker: Broker, outage: impl AsyncFnOnce(&Cluster) -> Result<()>) -> Result<()> {
    let mut cluster = plan(3, LONG).broker(broker).start().await?;
    all_see_all(&cluster, &[1, 2, 3]).await?;
    let before = lives(&cluster, 1).await?;
    outage(&cluster).await?;
    // A node that has read for a lease without a break has found all that it could find gone.
    all_see(&cluster, &[1, 2, 3], "the end of the outage", |_, complete| !complete).await?;
    all_see_all(&cluster, &[1, 2, 3]).await?;
    for node in 1..=3 {
        let after = lives(&cluster, node).await?;
        ensure!(after == before, "node {node}: {before:?} {after:?}");
        let output = cluster.output(&format!("node-{node}"))?;
        ensure!(!output.contains("counts as gone"), "{output}");
    }
    cluster.well();
    Ok(())
}

async fn no_node_is_gone_because_the_broker_was_away_for_longer_than_a_lease(broker: Broker) -> Result<()> {
    nobody_is_gone_after(broker, async |cluster| {
        cluster.broker().kill().await?;
        sleep(LONG + LONG / 2).await;
        cluster.broker().start().await
    })
    .await
}

async fn no_node_is_gone_because_the_log_was_wiped(broker: Broker) -> Result<()> {
    nobody_is_gone_after(broker, async |cluster| {
        cluster.broker().kill().await?;
        cluster.broker().wipe().await?;
        cluster.broker().start().await
    })
    .await
}

async fn no_node_is_gone_because_the_broker_did_not_answer_for_longer_than_a_lease(broker: Broker) -> Result<()> {
    nobody_is_gone_after(broker, async |cluster| {
        cluster.broker().freeze().await?;
        sleep(LONG + LONG / 2).await;
        cluster.broker().thaw().await
    })
    .await
}

#[tokio::test]
async fn a_node_alone_lists_itself_with_what_it_is() -> Result<()> {
    let mut cluster = plan(1, LEASE).start().await?;
    all_see_all(&cluster, &[1]).await?;
    let client = tests::Client::native(&format!("http://{}", cluster.node_address(1))).await?;
    client.subscribe("news").await?;
    let (view, _) = view(&cluster, 1).await?;
    let node = &view["node-1"];
    let expected = json!({
        "name": "node-1",
        "incarnation": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "connections": 1,
        "draining": false,
        "this": true,
        "api": cluster.api(1)?.address.to_string(),
    });
    for (field, value) in expected.as_object().context("an object")? {
        ensure!(node[field] == *value, "{field}: {node}");
    }
    ensure!(node["read"].is_string() && node["capacity"].as_u64().is_some_and(|most| most > 100), "{node}");
    let reports = async {
        loop {
            let (_, document) = cluster.api(1)?.get("/v1/nodes").await?;
            if document["nodes"][0]["read"] != node["read"] {
                return anyhow::Ok(());
            }
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, reports).await.context("it reads no further")??;
    cluster.well();
    Ok(())
}
