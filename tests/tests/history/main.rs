//! Older messages: `history` in both directions, the last ones for a new subscriber, and a catch-up of any size.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

mod catch_up;
mod expiry;
mod last;
mod log;
mod losses;
mod model;
mod pages;
mod returners;
mod withdrawn;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::history::{Outcome, parts};
use tests::{Client, Cluster, Frame};

fn url(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

async fn history(client: &Client, fields: Value) -> Result<Value> {
    let mut reply = client.ask(json!({ "history": fields })).await?;
    ensure!(reply["ok"].is_object(), "refused: {reply}");
    Ok(reply["ok"].take())
}

fn data(messages: &Value) -> Vec<String> {
    let messages = messages.as_array().into_iter().flatten();
    messages.filter_map(|message| message["data"].as_str()).map(str::to_owned).collect()
}

fn live(client: &Client) -> Vec<String> {
    let message = |frame| if let Frame::Message { data, .. } = frame { Some(data) } else { None };
    client.frames().into_iter().filter_map(message).collect()
}

async fn publish(client: &Client, channel: &str, data: &str) -> Result<()> {
    let outcome = client.publish(channel, data).await?;
    ensure!(outcome == Outcome::Acknowledged, "{data} on {channel}: {outcome:?}");
    Ok(())
}

/// Reads a channel from its end back to its beginning, in pages of random sizes. Also says whether that is all.
async fn read_back(client: &Client, channel: &str) -> Result<(Vec<String>, bool)> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let mut fields = json!({ "channel": channel, "limit": fastrand::u32(1..=100) });
        if let Some(before) = before.take() {
            fields["before"] = before;
        }
        let mut page = history(client, fields).await?;
        ensure!(page["channel"] == channel, "{page}");
        found.splice(0..0, data(&page["messages"]));
        match page["next"].take() {
            Value::Null => return Ok((found, page["complete"] == true)),
            next => before = Some(next),
        }
    }
}

/// Reads a channel on from a position, in pages of random sizes.
async fn read_on(client: &Client, channel: &str, since: &str) -> Result<Vec<String>> {
    let (mut found, mut since) = (Vec::new(), json!(since));
    loop {
        let fields = json!({ "channel": channel, "limit": fastrand::u32(1..=100), "since": since });
        let mut page = history(client, fields).await?;
        found.extend(data(&page["messages"]));
        if page["complete"] == true {
            return Ok(found);
        }
        since = page["next"].take();
    }
}

async fn subscribe(client: &Client, channel: &str) -> Result<String> {
    Ok(client.subscribe(channel).await?["at"].as_str().context("no position")?.to_owned())
}

/// Three channels, the first two of them in one partition.
async fn channels(client: &Client) -> Result<[String; 3]> {
    let (_, partition, _) = parts(&subscribe(client, "room").await?)?;
    for number in 0.. {
        let beside = format!("beside-{number}");
        let same = parts(&subscribe(client, &beside).await?)?.1 == partition;
        client.unsubscribe(&beside).await?;
        if same {
            client.unsubscribe("room").await?;
            return Ok(["room".to_owned(), beside, "elsewhere".to_owned()]);
        }
    }
    anyhow::bail!("there are enough names")
}
