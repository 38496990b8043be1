//! Who is there: lists, events, and what becomes of the members of a node that dies.

mod log;
mod view;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::tokens::Issuer;
use tests::{Broker, Client};

use self::log::{
    a_fresh_node_shows_all_members_or_says_that_some_may_be_missing,
    no_member_leaves_because_the_log_was_deleted_and_the_lists_are_right_again,
    no_member_leaves_while_the_broker_is_away_and_the_lists_are_right_after_it_is_wiped,
};
use self::view::{counts, crowd, events, leave, meets, names, only_leave, plan, url, user, watch};

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    members_are_seen_on_all_nodes_and_come_and_leave_once,
    the_members_of_a_killed_node_leave_once,
    the_members_of_a_node_that_stood_still_leave_once_and_return,
    a_user_with_two_tabs_never_leaves_in_a_rolling_restart,
    no_member_leaves_while_the_broker_is_away_and_the_lists_are_right_after_it_is_wiped,
    no_member_leaves_because_the_log_was_deleted_and_the_lists_are_right_again,
    a_fresh_node_shows_all_members_or_says_that_some_may_be_missing,
} }
tests::on_brokers! { memory Memory: {
    members_are_seen_on_all_nodes_and_come_and_leave_once,
    a_fresh_node_shows_all_members_or_says_that_some_may_be_missing,
} }

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
