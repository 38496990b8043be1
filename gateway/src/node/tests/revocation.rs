//! Tokens that are revoked, on the log in memory. `tests/tests/revocation.rs` does the same on the other brokers.

use serde_json::json;

use super::*;
use crate::auth::signer::Signer;
use crate::cluster::{Control, Revocation, publish};
use crate::config::TokenKey;

#[tokio::test]
async fn a_revoked_token_ends_its_connections_and_is_refused_afterwards() {
    let mut config = Config::default();
    let secret = Some("a secret for this test, of 32 bytes or more".parse().expect("long enough"));
    config.auth.keys = vec![TokenKey { secret, ..TokenKey::default() }];
    let signer = Signer::from_config(&config.auth.keys, None).expect("a secret can sign");
    let (node, _) = start_from(config, App::gateway(), None).await;
    let now = wall_clock() / 1000;
    let token = |user: &str, issued: u64| {
        let claims = json!({ "sub": user, "iat": issued, "exp": now + 600 });
        signer.sign(&claims).expect("it signs")
    };
    let with =
        |path: &str, token: &str| handshake(path).replace("Host:", &format!("Authorization: Bearer {token}\r\nHost:"));
    let (mut native, _) = ask(&node, &with("/ws", &token("ann", now - 10))).await;
    let (mut raw, _) = ask(&node, &with("/raw/a", &token("ann", now - 10))).await;
    let (mut other, _) = ask(&node, &with("/raw/a", &token("bob", now - 10))).await;
    let revocation = Revocation { token: None, user: Some("ann".to_owned()), before: Some(now - 5), until: now + 900 };
    let control = Control { revoke: vec![revocation], ..Control::default() };
    publish(&node.core.shared.log, &control).await.expect("the log in memory takes it");
    for stream in [&mut native, &mut raw] {
        let end = rest(stream).await;
        assert_eq!(end.get(2..4), Some(&4401_u16.to_be_bytes()[..]), "{end:?}");
    }
    for (user, issued, status) in [("ann", now - 5, "401"), ("ann", now - 4, "101"), ("bob", now - 10, "101")] {
        let (_, head) = ask(&node, &with("/ws", &token(user, issued))).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{user} {issued}: {head}");
    }
    say(&mut other, "still here").await;
    assert_eq!(next(&mut other).await, "still here");
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}
