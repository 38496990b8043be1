//! Clients that the backend let in, and that may not stay.

use tests::api::{self, Api};
use tests::backend::ok;

use super::*;

/// The close code of a token that has ended.
const UNAUTHORISED: u16 = 4401;

fn ann(path: &str) -> Head {
    Head::upgrade(path).with("Cookie", "session=ann")
}

#[tokio::test]
async fn a_revoked_user_is_closed_and_an_answer_that_was_kept_lets_it_in_no_more() -> Result<()> {
    let backend = Backend::start(|_| ok(&json!({ "allow": true, "user": "ann", "ttl": 600 }))).await?;
    let (variable, keys) = api::backend();
    let more = [(variable, keys.as_str()), ("FANFARE__API__LISTEN", "127.0.0.1:0")];
    let node = node(&backend, &["connect"], &more).await?;
    let api = Api::of(&node).await?;
    let (mut wire, response) = handshake(&node, ann("/ws")).await?;
    assert_eq!(response.status, 101, "{response:?}");
    let (kept, response) = handshake(&node, ann("/ws")).await?;
    assert_eq!((response.status, backend.questions().len()), (101, 1), "the answer is kept");
    drop(kept);

    let (status, answer) = api.post("/v1/users/ann/revoke", &json!({})).await?;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(wire.end().await?.code, Some(UNAUTHORISED));
    let (_, response) = handshake(&node, ann("/ws")).await?;
    assert_eq!((response.status, backend.questions().len()), (401, 1), "{response:?}");
    // Of another user the node knows nothing yet.
    backend.answer(|_| ok(&json!({ "allow": true, "user": "bob" })));
    let (mut wire, _) = handshake(&node, Head::upgrade("/ws").with("Cookie", "session=bob")).await?;
    assert_eq!(wire.ask(&command(1, "connect", &json!({}))).await?["ok"]["user"], "bob");
    Ok(())
}

#[tokio::test]
async fn a_connection_ends_when_its_time_is_over_and_the_backend_is_asked_again() -> Result<()> {
    let backend = Backend::start(|_| ok(&json!({ "allow": true, "user": "ann", "expires_in": 1, "ttl": 600 }))).await?;
    // The wire answers no ping.
    let node = node(&backend, &["connect"], &[("FANFARE__TIMING__PING", "10m")]).await?;
    let (mut wire, response) = handshake(&node, ann("/ws")).await?;
    assert_eq!(response.status, 101, "{response:?}");
    // After 30 s of leeway, as a token has.
    assert_eq!(wire.end().await?.code, Some(UNAUTHORISED));
    backend.answer(|_| ok(&json!({ "allow": true, "user": "ann" })));
    let (mut wire, _) = handshake(&node, ann("/ws")).await?;
    assert_eq!(wire.ask(&command(1, "connect", &json!({}))).await?["ok"]["user"], "ann");
    assert_eq!(backend.questions().len(), 2, "an answer is kept no longer than the connections that it lets in");
    Ok(())
}
