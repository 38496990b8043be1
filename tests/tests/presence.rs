//! Who is there: lists, events, and what becomes of the members of a node that dies.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::cluster::Plan;
use tests::tokens::{Issuer, OPEN};
use tests::{Broker, Client, Cluster, Frame, PATIENCE};
use tokio::time::{sleep, timeout};

/// Between two looks at something that a node must come to know.
const GLANCE: Duration = Duration::from_millis(50);

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

const RULES: &str =
    r#"[{ match = "room:*", presence = "members" }, { match = "count:*", presence = "counts" }, { match = "*" }]"#;

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    members_are_seen_on_all_nodes_and_come_and_leave_once,
    the_members_of_a_killed_node_leave_once,
    the_members_of_a_node_that_stood_still_leave_once_and_return,
    a_user_with_two_tabs_never_leaves_in_a_rolling_restart,
    no_member_leaves_while_the_broker_is_away_and_the_lists_are_right_after_it_is_wiped,
    no_member_leaves_because_the_log_was_deleted_and_the_lists_are_right_again,
} }
tests::on_brokers! { memory Memory: { members_are_seen_on_all_nodes_and_come_and_leave_once } }

fn plan(broker: Broker) -> Plan {
    let (keys, secret) = Issuer::keys();
    let plan = Cluster::of(broker.nodes()).shared(broker).apis().set("FANFARE__CHANNELS", RULES).set(keys, &secret);
    plan.set(OPEN.0, OPEN.1)
        .set("FANFARE__PRESENCE__LINGER", "3s")
        .set("FANFARE__CLUSTER__LEASE", "3s")
        .set("FANFARE__BROKER__HEARTBEAT", "500ms")
}

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

async fn user(cluster: &Cluster, node: usize, issuer: &Issuer, user: &str) -> Result<Client> {
    Client::with_token(&url(cluster, node), &issuer.token(user, &[])?).await
}

/// Subscribes and asks who is there.
async fn watch(client: &Client, channel: &str) -> Result<Value> {
    let reply = client.ask(json!({ "subscribe": { "channel": channel, "presence": true } })).await?;
    Ok(reply.get("ok").with_context(|| format!("refused: {reply}"))?["presence"].clone())
}

/// What `presence` says.
async fn ask(client: &Client, channel: &str) -> Result<Value> {
    let reply = client.ask(json!({ "presence": { "channel": channel, "limit": 1000 } })).await?;
    Ok(reply.get("ok").with_context(|| format!("refused: {reply}"))?.clone())
}

/// Asks until a node knows of so many members, and of all nodes. Gives the answer.
async fn counts(client: &Client, channel: &str, count: u64) -> Result<Value> {
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

fn names(members: &Value) -> Vec<String> {
    let name = |member: &Value| member["user"].as_str().or(member["client"].as_str()).unwrap_or_default().to_owned();
    members.as_array().into_iter().flatten().map(name).collect()
}

/// The events of a channel's members that a client has: which names came, and which left.
fn events(client: &Client, channel: &str) -> Vec<(String, bool)> {
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
async fn meets(client: &Client, channel: &str, name: &str, joins: bool) -> Result<()> {
    let wanted = (name.to_owned(), joins);
    let met = async {
        while !events(client, channel).contains(&wanted) {
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, met).await.with_context(|| format!("{wanted:?} is not among {:?}", events(client, channel)))
}

/// Waits until so many members have left.
async fn leave(client: &Client, channel: &str, count: usize) -> Result<()> {
    let left = || events(client, channel).iter().filter(|(_, joins)| !joins).count();
    let all = async {
        while left() < count {
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, all).await.with_context(|| format!("{} of {count} members have left", left()))
}

async fn members_are_seen_on_all_nodes_and_come_and_leave_once(broker: Broker) -> Result<()> {
    let mut cluster = plan(broker).start().await?;
    let (issuer, last) = (Issuer::new()?, broker.nodes());
    let watcher = user(&cluster, 1, &issuer, "eve").await?;
    watch(&watcher, "room:1").await?;
    counts(&watcher, "room:1", 1).await?;

    let ann = user(&cluster, last, &issuer, "ann").await?;
    ann.subscribe("room:1").await?;
    let nameless = Client::native(&url(&cluster, last)).await?;
    let id = nameless.ask(json!({ "connect": {} })).await?["ok"]["client"].as_str().context("no id")?.to_owned();
    nameless.subscribe("room:1").await?;
    meets(&watcher, "room:1", "ann", true).await?;
    meets(&watcher, "room:1", &id, true).await?;
    let mut expected = vec!["ann".to_owned(), "eve".to_owned(), id.clone()];
    expected.sort_unstable();
    for client in [&watcher, &ann] {
        assert_eq!(names(&counts(client, "room:1", 3).await?["members"]), expected);
    }
    let page = ann.ask(json!({ "presence": { "channel": "room:1", "limit": 1 } })).await?["ok"].take();
    let next = page["next"].as_str().context("no next page")?;
    let second = ann.ask(json!({ "presence": { "channel": "room:1", "after": next, "limit": 1 } })).await?["ok"].take();
    assert_eq!([names(&page["members"]), names(&second["members"])].concat(), expected[..2]);

    // Another connection of hers, and a reconnect: neither is an event.
    let second = user(&cluster, 1, &issuer, "ann").await?;
    second.subscribe("room:1").await?;
    ann.close().await?;
    let ann = user(&cluster, last, &issuer, "ann").await?;
    assert_eq!(watch(&ann, "room:1").await?["members"].as_array().map(Vec::len), Some(3));
    second.close().await?;
    nameless.unsubscribe("room:1").await?;
    meets(&watcher, "room:1", &id, false).await?;
    ann.close().await?;
    meets(&watcher, "room:1", "ann", false).await?;
    counts(&watcher, "room:1", 1).await?;
    let of = |name: &str| events(&watcher, "room:1").into_iter().filter(|(other, _)| other == name).count();
    assert_eq!((of("ann"), of(&id)), (2, 2), "{:?}", events(&watcher, "room:1"));

    watcher.subscribe("count:1").await?;
    nameless.subscribe("count:1").await?;
    let counted = counts(&watcher, "count:1", 2).await?;
    assert_eq!(counted["members"], json!([]), "{counted}");
    let refused = watcher.ask(json!({ "presence": { "channel": "other" } })).await?;
    assert_eq!(refused["error"]["code"], "forbidden", "{refused}");
    let api = cluster.api(last)?;
    let of = |channel: &str, count| json!({ "channel": channel, "count": count });
    let (status, mut members) = api.get("/v1/channels/room:1/presence").await?;
    let at = members.as_object_mut().and_then(|members| members.remove("at"));
    let expected = json!({ "channel": "room:1", "members": [{ "user": "eve" }], "count": 1 });
    assert_eq!((status, members, at.is_some()), (200, expected, true));
    let (_, channel) = api.get("/v1/channels/count:1").await?;
    assert_eq!(channel, json!({ "channel": "count:1", "count": 2, "partial": false }));
    let (_, channels) = api.get("/v1/channels").await?;
    assert_eq!(channels, json!({ "channels": [of("count:1", 2), of("room:1", 1)], "partial": false }));
    let (_, page) = api.get("/v1/channels?prefix=co&limit=1").await?;
    assert_eq!(page["channels"], json!([of("count:1", 2)]));
    cluster.well();
    Ok(())
}

async fn the_members_of_a_killed_node_leave_once(broker: Broker) -> Result<()> {
    const MEMBERS: usize = 300;
    let mut cluster = plan(broker).start().await?;
    let issuer = Issuer::new()?;
    let mut watchers = Vec::new();
    for node in [1, 2] {
        let watcher = user(&cluster, node, &issuer, &format!("watcher-{node}")).await?;
        watch(&watcher, "room:1").await?;
        watchers.push(watcher);
    }
    // A user with a second connection on another node does not leave.
    let both = user(&cluster, 1, &issuer, "ann").await?;
    both.subscribe("room:1").await?;
    let other = user(&cluster, 3, &issuer, "ann").await?;
    other.subscribe("room:1").await?;
    let clients = crowd(&url(&cluster, 3), MEMBERS).await?;
    let whole = u64::try_from(MEMBERS + 3)?;
    for watcher in &watchers {
        counts(watcher, "room:1", whole).await?;
    }
    cluster.kill_node("node-3").await?;
    for watcher in &watchers {
        counts(watcher, "room:1", 3).await?;
        leave(watcher, "room:1", MEMBERS).await?;
        let mut seen: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        events(watcher, "room:1").into_iter().for_each(|(name, joins)| seen.entry(name).or_default().push(joins));
        let odd =
            seen.iter().find(|(name, seen)| !name.starts_with("watcher") && *name != "ann" && ***seen != [true, false]);
        ensure!(odd.is_none(), "{odd:?}");
        assert_eq!(seen.get("ann").map(Vec::as_slice), Some(&[true][..]));
        ensure!(seen.len() > MEMBERS, "{} members were shown", seen.len());
    }
    drop(clients);
    Ok(())
}

/// So many anonymous members of room:1 on one node.
async fn crowd(address: &str, members: usize) -> Result<Vec<Client>> {
    try_join_all((0..members).map(async |_| {
        let client = Client::native(address).await?;
        client.subscribe("room:1").await?;
        anyhow::Ok(client)
    }))
    .await
}

async fn the_members_of_a_node_that_stood_still_leave_once_and_return(broker: Broker) -> Result<()> {
    const MEMBERS: usize = 20;
    let mut cluster = plan(broker).start().await?;
    let issuer = Issuer::new()?;
    let watcher = user(&cluster, 1, &issuer, "watcher").await?;
    watch(&watcher, "room:1").await?;
    let clients = crowd(&url(&cluster, 3), MEMBERS).await?;
    let whole = u64::try_from(MEMBERS + 1)?;
    counts(&watcher, "room:1", whole).await?;
    cluster.freeze_node("node-3").await?;
    counts(&watcher, "room:1", 1).await?;
    cluster.thaw_node("node-3").await?;
    counts(&watcher, "room:1", whole).await?;
    counts(&clients[0], "room:1", whole).await?;
    let mut seen: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (name, joins) in events(&watcher, "room:1").into_iter().filter(|(name, _)| name != "watcher") {
        seen.entry(name).or_default().push(joins);
    }
    let odd = seen.iter().find(|(_, seen)| ***seen != [true, false, true] && ***seen != [true, false]);
    ensure!(odd.is_none() && seen.len() == MEMBERS, "{odd:?} of {}", seen.len());
    Ok(())
}

async fn no_member_leaves_while_the_broker_is_away_and_the_lists_are_right_after_it_is_wiped(
    broker: Broker,
) -> Result<()> {
    /// Longer than the lease.
    const AWAY: Duration = Duration::from_secs(6);
    let mut cluster = plan(broker).broker(broker).start().await?;
    let issuer = Issuer::new()?;
    let clients = one_on_each(&cluster, &issuer).await?;
    cluster.broker().kill().await?;
    sleep(AWAY).await;
    // It subscribes while nothing can be written.
    let late = user(&cluster, 2, &issuer, "late").await?;
    late.subscribe("room:1").await?;
    cluster.broker().start().await?;
    for client in &clients {
        counts(client, "room:1", 4).await?;
        only_leave(client, &[])?;
    }
    // And it leaves while nothing can be written.
    cluster.broker().kill().await?;
    late.close().await?;
    cluster.broker().wipe().await?;
    cluster.broker().start().await?;
    for client in &clients {
        counts(client, "room:1", 3).await?;
        leave(client, "room:1", 1).await?;
        only_leave(client, &["late"])?;
    }
    cluster.well();
    Ok(())
}

async fn no_member_leaves_because_the_log_was_deleted_and_the_lists_are_right_again(broker: Broker) -> Result<()> {
    let mut cluster = plan(broker).broker(broker).start().await?;
    let issuer = Issuer::new()?;
    let clients = one_on_each(&cluster, &issuer).await?;
    let leaver = user(&cluster, 2, &issuer, "leaver").await?;
    leaver.subscribe("room:1").await?;
    for client in &clients {
        counts(client, "room:1", 4).await?;
    }
    let server = cluster.broker();
    match broker {
        Broker::Redis => server.tool(&["FLUSHALL"]).await?,
        Broker::Kafka => server.tool(&[TOPICS, "--delete", "--topic", "fanfare"]).await?,
        // Its streams have one epoch, so this deletes all of them.
        _ => server.tool(&["delete_queue", "fanfare.0"]).await?,
    };
    leaver.close().await?;
    for client in &clients {
        client.meets("the loss", |frame| matches!(frame, Frame::Lost { channel, .. } if channel == "room:1")).await?;
        leave(client, "room:1", 1).await?;
        counts(client, "room:1", 3).await?;
        only_leave(client, &["leaver"])?;
    }
    cluster.well();
    Ok(())
}

/// A user on each of three nodes, who watches room:1 and sees all of them.
async fn one_on_each(cluster: &Cluster, issuer: &Issuer) -> Result<Vec<Client>> {
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
fn only_leave(client: &Client, names: &[&str]) -> Result<()> {
    let left: Vec<_> = events(client, "room:1").into_iter().filter(|(_, joins)| !joins).map(|(name, _)| name).collect();
    ensure!(left == names, "{left:?} have left, and not {names:?}");
    Ok(())
}

async fn a_user_with_two_tabs_never_leaves_in_a_rolling_restart(broker: Broker) -> Result<()> {
    let plan = plan(broker).set("FANFARE__TIMING__DRAIN_WAIT", "off").set("FANFARE__TIMING__DRAIN", "1s");
    let mut cluster = plan.start().await?;
    let issuer = Issuer::new()?;
    let mut tabs = Vec::new();
    for node in [1, 2] {
        let tab = user(&cluster, node, &issuer, "ann").await?;
        tab.subscribe("room:1").await?;
        tabs.push((node, tab));
    }
    let mut watchers: Vec<Client> = Vec::new();
    for node in 1..=3 {
        let next = node % 3 + 1;
        let watcher = user(&cluster, next, &issuer, "watcher").await?;
        watch(&watcher, "room:1").await?;
        counts(&watcher, "room:1", 2).await?;
        // As a client does: each tab connects to another node when this one closes it.
        let (address, token) = (url(&cluster, next), issuer.token("ann", &[])?);
        let (here, elsewhere): (Vec<_>, Vec<_>) = tabs.into_iter().partition(|(on, _)| *on == node);
        let moved = try_join_all(here.into_iter().map(async |(_, tab): (usize, Client)| {
            tab.ended().await?;
            let tab = Client::with_token(&address, &token).await?;
            tab.subscribe("room:1").await?;
            anyhow::Ok((next, tab))
        }));
        let name = format!("node-{node}");
        let (stopped, moved) = tokio::join!(cluster.stop_node(&name), moved);
        ensure!(stopped?.success(), "{}", cluster.output(&name)?);
        tabs = [elsewhere, moved?].into_iter().flatten().collect();
        cluster.start_node(&name).await?;
        counts(&watcher, "room:1", 2).await?;
        only_leave(&watcher, &[])?;
        watchers.push(watcher);
    }
    cluster.well();
    Ok(())
}
