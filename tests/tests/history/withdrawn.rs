//! Answers that wait when the right to them is withdrawn.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::Client;
use tests::tokens::Issuer;
use tests::wire::{self, Frame, Head, Wire};

use super::publish;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_waits_gives_nothing_after_its_right_is_withdrawn() -> Result<()> {
    let (issuer, (variable, keys)) = (Issuer::new()?, Issuer::keys());
    let limits =
        [("FANFARE__LIMITS__MESSAGE", "16KiB"), ("FANFARE__LIMITS__OUTBOX", "64KiB"), (variable, keys.as_str())];
    let node = wire::serve("fanfare", &limits).await?;
    let speaker = Client::with_token(&format!("http://{}", node.address), &issuer.token("speaker", &[])?).await?;
    for number in 0..40 {
        publish(&speaker, "room", &format!("{number} {}", "x".repeat(8000))).await?;
    }
    let mut wire = Wire::narrow(node.address).await?;
    let token = issuer.token("ann", &[])?;
    wire.send(Head::upgrade("/ws").with("Authorization", format!("Bearer {token}")).bytes()).await?;
    ensure!(wire.response().await?.status == 101);
    let fewer = issuer.token("ann", &["--channel", "lobby", "--can", "subscribe"])?;
    for id in 1..=8 {
        let command = json!({ "id": id, "history": { "channel": "room", "limit": 1000 } });
        wire.send(Frame::text(command.to_string()).bytes()).await?;
    }
    wire.send(Frame::text(json!({ "id": 9, "refresh": { "token": fewer } }).to_string()).bytes()).await?;
    let (mut answered, mut withdrawn) = (0, false);
    while answered < 9 {
        let reply: Value = serde_json::from_str(&wire.message().await?)?;
        answered += 1;
        ensure!(!withdrawn || reply["ok"]["messages"].is_null(), "messages after the refresh, reply {answered}");
        withdrawn |= reply["id"] == 9;
    }
    Ok(())
}
