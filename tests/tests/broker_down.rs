//! A broker that is down when a node starts, and again later: the node waits for it and says so once.
//!
//! What happens to messages when a broker fails under load is in `faults/`.

use anyhow::Result;
use real_brokers::{Redis, Server};
use tests::{Program, http};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_broker_that_is_down_at_start_is_retried_and_said_once() -> Result<()> {
    let redis = Redis::new(0)?;
    // Stands where Redis should be, and drops whoever calls: so its callers can be counted.
    let nobody = TcpListener::bind(redis.port().address).await?;
    let node = Program::start("fanfare", &["--broker", &redis.inside_url()], &[]).await?;
    for _ in 0..5 {
        drop(nobody.accept().await?);
    }
    let answer = http::get(node.address, "/ready").await?;
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("not ready: the broker"), "{}", answer.body);
    assert_eq!(http::get(node.address, "/live").await?.status, 200);
    drop(nobody);
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
    assert_eq!((said("broker link down"), said("broker link up")), (2, 2), "{output}");
    let down = output.lines().find(|line| line.contains("broker link down")).unwrap_or_default();
    assert!(down.contains("WARN") && down.contains(&redis.port().address.to_string()), "{down}");
    Ok(())
}
