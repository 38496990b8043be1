//! Subscriptions and messages that the backend decides about.

use futures_util::future::try_join_all;
use tests::backend::{Question, Reply, ok};
use tests::events::Events;
use tests::wire::Frame;

use super::*;

/// Allows everything but on channels whose name ends in `no`, and changes messages on `loud`.
fn by_channel(question: &Question) -> Reply {
    let json = &question.json;
    match json["channel"].as_str().unwrap_or_default() {
        name if name.ends_with("no") => ok(&json!({ "allow": false, "message": format!("{name} is closed") })),
        "loud" if json["hook"] == "publish" => {
            ok(&json!({ "allow": true, "data": json["data"].as_str().unwrap_or("?").to_uppercase() }))
        }
        "bytes" if json["hook"] == "publish" => ok(&json!({ "allow": true, "base64": "AP8=" })),
        _ => ok(&json!({ "allow": true })),
    }
}

#[tokio::test]
async fn a_subscription_and_a_message_are_allowed_changed_or_refused_in_the_backends_words() -> Result<()> {
    let backend = Backend::start(by_channel).await?;
    let node = asking(&backend, &[]).await?;
    let mut wire = Wire::open(node.address, "/ws").await?;
    for (channel, sent, received) in [("plain", "hi", "hi"), ("loud", "hi", "HI")] {
        assert!(wire.ask(&subscribe(channel)).await?["ok"].is_object());
        wire.send(Frame::text(publish(channel, sent)).bytes()).await?;
        let both = [wire.message().await?, wire.message().await?].join(" ");
        assert!(both.contains("\"ok\"") && both.contains(&format!("\"data\":\"{received}\"")), "{both}");
    }
    for what in [subscribe("room-no"), publish("room-no", "hi")] {
        let error = wire.ask(&what).await?["error"].take();
        let said = error["message"].as_str().is_some_and(|message| message.starts_with("room-no is closed"));
        assert!(error["code"] == "forbidden" && said, "{error}");
    }
    assert!(wire.ask(&subscribe("free")).await?["ok"].is_object());
    let questions: Vec<_> = backend.questions().into_iter().map(|question| question.json).collect();
    assert_eq!(questions[0], json!({ "hook": "subscribe", "user": null, "channel": "plain" }));
    assert_eq!(questions[1], json!({ "hook": "publish", "user": null, "channel": "plain", "data": "hi" }));
    assert_eq!(questions.len(), 6, "not about `free`: {questions:?}");
    let connections: Vec<_> = backend.questions().iter().map(|question| question.connection).collect();
    assert!(connections.iter().max() < Some(&3), "connections are kept: {connections:?}");
    Ok(())
}

#[tokio::test]
async fn raw_sockets_event_streams_and_posted_messages_ask_the_same_backend() -> Result<()> {
    let backend = Backend::start(by_channel).await?;
    let node = asking(&backend, &[("FANFARE__HTTP__PUBLISH", "true")]).await?;
    let (_, response) = handshake(&node, Head::upgrade("/raw/room-no")).await?;
    assert_eq!(response.status, 403, "{response:?}");
    assert_eq!(Events::open(node.address, "/sse?channel=room-no", &[]).await?.status, 403);
    let mut raw = Wire::open(node.address, "/raw/loud").await?;
    let mut events = Events::open(node.address, "/sse?channel=loud", &[]).await?;
    raw.send(Frame::text("one").bytes()).await?;
    assert_eq!(raw.message().await?, "ONE");
    assert!(events.event().await?.data.contains("ONE"));
    for (channel, status) in [("loud", 200), ("room-no", 403)] {
        let body = json!({ "channel": channel, "data": "two" }).to_string();
        let length = body.len();
        let request = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = http::ask(&mut tokio::net::TcpStream::connect(node.address).await?, &request).await?;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(raw.message().await?, "TWO");
    assert!(events.event().await?.data.contains("TWO"));
    Ok(())
}

#[tokio::test]
async fn while_a_decision_is_pending_later_commands_of_its_connection_wait_in_order_and_others_go_on() -> Result<()> {
    let backend = Backend::start(by_channel).await?;
    let node = asking(&backend, &[]).await?;
    let (mut waiting, mut other) = (Wire::open(node.address, "/ws").await?, Wire::open(node.address, "/ws").await?);
    backend.hold();
    let free = command(7, "subscribe", &json!({ "channel": "free" }));
    let commands = [subscribe("plain"), publish("room-no", 1), free, command(8, "ping", &json!({}))];
    waiting.send(commands.iter().flat_map(|text| Frame::text(text.clone()).bytes()).collect::<Vec<_>>()).await?;
    backend.asked(1).await?;
    assert!(other.ask(&subscribe("free")).await?["ok"].is_object());
    assert!(other.ask(&command(5, "ping", &json!({}))).await?["ok"].is_object());
    assert_eq!(backend.questions().len(), 1, "the second question waits for the first answer");
    backend.release();
    for id in [1, 2, 7, 8] {
        let reply: Value = serde_json::from_str(&waiting.message().await?)?;
        assert_eq!(reply["id"], id, "{reply}");
    }
    Ok(())
}

#[tokio::test]
async fn a_hundred_equal_subscriptions_at_once_are_one_question() -> Result<()> {
    let backend = Backend::start(|_| ok(&json!({ "allow": true, "ttl": 60 }))).await?;
    let node = asking(&backend, &[]).await?;
    let mut wires = try_join_all((0..100).map(|_| Wire::open(node.address, "/ws"))).await?;
    backend.hold();
    let asking = try_join_all(wires.iter_mut().map(async |wire| wire.ask(&subscribe("room")).await));
    let release = async {
        backend.asked(1).await?;
        backend.release();
        anyhow::Ok(())
    };
    let (replies, ()) = tokio::try_join!(asking, release)?;
    assert!(replies.iter().all(|reply| reply["ok"].is_object()), "{replies:?}");
    assert_eq!(backend.questions().len(), 1);
    assert_eq!(metric(&node, "fanfare_hook_requests_total{hook=\"subscribe\",came=\"answer\"}").await?, 1);
    Ok(())
}
