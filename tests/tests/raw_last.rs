//! `/raw/{channel}?last=N`: the last messages of the channel first, then live ones.

use anyhow::Result;
use serde_json::json;
use tests::Program;
use tests::wire::{self, Frame, Head, Wire};

async fn node(environment: &[(&str, &str)]) -> Result<Program> {
    wire::serve("fanfare", environment).await
}

/// Publishes texts and waits until each is stored.
async fn publish(publisher: &mut Wire, channel: &str, texts: impl IntoIterator<Item = String>) -> Result<()> {
    for text in texts {
        let reply = publisher.ask(&json!({ "publish": { "channel": channel, "data": text } }).to_string()).await?;
        assert!(reply["ok"].is_object(), "{reply}");
    }
    Ok(())
}

/// The messages that are there, up to the one that a client now publishes itself.
async fn older(client: &mut Wire) -> Result<Vec<String>> {
    client.send(Frame::text("live").bytes()).await?;
    up_to_live(client).await
}

async fn up_to_live(client: &mut Wire) -> Result<Vec<String>> {
    let mut older = Vec::new();
    loop {
        match client.message().await? {
            text if text == "live" => return Ok(older),
            text => older.push(text),
        }
    }
}

fn numbers(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn as_many_of_the_last_messages_as_asked_for_come_before_live_ones() -> Result<()> {
    let node = node(&[]).await?;
    let mut publisher = Wire::open(node.address, "/ws").await?;
    for (channel, query, expected) in
        [("a", "", 5..5), ("b", "?last=3", 2..5), ("c", "?last=1000", 0..5), ("d", "?x=1&last=1", 4..5)]
    {
        publish(&mut publisher, channel, numbers(0..5)).await?;
        let mut client = Wire::open(node.address, &format!("/raw/{channel}{query}")).await?;
        assert_eq!(older(&mut client).await?, numbers(expected), "{channel}{query}");
    }
    Ok(())
}

#[tokio::test]
async fn the_rule_of_the_channel_limits_them() -> Result<()> {
    let rules = r#"[{ match = "price:*", subscribe = "anyone", publish = "anyone", last = 1 },
                    { match = "open:*", subscribe = "anyone", publish = "anyone", history = "anyone" },
                    { match = "closed:*", subscribe = "anyone", publish = "anyone" }]"#;
    let node = node(&[("FANFARE__CHANNELS", rules)]).await?;
    let mut publisher = Wire::open(node.address, "/ws").await?;
    for (channel, expected) in [("price:a", 4..5), ("open:a", 2..5), ("closed:a", 5..5)] {
        publish(&mut publisher, channel, numbers(0..5)).await?;
        let mut client = Wire::open(node.address, &format!("/raw/{channel}?last=3")).await?;
        assert_eq!(older(&mut client).await?, numbers(expected), "{channel}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_a_number_from_1_to_1000_is_refused() -> Result<()> {
    let node = node(&[]).await?;
    for query in ["last=0", "last=1001", "last=", "last=two", "last=1&last=-1"] {
        let mut client = Wire::connect(node.address).await?;
        client.send(Head::upgrade(format!("/raw/news?{query}")).bytes()).await?;
        let response = client.response().await?;
        assert!(response.status == 400 && response.body.contains("1 to 1000"), "{query}: {response:?}");
    }
    Ok(())
}

/// The node reads the older messages from the broker meanwhile.
#[tokio::test]
async fn a_message_that_comes_with_the_request_is_published_after_the_older_ones_were_asked_for() -> Result<()> {
    let node = node(&[("FANFARE__WINDOW__BYTES", "32KiB")]).await?;
    let mut publisher = Wire::open(node.address, "/ws").await?;
    publish(&mut publisher, "news", numbers(0..30)).await?;
    let mut there = Wire::open(node.address, "/raw/beside").await?;
    // Older than the window from now on.
    for number in 0..100 {
        publish(&mut publisher, "beside", [format!("{number} {}", "x".repeat(1_000))]).await?;
        there.message().await?;
    }
    let mut client = Wire::connect(node.address).await?;
    let mut request = Head::upgrade("/raw/news?last=1000").bytes();
    request.extend(Frame::text("live").bytes());
    client.send(request).await?;
    assert_eq!(client.response().await?.status, 101);
    assert_eq!(up_to_live(&mut client).await?, numbers(0..30));
    Ok(())
}
