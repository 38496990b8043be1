//! A broker that is down when a node starts, and again later: the node waits for it, and says why.
//!
//! What happens to messages when a broker fails under load is in `faults/`.

use anyhow::Result;
use real_brokers::{Redis, Server};
use tests::wire::{self, Frame, Wire};
use tests::{Program, http};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_broker_that_is_down_at_start_is_retried_and_said() -> Result<()> {
    let redis = Redis::new(0)?;
    // Stands in for Redis and drops each connection, so that attempts can be counted.
    let silent = TcpListener::bind(redis.port().address).await?;
    let node = Program::start("fanfare", &["--broker", &redis.inside_url()], &[]).await?;
    for _ in 0..5 {
        drop(silent.accept().await?);
    }
    let answer = http::get(node.address, "/ready").await?;
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("not ready: the broker"), "{}", answer.body);
    assert_eq!(http::get(node.address, "/live").await?.status, 200);
    drop(silent);
    assert_eq!(http::get(node.address, "/ready").await?.status, 503);
    redis.start().await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    node.line("broker link up").await?;

    redis.kill().await?;
    http::until(node.address, "/ready", |answer| answer.status == 503).await?;
    assert_eq!(http::get(node.address, "/live").await?.status, 200);
    redis.start().await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;

    let output = node.output();
    let said = |text: &str| output.lines().filter(|line| line.contains(text)).count();
    // Once at the begin of each outage; again when its cause is another one, at most every 5 s.
    assert!((2..=4).contains(&said("broker link down")) && said("broker link up") == 2, "{output}");
    let down = output.lines().find(|line| line.contains("broker link down")).unwrap_or_default();
    assert!(down.contains("WARN") && down.contains(&redis.port().address.to_string()), "{down}");
    Ok(())
}

#[tokio::test]
async fn an_outage_whose_cause_changes_says_the_new_one() -> Result<()> {
    let redis = Redis::new(0)?;
    // This Redis wants a password, which the URL lacks.
    let url = format!("redis://{}", redis.port().address);
    let node = Program::start("fanfare", &["--broker", &url], &[]).await?;
    http::until(node.address, "/ready", |answer| answer.status == 503 && answer.body.contains("refused")).await?;
    redis.start().await?;
    http::until(node.address, "/ready", |answer| answer.status == 503 && answer.body.contains("password")).await?;
    let line = node.line("password").await?;
    assert!(line.contains("WARN") && line.contains("broker link down"), "{line}");
    Ok(())
}

#[tokio::test]
async fn a_raw_publisher_whose_messages_cannot_be_published_is_closed_with_1013() -> Result<()> {
    let redis = Redis::new(0)?;
    redis.start().await?;
    let url = redis.inside_url();
    let node = [("FANFARE__BROKER__URL", &*url), ("FANFARE__BROKER__PUBLISH_TIMEOUT", "500ms")];
    let server = wire::serve("fanfare", &node).await?;
    let mut publisher = Wire::open(server.address, "/raw/room").await?;
    redis.freeze().await?;
    publisher.send(Frame::text("1").bytes()).await?;
    publisher.send(Frame::text("2").bytes()).await?;
    let end = publisher.end().await?;
    redis.thaw().await?;
    assert_eq!((end.code, end.reset), (Some(1013), false), "{}", end.reason);
    assert!(end.frames.is_empty(), "{:?}", end.frames);
    Ok(())
}
