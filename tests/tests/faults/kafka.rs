//! What an operator can do to a Kafka topic.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::history::offset;
use tests::{Client, http};

use crate::stage::{CHANNELS, Case, Stage, last_positions, partition};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const DELETE: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
/// The topic of a URL that names none.
const TOPIC: &str = "fanfare";

/// Nodes make it anew.
pub(crate) async fn a_topic_made_anew_is_announced_to_every_subscriber(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.broker().tool(&[TOPICS, "--delete", "--topic", TOPIC]).await?;
    stage.until_lost(&CHANNELS, "reset", |_| true).await?;
    stage.refill().await?;
    stage.flows().await?;
    ensure!(stage.steady.iter().all(Client::is_open), "native clients stay");
    stage.lawful().await
}

pub(crate) async fn retention_is_announced_to_clients_that_had_not_read(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    let (here, elsewhere) = (|client: &Client| client.node == "node-1", |client: &Client| client.node != "node-1");
    stage.cut_off("node-1").await?;
    stage.flows_for(elsewhere).await?;
    let read = stage.steady.iter().find(|client| elsewhere(client)).context("a client elsewhere")?;
    let read = last_positions(read)?;
    // By then all others have read it too.
    stage.flows_for(elsewhere).await?;
    // Offsets in positions count from 1. Kafka's begin with 0, and it deletes the records before one.
    let until = |(channel, position): (&&str, &String)| {
        Ok(json!({ "topic": TOPIC, "partition": partition(channel), "offset": offset(position)? }))
    };
    let until = CHANNELS.iter().zip(&read).map(until).collect::<Result<Vec<_>>>()?;
    let (broker, file) = (stage.cluster.broker(), "delete.json");
    std::fs::write(broker.process().file(file), json!({ "version": 1, "partitions": until }).to_string())?;
    broker.tool(&[DELETE, "--offset-json-file", file]).await?;
    stage.cluster.wire("node-1")?.mend();
    stage.until_lost(&CHANNELS, "trimmed", here).await?;
    stage.unharmed(&CHANNELS, elsewhere)?;
    stage.cluster.balanced().await?;
    stage.refill().await?;
    stage.flows().await?;
    stage.lawful().await
}

pub(crate) async fn a_node_refuses_to_start_where_partitions_were_added(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.broker().tool(&[TOPICS, "--alter", "--topic", TOPIC, "--partitions", "17"]).await?;
    stage.cluster.kill_node("node-3").await?;
    stage.cluster.launch_node("node-3").await?;
    let said = stage.cluster.line("node-3", "17 partitions").await?;
    ensure!(said.contains("WARN"), "{said}");
    ensure!(http::get(stage.cluster.node_address(3), "/ready").await?.status == 503);
    stage.lawful().await
}
