//! What an order does on small clusters: which clients move, what ends it, and what happens when nodes leave meanwhile.

use anyhow::{Result, bail, ensure};
use futures_util::future::try_join_all;
use real_brokers::signal;
use serde_json::{Value, json};
use tests::events::Events;
use tests::{Broker, Client, Cluster, Ended, Returning, http};

use super::{MOVED, all_know_all, command, gives, order, printed, until, until_done, until_node};

async fn natives(cluster: &Cluster, number: usize, count: usize) -> Result<Vec<Client>> {
    let url = format!("http://{}", cluster.node_address(number));
    try_join_all((0..count).map(|_| Client::native(&url))).await
}

fn open(clients: &[Client]) -> usize {
    clients.iter().filter(|client| client.is_open()).count()
}

/// How many native clients are open when each has received all that was sent to it.
async fn left(clients: &[Client]) -> Result<u64> {
    for client in clients {
        if client.ask(json!({ "ping": {} })).await.is_err() {
            client.ended().await?;
        }
    }
    Ok(open(clients) as u64)
}

pub(super) async fn only_clients_that_can_resume_move_unless_everyone_shall(broker: Broker) -> Result<()> {
    let mut cluster = Cluster::of(2).shared(broker).apis().start().await?;
    all_know_all(&cluster, 2).await?;
    let (api, full) = (cluster.api(2)?, cluster.node_address(1));
    let natives = natives(&cluster, 1, 4).await?;
    let mut stream = Events::open(full, "/sse/news", &[]).await?;
    stream.placed().await?;
    let url = format!("http://{full}");
    let raws = try_join_all((0..19).map(|_| Client::raw(&url, "news"))).await?;
    // 24 clients, so 12 are above the share, of which 5 can resume.
    let dry = order(&api, &json!({ "pace": 50, "dry_run": true })).await?;
    ensure!(dry["moves"] == 5 && dry.get("id").is_none() && dry["nodes"][0]["above"] == 12, "{dry}");
    let answer = order(&api, &json!({ "pace": 50 })).await?;
    ensure!(gives(&answer, "node-1") == Some(5) && answer["id"].is_string(), "{answer}");
    for client in &natives {
        let ended = client.ended().await?;
        ensure!(matches!(ended, Ended::Closed(MOVED, _)) && client.hint()? < 1000, "{ended:?}");
    }
    let last = stream.event().await?;
    ensure!(last.name == "reconnect" && stream.next().await?.is_none(), "{last:?}");
    let shed = until_done(&api, "node-1", &answer).await?;
    ensure!(shed["gives"] == 5 && shed["moved"] == 5, "{shed}");
    drop(stream);
    until_node(&cluster.api(1)?, "node-1", "without those", |node| node["connections"] == 19).await?;
    let metrics = http::get(full, "/metrics").await?;
    ensure!(metrics.body.contains("fanfare_shed_left 0\n"), "{}", metrics.body);
    ensure!(metrics.body.contains("fanfare_connections_closed_total{reason=\"moved\"} 5\n"), "{}", metrics.body);
    let nothing = order(&api, &json!({})).await?;
    ensure!(nothing["moves"] == 0 && nothing.get("id").is_none(), "{nothing}");
    let answer = order(&api, &json!({ "pace": 50, "everyone": true })).await?;
    ensure!(answer["moves"] == 9, "of 19 raw sockets: {answer}");
    until_done(&api, "node-1", &answer).await?;
    let speaker = Client::native(&url).await?;
    speaker.publish("news", "to those that stay").await?;
    for client in &raws {
        tokio::select! {
            ended = client.ended() => ensure!(matches!(ended?, Ended::Closed(MOVED, _))),
            seen = client.sees("to those that stay") => {
                if let Err(error) = seen {
                    ensure!(!client.is_open(), "{error:#}");
                }
            }
        }
    }
    ensure!(open(&raws) == 10, "{} of 19 stay", open(&raws));
    cluster.well();
    Ok(())
}

pub(super) async fn another_order_replaces_a_shed_and_a_stop_ends_it(broker: Broker) -> Result<()> {
    let mut cluster = Cluster::of(2).shared(broker).apis().start().await?;
    all_know_all(&cluster, 2).await?;
    let api = cluster.api(1)?;
    let clients = natives(&cluster, 1, 60).await?;
    let slow = order(&api, &json!({ "pace": 2 })).await?;
    ensure!(gives(&slow, "node-1") == Some(30), "{slow}");
    let moving = |shed: &Value| shed["state"] == "moving" && shed["moved"].as_u64() >= Some(2);
    until(&api, "node-1", "moving", moving).await?;
    let fast = order(&api, &json!({ "pace": 1000 })).await?;
    let shed = until_done(&api, "node-1", &fast).await?;
    ensure!(shed["moved"] == shed["gives"], "{shed}");
    let has = left(&clients).await?;
    ensure!((15..30).contains(&has), "half of those that were left stay: {has}");

    let slow = order(&api, &json!({ "pace": 2 })).await?;
    until(&api, "node-1", "moving", moving).await?;
    order(&api, &json!({ "stop": true })).await?;
    let stopped = |shed: &Value| shed["id"] == slow["id"] && shed["state"] == "stopped";
    let shed = until(&api, "node-1", "stopped", stopped).await?;
    let stay = left(&clients).await?;
    ensure!(shed["moved"] == has - stay && stay > has / 2, "{shed}: {has} before, and {stay} now");
    cluster.well();
    Ok(())
}

pub(super) async fn clients_that_come_back_to_the_full_node_are_not_moved_again_and_the_command_says_so(
    broker: Broker,
) -> Result<()> {
    const CLIENTS: usize = 40;
    let mut cluster = Cluster::of(2).shared(broker).apis().start().await?;
    all_know_all(&cluster, 2).await?;
    let url = format!("http://{}", cluster.node_address(1));
    let clients = try_join_all((0..CLIENTS).map(|_| Returning::start(&url, &["news"]))).await?;
    let output = command(&cluster, &["--pace", "40"]).await?;
    let said = printed(&output)?;
    for words in
        ["20 clients move, in about 1 s.", "20 of 20 clients have moved.", "20 still above the shares: ", "leastconn"]
    {
        ensure!(said.contains(words), "no {words:?} in {said}");
    }
    let connections: Vec<_> = clients.iter().map(Returning::connections).collect();
    ensure!(connections.iter().all(|count| *count <= 2), "{connections:?}");
    ensure!(connections.iter().sum::<usize>() == CLIENTS + 20, "{connections:?}");
    cluster.well();
    Ok(())
}

pub(super) async fn a_node_that_drains_meanwhile_raises_the_share_of_the_others(broker: Broker) -> Result<()> {
    the_share_rises(broker, false).await
}

pub(super) async fn a_node_that_dies_meanwhile_raises_the_share_of_the_others(broker: Broker) -> Result<()> {
    the_share_rises(broker, true).await
}

/// Of three nodes one has all clients, which go to the second when they are moved. The third leaves.
async fn the_share_rises(broker: Broker, dies: bool) -> Result<()> {
    let plan = Cluster::of(3).broker(broker).apis().set("FANFARE__TIMING__DRAIN_WAIT", "1h");
    let mut cluster =
        plan.set("FANFARE__CLUSTER__LEASE", "3s").set("FANFARE__BROKER__HEARTBEAT", "375ms").start().await?;
    all_know_all(&cluster, 3).await?;
    let api = cluster.api(1)?;
    let clients = natives(&cluster, 1, 60).await?;
    let other = format!("http://{}", cluster.node_address(2));
    let going = async {
        let one = async |client: &Client| {
            client.lives().await;
            Client::native(&other).await
        };
        let gone = try_join_all(clients.iter().map(one)).await?;
        drop(gone);
        anyhow::Ok(())
    };
    let shedding = async {
        // Its end is known at two leases at the latest, when a few clients have moved.
        let answer = order(&api, &json!({ "pace": if dies { 2 } else { 4 } })).await?;
        ensure!(gives(&answer, "node-1") == Some(40), "{answer}");
        if dies {
            cluster.kill_node("node-3").await?;
        } else {
            signal(cluster.process("node-3")?.pid, "TERM").await?;
        }
        let shed = until_done(&api, "node-1", &answer).await?;
        // The reports of the others are up to a second old, so a few more may move than half.
        let moved = shed["moved"].as_u64().unwrap_or_default();
        ensure!((30..38).contains(&moved), "{shed}");
        anyhow::Ok(moved)
    };
    let moved = tokio::select! {
        gone = going => gone.and_then(|()| bail!("all have moved"))?,
        moved = shedding => moved?,
    };
    ensure!(open(&clients) as u64 + moved == 60, "{moved} moved, and {} stay", open(&clients));
    if !dies {
        cluster.kill_node("node-3").await?;
    }
    cluster.well();
    Ok(())
}

pub(super) async fn a_full_node_that_begins_to_drain_gives_up_all_its_clients_as_it_does_without_a_shed(
    broker: Broker,
) -> Result<()> {
    let plan = Cluster::of(2).shared(broker).apis().set("FANFARE__TIMING__DRAIN_WAIT", "3s");
    let mut cluster = plan.start().await?;
    all_know_all(&cluster, 2).await?;
    let api = cluster.api(2)?;
    let clients = natives(&cluster, 1, 20).await?;
    let answer = order(&api, &json!({ "pace": 1 })).await?;
    until(&api, "node-1", "moving", |shed| shed["state"] == "moving").await?;
    let draining = until(&api, "node-1", "draining", |shed| shed["id"] == answer["id"] && shed["state"] == "draining");
    let (stopped, draining) = tokio::join!(cluster.stop_node("node-1"), draining);
    ensure!(draining?["moved"].as_u64() < Some(10), "it stops to give up clients when it drains");
    ensure!(stopped?.success());
    for client in &clients {
        let ended = client.ended().await?;
        ensure!(matches!(ended, Ended::Closed(MOVED, _)), "{ended:?}");
    }
    cluster.well();
    Ok(())
}
