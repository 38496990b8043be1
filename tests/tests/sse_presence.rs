//! Who is there, for clients of event streams: the list, and its changes.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::events::Events;
use tests::tokens::{Issuer, OPEN};
use tests::wire::{self, Wire};
use tests::{Client, Program};

const RULES: &str = r#"[{ match = "room:*", presence = "members" }, { match = "count:*", presence = "counts" },
    { match = "closed", presence = "members", see_presence = "nobody" }, { match = "*" }]"#;

async fn node() -> Result<Program> {
    let (keys, secret) = Issuer::keys();
    let more = [("FANFARE__CHANNELS", RULES), (keys, &secret), OPEN, ("FANFARE__PRESENCE__LINGER", "200ms")];
    wire::serve("fanfare", &more).await
}

async fn user(node: &Program, name: &str, flags: &[&str]) -> Result<Client> {
    Client::with_token(&format!("http://{}", node.address), &Issuer::new()?.token(name, flags)?).await
}

/// The data of the next event, which is about presence.
async fn presence(events: &mut Events) -> Result<Value> {
    let event = events.event().await?;
    assert_eq!(event.name, "presence", "{event:?}");
    Ok(serde_json::from_str(&event.data)?)
}

/// Reads events until `wanted`. All are about presence.
async fn until(events: &mut Events, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    loop {
        let data = presence(events).await?;
        if wanted(&data) {
            return Ok(data);
        }
    }
}

fn has(data: &Value, key: &str, name: &str) -> bool {
    data[key].as_array().into_iter().flatten().any(|member| member["user"] == name)
}

#[tokio::test]
async fn a_stream_has_the_list_and_then_its_changes_and_a_resume_has_a_new_list() -> Result<()> {
    let node = node().await?;
    let ann = user(&node, "ann", &[]).await?;
    ann.subscribe("room:1").await?;
    let path = "/sse/room:1?presence=1";
    let mut events = Events::open(node.address, path, &[]).await?;
    assert_eq!(events.status, 200, "{events:?}");
    let list = presence(&mut events).await?;
    assert_eq!(list["channel"], "room:1");
    assert!(list["members"].is_array() && list["count"].is_u64(), "{list}");
    assert!(!events.last_id.is_empty(), "the list is where the stream begins");
    if !has(&list, "members", "ann") {
        until(&mut events, |data| has(data, "joined", "ann")).await?;
    }
    let bob = user(&node, "bob", &[]).await?;
    bob.subscribe("room:1").await?;
    until(&mut events, |data| has(data, "joined", "bob")).await?;
    ann.publish("room:1", "hello").await?;
    let message = events.event().await?;
    assert_eq!((message.name.as_str(), message.data.as_str()), ("message", "hello"));
    let id = events.last_id.clone();
    bob.close().await?;
    let left = until(&mut events, |data| has(data, "left", "bob")).await?;
    assert!(left["at"].is_string(), "{left}");
    assert_eq!(events.last_id, id, "a change of members moves nobody");
    drop(events);

    let mut events = Events::resume(node.address, path, &id).await?;
    let list = presence(&mut events).await?;
    assert!(has(&list, "members", "ann") && !has(&list, "members", "bob"), "{list}");
    Ok(())
}

#[tokio::test]
async fn with_several_channels_each_has_its_list_and_one_that_may_not_be_seen_says_so() -> Result<()> {
    let node = node().await?;
    let path = "/sse?channel=room:1&channel=closed&channel=plain&channel=count:1&presence=1&data=message";
    let mut events = Events::open(node.address, path, &[]).await?;
    let (mut lists, mut ended) = (Vec::new(), Vec::new());
    while lists.len() + ended.len() < 4 {
        let data = presence(&mut events).await?;
        let channel = data["channel"].as_str().context("a channel")?.to_owned();
        if data["ended"].is_string() {
            ended.push((channel, data["ended"].clone()));
        } else if data["members"].is_array() {
            lists.push(channel);
        }
    }
    assert_eq!(lists, ["room:1", "count:1"]);
    assert_eq!(ended, [("closed".to_owned(), json!("forbidden")), ("plain".to_owned(), json!("forbidden"))]);
    until(&mut events, |data| data["channel"] == "count:1" && data["count"] == 1).await?;
    let ann = user(&node, "ann", &[]).await?;
    // Its messages come all the same.
    ann.publish("closed", "hello").await?;
    loop {
        let event = events.event().await?;
        if event.name == "message" {
            let message: Value = serde_json::from_str(&event.data)?;
            assert_eq!((&message["channel"], &message["data"]), (&json!("closed"), &json!("hello")));
            return Ok(());
        }
    }
}

#[tokio::test]
async fn lines_of_json_have_the_same_as_a_socket_and_none_is_broken_by_white_space() -> Result<()> {
    let node = node().await?;
    let path = "/sse?channel=room:1&presence=1";
    let mut events = Events::open(node.address, path, &[("Accept", "application/x-ndjson")]).await?;
    let mut line = async || -> Result<Value> {
        let line = events.line().await?.context("the stream has ended")?;
        serde_json::from_str(&line).with_context(|| line)
    };
    let ok = line().await?;
    assert!(ok["ok"]["presence"]["members"].is_array(), "{ok}");
    let ann = user(&node, "ann", &["--info", "{\"name\":\n\"Ann\"}"]).await?;
    ann.subscribe("room:1").await?;
    let joined = loop {
        let change = line().await?;
        if has(&change["presence"], "joined", "ann") {
            break change;
        }
    };
    assert_eq!((&joined["channel"], joined["presence"]["at"].is_string()), (&json!("room:1"), true));
    let mut wire = Wire::open(node.address, "/ws").await?;
    wire.ask("{\"id\":1,\"publish\":{\"channel\":\"room:1\",\"data\":{\"x\":\r\n1}}}").await?;
    while line().await?["data"] != json!({ "x": 1 }) {}
    Ok(())
}

#[tokio::test]
async fn without_the_parameter_nothing_is_said_of_members_and_another_value_is_refused() -> Result<()> {
    let node = node().await?;
    let mut events = Events::open(node.address, "/sse/room:1", &[]).await?;
    events.placed().await?;
    let ann = user(&node, "ann", &[]).await?;
    let mut seen = Events::open(node.address, "/sse/room:1?presence=1", &[]).await?;
    ann.subscribe("room:1").await?;
    until(&mut seen, |data| has(data, "joined", "ann") || has(data, "members", "ann")).await?;
    ann.publish("room:1", "hello").await?;
    assert_eq!(events.event().await?.name, "message", "no event about presence came before it");
    let mut refused = Events::open(node.address, "/sse/room:1?presence=yes", &[]).await?;
    assert_eq!(refused.status, 400);
    assert!(refused.body().await?.contains("`presence` is `1`"));
    Ok(())
}
