//! The three outcomes of a publish, and that a repeat with the same key is delivered once whatever happened in between.

use std::time::Duration;

use anyhow::{Context, Result};
use real_brokers::{Redis, Server};
use serde_json::{Value, json};
use tests::api::Api;
use tests::{Broker, Client, Cluster, PATIENCE, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::node;

tests::on_brokers! { memory Memory, redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_repeat_after_a_cut_connection_a_killed_node_and_a_restarted_broker_is_delivered_once,
} }

/// Sends a publish with a key until it is stored.
async fn store(api: &Api, channel: &str, data: &str) -> Result<Value> {
    let stored = async {
        loop {
            let body = json!({ "channel": channel, "data": data });
            let answer = api.post_with("/v1/publish", &[("Idempotency-Key", data)], &body).await;
            match answer {
                Ok((200, document)) => return Ok(document),
                Ok((503 | 504, problem)) => assert_eq!(problem["retry"], true, "{problem}"),
                Ok((status, problem)) => anyhow::bail!("{status} {problem}"),
                // The node is not there yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, stored).await.context("it is never stored")?
}

async fn a_repeat_after_a_cut_connection_a_killed_node_and_a_restarted_broker_is_delivered_once(
    broker: Broker,
) -> Result<()> {
    let mut cluster = Cluster::of(broker.nodes()).broker(broker).apis().start().await?;
    let last = broker.nodes();
    let client = Client::native(&format!("http://{}", cluster.node_address(last))).await?;
    client.subscribe("orders").await?;
    let (first, other) = (cluster.api(1)?, cluster.api(last)?);

    // The connection is cut before the answer has been read.
    for n in 0..5 {
        let (data, json) = (format!("cut-{n}"), ("Content-Type", "application/json"));
        let body = json!({ "channel": "orders", "data": data }).to_string();
        let headers = [json, ("Idempotency-Key", data.as_str())];
        let mut stream = TcpStream::connect(first.address).await?;
        stream.write_all(&first.request("POST", "/v1/publish", &headers, body.as_bytes())).await?;
        if n % 2 == 0 {
            // The answer is on its way.
            let _ = stream.read(&mut [0; 1]).await?;
        }
        drop(stream);
        store(&other, "orders", &data).await?;
    }

    if broker != Broker::Memory {
        // The node dies with the request, before or after it has passed it on.
        let request = json!({ "channel": "orders", "data": "killed" }).to_string();
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "killed")];
        let mut stream = TcpStream::connect(first.address).await?;
        stream.write_all(&first.request("POST", "/v1/publish", &headers, request.as_bytes())).await?;
        cluster.kill_node("node-1").await?;
        store(&other, "orders", "killed").await?;
        cluster.start_node("node-1").await?;
        store(&first, "orders", "killed").await?;

        store(&first, "orders", "before").await?;
        cluster.broker().restart().await?;
        store(&first, "orders", "before").await?;
        store(&other, "orders", "before").await?;
    }
    store(&other, "orders", "last").await?;
    client.sees("last").await?;
    let mut seen: Vec<_> = client
        .frames()
        .into_iter()
        .filter_map(|frame| match frame {
            tests::Frame::Message { data, .. } => Some(data),
            _ => None,
        })
        .collect();
    seen.sort_unstable();
    let cut = (0..5).map(|n| format!("cut-{n}"));
    let mut expected: Vec<_> = cut.chain(["last".to_owned()]).collect();
    if broker != Broker::Memory {
        expected.extend(["killed".to_owned(), "before".to_owned()]);
    }
    expected.sort_unstable();
    assert_eq!(seen, expected);
    cluster.well();
    Ok(())
}

#[tokio::test]
async fn without_a_broker_a_publish_is_surely_not_stored() -> Result<()> {
    let redis = Redis::new(0)?;
    redis.start().await?;
    let url = redis.inside_url();
    let (node, api) = node(&[("FANFARE__BROKER__URL", &url), ("FANFARE__BROKER__PUBLISH_TIMEOUT", "500ms")]).await?;
    redis.kill().await?;
    http::until(node.address, "/ready", |answer| answer.status == 503).await?;
    let (status, problem) = api.post("/v1/publish", &json!({ "channel": "a", "data": "lost" })).await?;
    assert_eq!((status, &problem["code"], &problem["retry"]), (503, &json!("unavailable"), &json!(true)), "{problem}");
    let channels = json!({ "channels": ["a", "b"], "data": "lost" });
    let (status, problem) = api.post("/v1/publish", &channels).await?;
    assert_eq!((status, &problem["results"][1]["channel"]), (503, &json!("b")), "{problem}");
    redis.start().await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    let (_, stored) = api.post("/v1/publish", &json!({ "channel": "a", "data": "kept" })).await?;
    let (_, page) = api.get("/v1/channels/a/history").await?;
    assert_eq!(page["messages"], json!([{ "data": "kept", "at": stored["at"] }]), "{page}");
    Ok(())
}

#[tokio::test]
async fn a_broker_that_does_not_confirm_makes_a_publish_unknown_and_a_repeat_delivers_it_once() -> Result<()> {
    let redis = Redis::new(0)?;
    redis.start().await?;
    let url = redis.inside_url();
    let (node, api) = node(&[("FANFARE__BROKER__URL", &url), ("FANFARE__BROKER__PUBLISH_TIMEOUT", "500ms")]).await?;
    let client = super::listener(&node, "a").await?;
    redis.freeze().await?;
    let body = json!({ "channel": "a", "data": "once", "key": "order-17" });
    let (status, problem) = api.post("/v1/publish", &body).await?;
    assert_eq!((status, &problem["code"], &problem["retry"]), (504, &json!("unknown"), &json!(true)), "{problem}");
    redis.thaw().await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    let stored = async {
        loop {
            let (status, answer) = api.post("/v1/publish", &body).await?;
            match status {
                200 => return anyhow::Ok(answer),
                _ => assert!(status == 503 || status == 504, "{status} {answer}"),
            }
        }
    };
    timeout(PATIENCE, stored).await.context("it is never stored")??;
    api.post("/v1/publish", &json!({ "channel": "a", "data": "last" })).await?;
    client.sees("last").await?;
    let count = client
        .frames()
        .iter()
        .filter(|frame| matches!(frame, tests::Frame::Message { data, .. } if data == "once"))
        .count();
    assert_eq!(count, 1, "{:?}", client.frames());
    Ok(())
}

#[tokio::test]
async fn a_batch_with_one_key_is_repeated_message_by_message() -> Result<()> {
    let (node, api) = node(&[]).await?;
    let client = super::listener(&node, "a").await?;
    let messages = json!({ "messages": [{ "channel": "a", "data": "0" }, { "channel": "a", "data": "1", "key": "own" }, { "channel": "a", "data": "2" }] });
    for _ in 0..3 {
        let (status, answer) = api.post_with("/v1/batch", &[("Idempotency-Key", "batch-1")], &messages).await?;
        assert_eq!((status, answer["results"].as_array().map(Vec::len)), (200, Some(3)), "{answer}");
    }
    api.post("/v1/publish", &json!({ "channel": "a", "data": "last" })).await?;
    client.sees("last").await?;
    assert_eq!(client.count(), 4, "{:?}", client.frames());
    Ok(())
}

#[tokio::test]
async fn a_draining_node_answers_until_its_clients_have_left_and_requests_under_way_get_their_answers() -> Result<()> {
    let (mut node, api) = node(&[("FANFARE__TIMING__DRAIN_WAIT", "1s"), ("FANFARE__TIMING__DRAIN", "1s")]).await?;
    let client = super::listener(&node, "a").await?;
    node.signal("TERM").await?;
    http::until(api.address, "/ready", |answer| answer.status == 503 && answer.body.contains("draining")).await?;
    assert_eq!(api.post("/v1/publish", &json!({ "channel": "a", "data": "while it drains" })).await?.0, 200);
    client.sees("while it drains").await?;
    // The head of a request is there when the node stops, and its body comes afterwards.
    let body = json!({ "channel": "a", "data": "late" }).to_string();
    let request = api.request("POST", "/v1/publish", &[("Content-Type", "application/json")], body.as_bytes());
    let (begin, rest) = request.split_at(request.len() - 5);
    let mut stream = TcpStream::connect(api.address).await?;
    stream.write_all(begin).await?;
    client.ended().await?;
    let refused = async {
        while TcpStream::connect(api.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.context("it still accepts connections")?;
    let answer = http::exchange(&mut stream, rest).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(node.ended().await?.code(), Some(0));
    Ok(())
}
