//! What the log no longer has: trimmed records, and those from before a break.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::history::{earlier_text, parts};
use tests::{Broker, Client, Cluster, Frame, PATIENCE};
use tokio::time::{interval, timeout};

use super::{data, history, publish, read_back, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_has_trimmed_is_never_called_complete_before_it_is_read() -> Result<()> {
    // The window has less than the log, and the log less than what was published.
    let plan = Cluster::of(1).shared(Broker::Redis).set("FANFARE__WINDOW__BYTES", "48KiB");
    let cluster = plan.set("FANFARE__BROKER__RETENTION", "200").start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    for number in 0..900 {
        publish(&client, "room", &format!("{number} {}", "x".repeat(100))).await?;
    }
    let first = history(&client, json!({ "channel": "room", "limit": 1000 })).await?;
    let before = first["next"].as_str().context("the log has more than the window")?.to_owned();
    // What the position stands for goes away: that is said.
    for number in 900..1800 {
        publish(&client, "room", &format!("{number} {}", "x".repeat(100))).await?;
    }
    let gone = client.ask(json!({ "history": { "channel": "room", "before": before } })).await?;
    ensure!(gone["error"]["code"] == "gone", "{gone}");
    let (found, complete) = read_back(&client, "room").await?;
    ensure!(complete, "the log has no more");
    ensure!((200..600).contains(&found.len()), "{} are kept", found.len());
    let numbers: Vec<usize> = found.iter().filter_map(|text| text.split(' ').next()?.parse().ok()).collect();
    ensure!(numbers == (1800 - found.len()..1800).collect::<Vec<_>>(), "{numbers:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_from_before_a_break_are_not_mixed_with_those_after_it() -> Result<()> {
    let cluster = Cluster::of(1).broker(Broker::Redis).start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    client.subscribe("room").await?;
    for number in 0..20 {
        publish(&client, "room", &format!("old {number}")).await?;
    }
    let page = history(&client, json!({ "channel": "room", "limit": 5 })).await?;
    cluster.broker().tool(&["FLUSHALL"]).await?;
    client.meets("the loss", |frame| matches!(frame, Frame::Lost { channel, .. } if channel == "room")).await?;
    for number in 0..20 {
        publish(&client, "room", &format!("new {number}")).await?;
    }
    client.sees("new 19").await?;
    // Whether this is complete, a node may not be able to prove: it may have joined the new log after its first record.
    let (found, _) = read_back(&client, "room").await?;
    let new: Vec<_> = (0..20).map(|number| format!("new {number}")).collect();
    ensure!(found == new, "{found:?}");
    for direction in ["since", "before"] {
        let gone = client.ask(json!({ "history": { "channel": "room", direction: page["next"] } })).await?;
        ensure!(gone["error"]["code"] == "gone", "{direction}: {gone}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_named_positions_in_vain_still_reads_back_to_the_beginning() -> Result<()> {
    const MESSAGES: usize = 600;
    let plan = Cluster::of(1).set("FANFARE__WINDOW__BYTES", "48KiB");
    let cluster = plan.set("FANFARE__LIMITS__HISTORY_PER_SECOND", "10000").start().await?;
    let client = Client::native(&url(&cluster, 1)).await?;
    for number in 0..MESSAGES {
        publish(&client, "room", &format!("{number} {}", "x".repeat(100))).await?;
    }
    let mut page = history(&client, json!({ "channel": "room", "limit": 50 })).await?;
    let (offset, partition, check) = parts(page["next"].as_str().context("there is more")?)?;
    // The log does not reach that far: the broker is asked for each, until there were too many of them.
    let mut refused = false;
    for number in 1..=20 {
        let before = earlier_text((offset + 1_000_000 + number, partition, check));
        let reply = client.ask(json!({ "history": { "channel": "room", "before": before } })).await?;
        let error = &reply["error"];
        ensure!(error["code"] == "gone" || (error["code"] == "unavailable" && error["retry"] == true), "{reply}");
        refused |= error["retry"] == true;
    }
    ensure!(refused, "the broker was asked for all of them");
    let mut found = data(&page["messages"]);
    let mut again = interval(Duration::from_millis(100));
    let walk = async {
        while let Some(before) = page["next"].as_str() {
            again.tick().await;
            let mut reply = client.ask(json!({ "history": { "channel": "room", "before": before } })).await?;
            if reply["error"]["retry"] != true {
                page = reply["ok"].take();
                ensure!(page.is_object(), "{reply}");
                found.splice(0..0, data(&page["messages"]));
            }
        }
        Ok(())
    };
    timeout(PATIENCE, walk).await.context("the walk does not end")??;
    ensure!(page["complete"] == true && found.len() == MESSAGES, "{} messages, {}", found.len(), page["complete"]);
    Ok(())
}
