//! `history` page by page, on any node.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::{Broker, Client, Cluster};

use super::{channels, data, history, publish, read_back, read_on, subscribe, url};

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq, memory Memory: {
    history_on_any_node_pages_through_exactly_what_was_published,
} }

async fn history_on_any_node_pages_through_exactly_what_was_published(broker: Broker) -> Result<()> {
    const MESSAGES: usize = 600;
    // The most recent ones alone are in memory.
    let plan = Cluster::of(broker.nodes().min(2)).shared(broker);
    let mut cluster = plan.set("FANFARE__WINDOW__BYTES", "48KiB").start().await?;
    let speaker = Client::native(&url(&cluster, 1)).await?;
    let channels = channels(&speaker).await?;
    let mut begins = Vec::new();
    for channel in &channels {
        begins.push(subscribe(&speaker, channel).await?);
    }
    let mut published = [const { Vec::new() }; 3];
    for number in 0..MESSAGES {
        let index = fastrand::usize(..channels.len());
        let text = format!("{number} {}", "x".repeat(fastrand::usize(..200)));
        if fastrand::u8(..10) == 0 {
            // Twice under one key: one message.
            for _ in 0..2 {
                let command = json!({ "channel": channels[index], "data": text, "key": number.to_string() });
                let reply = speaker.ask(json!({ "publish": command })).await?;
                ensure!(reply["ok"].is_object(), "{reply}");
            }
        } else {
            publish(&speaker, &channels[index], &text).await?;
        }
        published[index].push(text);
    }
    // A node that has seen none of it live.
    if broker.nodes() > 1 {
        cluster.kill_node("node-2").await?;
        cluster.start_node("node-2").await?;
    }
    for node in 1..=broker.nodes().min(2) {
        let client = Client::native(&url(&cluster, node)).await?;
        // It has read all of it once it hears this.
        for (channel, begin) in channels.iter().zip(&begins) {
            let last = speaker.ask(json!({ "history": { "channel": channel, "limit": 1 } })).await?;
            let since = last["ok"]["messages"][0]["at"].as_str().unwrap_or(begin).to_owned();
            ensure!(client.resume(channel, &since).await?["recovered"] == true, "the node is behind");
            client.unsubscribe(channel).await?;
        }
        for ((channel, published), begin) in channels.iter().zip(&published).zip(&begins) {
            let (found, complete) = read_back(&client, channel).await?;
            ensure!(found == *published, "node {node}, {channel}: {} of {}", found.len(), published.len());
            ensure!(complete, "node {node}: the log has no more of {channel}");
            ensure!(read_on(&client, channel, begin).await? == *published, "node {node}: {channel} onwards");
        }
        let (nothing, complete) = read_back(&client, "never-used").await?;
        ensure!(nothing.is_empty() && complete, "node {node}: a channel without messages");
    }
    let refused = speaker.ask(json!({ "history": { "channel": channels[0], "since": begins[2] } })).await?;
    ensure!(refused["error"]["code"] == "gone" && refused["error"]["retry"] == false, "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_bounded_in_bytes_and_closes_no_client_that_reads() -> Result<()> {
    let limits = [("FANFARE__LIMITS__MESSAGE", "16KiB"), ("FANFARE__LIMITS__OUTBOX", "64KiB")];
    let node = tests::Program::start("fanfare", &[], &limits).await?;
    let client = Client::native(&format!("http://{}", node.address)).await?;
    for number in 0..40 {
        publish(&client, "room", &format!("{number} {}", "x".repeat(8000))).await?;
    }
    let page = history(&client, json!({ "channel": "room", "limit": 1000 })).await?;
    ensure!((1..=4).contains(&data(&page["messages"]).len()), "{} messages", data(&page["messages"]).len());
    let asks = (0..8).map(|_| client.ask(json!({ "history": { "channel": "room", "limit": 1000 } })));
    for reply in try_join_all(asks).await? {
        ensure!(reply["ok"]["messages"] == page["messages"], "all at once");
    }
    ensure!(read_back(&client, "room").await?.0.len() == 40 && client.is_open());
    Ok(())
}
