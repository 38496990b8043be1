//! Clients that were away: what they missed, exactly, or the plain word that it cannot be had.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{Client, Cluster, Frame, Program};

/// Subscribes from a position; gives the reply's `ok`.
async fn resume(client: &Client, channel: &str, since: &str) -> Result<Value> {
    let reply = client.ask(json!({ "subscribe": { "channel": channel, "since": since } })).await?;
    reply.get("ok").cloned().with_context(|| format!("refused: {reply}"))
}

fn messages(client: &Client) -> Vec<String> {
    let message = |frame| if let Frame::Message { data, .. } = frame { Some(data) } else { None };
    client.frames().into_iter().filter_map(message).collect()
}

async fn publish(client: &Client, channel: &str, numbers: std::ops::Range<u32>) -> Result<()> {
    for number in numbers {
        client.publish(channel, &number.to_string()).await?;
    }
    Ok(())
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn at(reply: &Value) -> Result<String> {
    Ok(reply["at"].as_str().context("no position")?.to_owned())
}

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

#[tokio::test]
async fn a_client_that_comes_back_on_another_node_gets_exactly_what_it_missed() -> Result<()> {
    let mut cluster = Cluster::of(3).redis().start().await?;
    let speaker = Client::native(&url(&cluster, 1)).await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    let subscribed = client.subscribe("news").await?;
    publish(&speaker, "news", 0..10).await?;
    client.messages(10).await?;
    let Some(Frame::Message { at: Some(since), .. }) = client.frames().pop() else { panic!("no position") };
    client.close().await?;
    for round in 0..50 {
        publish(&speaker, "news", 10 + 20 * round..30 + 20 * round).await?;
        publish(&speaker, "other", 0..5).await?;
    }

    let back = Client::native(&url(&cluster, 2)).await?;
    let ok = resume(&back, "news", &since).await?;
    assert_eq!((&ok["recovered"], at(&ok)?), (&json!(true), since.clone()));
    publish(&speaker, "news", 1010..1020).await?;
    back.messages(1010).await?;
    assert_eq!(messages(&back), texts(10..1020), "what was missed, then what is live, each once and in order");

    cluster.kill_node("node-3").await?;
    cluster.start_node("node-3").await?;
    let fresh = Client::native(&url(&cluster, 3)).await?;
    assert_eq!(resume(&fresh, "news", &since).await?["recovered"], json!(true), "a node that has just started");
    fresh.messages(1010).await?;
    assert_eq!(messages(&fresh), texts(10..1020));

    let first = at(&subscribed)?;
    let from_start = Client::native(&url(&cluster, 3)).await?;
    assert_eq!(resume(&from_start, "news", &first).await?["recovered"], json!(true));
    from_start.messages(1020).await?;
    assert_eq!(messages(&from_start), texts(0..1020));
    Ok(())
}

#[tokio::test]
async fn a_position_that_proves_nothing_recovers_nothing() -> Result<()> {
    let node = Program::start("fanfare", &[], &[]).await?;
    let url = format!("http://{}", node.address);
    let speaker = Client::native(&url).await?;
    let other = at(&speaker.subscribe("other").await?)?;
    publish(&speaker, "news", 0..10).await?;
    let position = at(&speaker.subscribe("news").await?)?;
    let (_, place) = position.split_once('-').context("a position has three parts")?;
    let far = format!("{}ffffff", position);
    for (since, what) in [(format!("1-{place}"), "another record"), (other, "another partition"), (far, "the future")] {
        let client = Client::native(&url).await?;
        let ok = resume(&client, "news", &since).await?;
        assert_eq!(ok["recovered"], json!(false), "{what}: {ok}");
        speaker.publish("news", what).await?;
        client.sees(what).await?;
        assert_eq!(messages(&client), [what], "nothing partial");
    }
    let client = Client::native(&url).await?;
    let refused = client.ask(json!({ "subscribe": { "channel": "news", "since": "yesterday" } })).await?;
    assert_eq!(refused["error"]["code"], json!("bad_request"));
    Ok(())
}

#[tokio::test]
async fn a_key_makes_a_repeated_publish_harmless_on_every_node() -> Result<()> {
    let cluster = Cluster::of(2).redis().start().await?;
    let clients = [Client::native(&url(&cluster, 1)).await?, Client::native(&url(&cluster, 2)).await?];
    for client in &clients {
        client.subscribe("orders").await?;
    }
    for client in clients.iter().cycle().take(6) {
        let command = json!({ "publish": { "channel": "orders", "data": "order 7", "key": "7" } });
        assert!(client.ask(command).await?.get("ok").is_some(), "each try is acknowledged");
    }
    clients[0].publish("orders", "last").await?;
    for client in &clients {
        client.sees("last").await?;
        assert_eq!(messages(client), ["order 7", "last"]);
    }
    Ok(())
}

#[tokio::test]
async fn clients_are_told_once_that_the_broker_is_away_and_once_that_it_is_back() -> Result<()> {
    let cluster = Cluster::of(1).redis().start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    client.subscribe("news").await?;
    cluster.broker().kill().await?;
    client.meets("the notice", |frame| *frame == Frame::Other(r#"{"degraded":true}"#.into())).await?;
    cluster.broker().start().await?;
    client.meets("its end", |frame| *frame == Frame::Other(r#"{"degraded":false}"#.into())).await?;
    client.publish("news", "on").await?;
    client.sees("on").await?;
    let notices =
        client.frames().into_iter().filter(|frame| matches!(frame, Frame::Other(text) if text.contains("degraded")));
    assert_eq!(notices.count(), 2);
    Ok(())
}

#[tokio::test]
async fn pings_carry_positions_so_that_quiet_channels_resume() -> Result<()> {
    let quick = [("FANFARE__TIMING__PING", "1s"), ("FANFARE__TIMING__PONG", "500ms")];
    let node = Program::start("fanfare", &[], &quick).await?;
    let url = format!("http://{}", node.address);
    let client = Client::native(&url).await?;
    client.subscribe("quiet").await?;
    let ping = |frame: &Frame| matches!(frame, Frame::Other(text) if text.contains(r#""quiet":"#));
    let Frame::Other(text) = client.meets("a ping", ping).await? else { panic!("no ping") };
    let ping: Value = serde_json::from_str(&text)?;
    let since = ping["ping"]["at"]["quiet"].as_str().context("no position")?;
    client.close().await?;
    let speaker = Client::native(&url).await?;
    publish(&speaker, "quiet", 0..3).await?;
    let back = Client::native(&url).await?;
    assert_eq!(resume(&back, "quiet", since).await?["recovered"], json!(true));
    back.messages(3).await?;
    assert_eq!(messages(&back), texts(0..3));
    Ok(())
}
