//! Which clients get a message, and which of them its trace.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::events::Events;
use tests::wire::Wire;
use tests::{Broker, Client, Cluster, Frame};

use super::node;

tests::on_brokers! { memory Memory, redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    an_excluded_client_does_not_get_the_message_and_all_others_do,
} }

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn id(client: &Client) -> Result<String> {
    let reply = client.ask(json!({ "connect": {} })).await?;
    Ok(reply["ok"]["client"].as_str().context("no id")?.to_owned())
}

fn texts(client: &Client) -> Vec<String> {
    let message = |frame: Frame| match frame {
        Frame::Message { data, .. } => Some(data),
        _ => None,
    };
    client.frames().into_iter().filter_map(message).collect()
}

async fn an_excluded_client_does_not_get_the_message_and_all_others_do(broker: Broker) -> Result<()> {
    let rules = r#"[{ match = "newest", slow = "latest" }, { match = "all" }]"#;
    let cluster = Cluster::of(broker.nodes()).shared(broker).apis().set("FANFARE__CHANNELS", rules).start().await?;
    for channel in ["all", "newest"] {
        let url = |node: usize| format!("http://{}", cluster.node_address(node));
        let (one, other) = (Client::native(&url(1)).await?, Client::native(&url(broker.nodes())).await?);
        let path = format!("/sse/{channel}");
        let mut stream = Events::open(cluster.node_address(1), &path, &[]).await?;
        stream.placed().await?;
        let excluded = id(&one).await?;
        for client in [&one, &other] {
            client.subscribe(channel).await?;
        }
        let api = cluster.api(broker.nodes())?;
        let said = |data: &str, client: Option<&str>| {
            let mut body = json!({ "channel": channel, "data": data });
            if let Some(client) = client {
                body["exclude"] = client.into();
            }
            body
        };
        for body in [said("1", None), said("2", Some(&excluded)), said("3", Some("nobody"))] {
            ensure!(api.post("/v1/publish", &body).await?.0 == 200);
        }
        let batch = json!({ "messages": [said("4", Some(&excluded)), said("5", None)] });
        ensure!(api.post("/v1/batch", &batch).await?.0 == 200);
        one.sees("5").await?;
        other.sees("5").await?;
        ensure!(texts(&one) == ["1", "3", "5"], "{:?}", texts(&one));
        ensure!(texts(&other) == ["1", "2", "3", "4", "5"], "{:?}", texts(&other));
        for expected in ["1", "2", "3", "4", "5"] {
            ensure!(stream.event().await?.data == expected);
        }
        // Neither older messages nor a resume gives it what it was excluded from, and its place has moved past that.
        let given = |reply: Value| -> Vec<String> {
            let messages = reply["ok"]["messages"].as_array().cloned().unwrap_or_default();
            messages.iter().filter_map(|message| message["data"].as_str().map(str::to_owned)).collect()
        };
        let history = json!({ "history": { "channel": channel } });
        ensure!(given(one.ask(history.clone()).await?) == ["1", "3", "5"]);
        ensure!(given(other.ask(history).await?) == ["1", "2", "3", "4", "5"]);
        one.unsubscribe(channel).await?;
        for body in [said("6", Some(&excluded)), said("7", None)] {
            ensure!(api.post("/v1/publish", &body).await?.0 == 200);
        }
        other.sees("7").await?;
        one.ask(json!({ "subscribe": { "channel": channel, "last": 3 } })).await?;
        one.sees("7").await?;
        let seen = texts(&one);
        ensure!(!["2", "4", "6"].iter().any(|data| seen.contains(&(*data).to_owned())), "{seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_id_that_cannot_be_a_clients_is_refused() -> Result<()> {
    let (_node, api) = node(&[]).await?;
    for exclude in [json!(""), json!("x".repeat(65)), json!(null), json!(7)] {
        let (status, problem) =
            api.post("/v1/publish", &json!({ "channel": "a", "data": 1, "exclude": exclude })).await?;
        assert_eq!((status, &problem["code"]), (400, &json!("bad_request")), "{exclude}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn a_trace_reaches_the_clients_that_ask_for_it() -> Result<()> {
    let (node, api) = node(&[]).await?;
    let mut asking = Wire::open(node.address, "/ws?a=b&trace=true").await?;
    let mut plain = Wire::open(node.address, "/ws").await?;
    for wire in [&mut asking, &mut plain] {
        wire.ask(&json!({ "id": 1, "subscribe": { "channel": "news" } }).to_string()).await?;
    }
    let body = json!({ "channel": "news", "data": "traced" });
    ensure!(api.post_with("/v1/publish", &[("traceparent", TRACE)], &body).await?.0 == 200);
    ensure!(api.post_with("/v1/publish", &[("traceparent", "no trace")], &body).await?.0 == 200);
    for (wire, traces) in [(&mut asking, [json!(TRACE), json!(null)]), (&mut plain, [json!(null), json!(null)])] {
        for expected in traces {
            let message: Value = serde_json::from_str(&wire.message().await?)?;
            assert_eq!((&message["data"], &message["trace"]), (&json!("traced"), &expected), "{message}");
        }
    }
    Ok(())
}
