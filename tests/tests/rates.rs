//! Limits on how often a client may do what it may do.

use anyhow::Result;
use serde_json::Value;
use tests::Program;
use tests::http::{self, Answer};
use tests::wire::{self, Frame, Wire};

async fn node() -> Result<Program> {
    wire::serve("fanfare", &[("FANFARE__LIMITS__PUBLISHES_PER_SECOND", "10")]).await
}

fn publish(number: u64) -> Vec<u8> {
    Frame::text(format!(r#"{{"id":{number},"publish":{{"channel":"a","data":{number}}}}}"#)).bytes()
}

#[tokio::test]
async fn a_client_over_its_rate_is_refused_with_the_time_to_wait_and_others_are_not() -> Result<()> {
    let node = node().await?;
    let mut eager = Wire::open(node.address, "/ws").await?;
    let (mut stored, mut refused) = (0, 0);
    eager.send((0..40).flat_map(publish).collect::<Vec<_>>()).await?;
    while stored + refused < 40 {
        let reply: Value = serde_json::from_str(&eager.message().await?)?;
        let error = &reply["error"];
        if error.is_null() {
            stored += 1;
            continue;
        }
        refused += 1;
        assert_eq!((&error["code"], &error["retry"]), (&"rate_limited".into(), &true.into()), "{reply}");
        assert!(error["retry_after_ms"].as_u64().is_some_and(|wait| (1..=4_000).contains(&wait)), "{reply}");
    }
    assert!((20..25).contains(&stored), "the commands of two seconds come at once: {stored}");
    let mut other = Wire::open(node.address, "/ws").await?;
    assert!(other.ask(r#"{"id":1,"publish":{"channel":"a","data":1}}"#).await?["ok"].is_object());
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_slow_down_is_closed_with_4429() -> Result<()> {
    let node = node().await?;
    let mut flooding = Wire::open(node.address, "/ws").await?;
    // The node closes before it has read everything.
    let _ = flooding.exchange((0..1_000).flat_map(publish).collect::<Vec<_>>()).await;
    let end = flooding.end().await?;
    assert_eq!(end.code, Some(4429), "{end:?}");
    let mut raw = Wire::open(node.address, "/raw/a").await?;
    let _ = raw.exchange((0..100).flat_map(|n| Frame::text(n.to_string()).bytes()).collect::<Vec<_>>()).await;
    let end = raw.end().await?;
    assert_eq!(end.code, Some(4429), "a raw client has no other word for it: {end:?}");
    let counted = |answer: &Answer| answer.body.contains(r#"fanfare_connections_closed_total{reason="rate"} 2"#);
    http::until(node.address, "/metrics", counted).await?;
    Ok(())
}

#[tokio::test]
async fn a_rule_with_a_rate_limits_its_channels_and_no_others() -> Result<()> {
    let rules = r#"[{ match = "a", rate = 5 }, { match = "*" }]"#;
    let node = wire::serve("fanfare", &[("FANFARE__CHANNELS", rules)]).await?;
    let mut wire = Wire::open(node.address, "/ws").await?;
    wire.send((0..40).flat_map(publish).collect::<Vec<_>>()).await?;
    let (mut stored, mut refused) = (0, 0);
    while stored + refused < 40 {
        let reply: Value = serde_json::from_str(&wire.message().await?)?;
        match reply["error"]["code"].as_str() {
            None => stored += 1,
            code => {
                assert_eq!(code, Some("rate_limited"), "{reply}");
                refused += 1;
            }
        }
    }
    assert!((10..14).contains(&stored), "the publishes of two seconds come at once: {stored}");
    assert!(wire.ask(r#"{"id":1,"publish":{"channel":"b","data":1}}"#).await?["ok"].is_object());
    Ok(())
}
