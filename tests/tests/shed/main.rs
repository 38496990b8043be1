//! Moving clients to emptier nodes: `fanfare shed` and `POST /v1/shed`.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

mod orders;
mod scale_out;

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::api::Api;
use tests::{Broker, Cluster, PATIENCE, binary};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use self::orders::*;

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    only_clients_that_can_resume_move_unless_everyone_shall,
    another_order_replaces_a_shed_and_a_stop_ends_it,
} }

tests::on_brokers! { redis_alone Redis: {
    clients_that_come_back_to_the_full_node_are_not_moved_again_and_the_command_says_so,
    a_node_that_drains_meanwhile_raises_the_share_of_the_others,
    a_node_that_dies_meanwhile_raises_the_share_of_the_others,
    a_full_node_that_begins_to_drain_gives_up_all_its_clients_as_it_does_without_a_shed,
} }

tests::on_brokers! { alone Memory: {
    a_node_that_is_alone_has_nothing_to_do_and_says_so,
} }

/// To reconnect, and resume.
const MOVED: u16 = 1012;

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(50);

/// A node, as another one or it itself has it.
async fn node(api: &Api, name: &str) -> Result<Option<Value>> {
    let (status, document) = api.get("/v1/nodes").await?;
    ensure!(status == 200, "{status}: {document}");
    Ok(document["nodes"].as_array().context("a list")?.iter().find(|node| node["name"] == name).cloned())
}

/// Waits until each of so many nodes knows the others.
async fn all_know_all(cluster: &Cluster, nodes: usize) -> Result<()> {
    for asked in 1..=nodes {
        for named in 1..=nodes {
            let known = |node: &Value| node.is_object();
            until_node(&cluster.api(asked)?, &format!("node-{named}"), "known", known).await?;
        }
    }
    Ok(())
}

/// Orders a shed.
async fn order(api: &Api, body: &Value) -> Result<Value> {
    let (status, answer) = api.post("/v1/shed", body).await?;
    ensure!(status == 200, "{status}: {answer}");
    Ok(answer)
}

/// What a node gives up by the answer to an order.
fn gives(answer: &Value, name: &str) -> Option<u64> {
    answer["nodes"].as_array()?.iter().find(|node| node["name"] == name)?["gives"].as_u64()
}

/// Waits until a node is as wanted.
async fn until_node(api: &Api, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let begin = Instant::now();
    loop {
        let found = node(api, name).await?.unwrap_or_default();
        if wanted(&found) {
            return Ok(found);
        }
        ensure!(begin.elapsed() < PATIENCE, "{name} should be {what}, and is {found}");
        sleep(GLANCE).await;
    }
}

/// Waits until a node says what is wanted of its part of a shed.
async fn until(api: &Api, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = until_node(api, name, what, |node| wanted(&node["shed"])).await?;
    Ok(found["shed"].clone())
}

/// Waits until this node is done with a shed.
async fn until_done(api: &Api, name: &str, answer: &Value) -> Result<Value> {
    until(api, name, "done", |shed| shed["id"] == answer["id"] && shed["state"] == "done").await
}

/// Runs `fanfare shed` for the first node to its end.
async fn command(cluster: &Cluster, arguments: &[&str]) -> Result<Output> {
    let api = cluster.api(1)?;
    let mut command = Command::new(binary("fanfare")?);
    command.args(["shed", "--api", &format!("http://{}", api.address), "--key", &api.key]).args(arguments);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(timeout(2 * PATIENCE, output).await.context("it does not end")??)
}

/// What a command that went well printed.
fn printed(output: &Output) -> Result<&str> {
    let (stdout, stderr) = (str::from_utf8(&output.stdout)?, str::from_utf8(&output.stderr)?);
    ensure!(output.status.success() && stderr.is_empty(), "{}: {stdout}{stderr}", output.status);
    Ok(stdout)
}

async fn a_node_that_is_alone_has_nothing_to_do_and_says_so(broker: Broker) -> Result<()> {
    let mut cluster = Cluster::of(1).broker(broker).apis().start().await?;
    let answer = order(&cluster.api(1)?, &json!({})).await?;
    ensure!(answer["moves"] == 0 && answer.get("at").is_none() && gives(&answer, "node-1") == Some(0), "{answer}");
    for arguments in [&[][..], &["--dry-run"]] {
        let output = command(&cluster, arguments).await?;
        ensure!(printed(&output)?.contains("Nothing to do"), "{output:?}");
    }
    let stop = command(&cluster, &["--stop"]).await?;
    ensure!(printed(&stop)?.contains("stopped"), "{stop:?}");
    let wrong = command(&cluster, &["--pace", "0"]).await?;
    let said = str::from_utf8(&wrong.stderr)?;
    ensure!(wrong.status.code() == Some(1) && said.contains("`pace` is 1 to"), "{wrong:?}");
    cluster.well();
    Ok(())
}
