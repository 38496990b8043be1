//! Clients that prove who they are with a token: where it may stand, what it allows, and how it ends.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tests::tokens::{Issuer, SECRET};
use tests::wire::{self, Frame, Head, Wire};
use tests::{Program, http};

/// The close code of a client without a valid token.
const UNAUTHORISED: Option<u16> = Some(4401);
/// The code of a command that the client may not send.
const FORBIDDEN: &str = "forbidden";

/// A node that lets in only clients with a token of [`SECRET`], with more variables.
async fn node(more: &[(&str, &str)]) -> Result<Program> {
    let (variable, keys) = Issuer::keys();
    wire::serve("fanfare", &[&[(variable, keys.as_str())], more].concat()).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn subprotocols(token: &str) -> String {
    format!("fanfare.v1, fanfare.bearer.{}", URL_SAFE_NO_PAD.encode(token))
}

/// Sends a handshake. Returns the connection and the status.
async fn handshake(node: &Program, head: Head) -> Result<(Wire, wire::Response)> {
    let mut wire = Wire::connect(node.address).await?;
    wire.send(head.bytes()).await?;
    let response = wire.response().await?;
    Ok((wire, response))
}

/// Connects to `/ws` with a token in the head.
async fn connected(node: &Program, token: &str) -> Result<Wire> {
    let (wire, response) = handshake(node, Head::upgrade("/ws").with("Authorization", bearer(token))).await?;
    assert_eq!(response.status, 101, "{response:?}");
    Ok(wire)
}

fn command(name: &str, what: Value) -> String {
    json!({ "id": 1, name: what }).to_string()
}

/// The user that a node takes a connection for.
async fn user(wire: &mut Wire) -> Result<Value> {
    Ok(wire.ask(&command("connect", json!({}))).await?["ok"]["user"].take())
}

#[tokio::test]
async fn a_token_is_taken_from_the_head_the_subprotocol_the_cookie_or_the_first_message() -> Result<()> {
    let (node, issuer) = (node(&[("FANFARE__AUTH__COOKIE", "__Host-token")]).await?, Issuer::new()?);
    let token = issuer.token("ann", &[])?;
    let origin = format!("http://{}", node.address);
    for head in [
        Head::upgrade("/ws").with("Authorization", bearer(&token)),
        Head::upgrade("/ws").with("Sec-WebSocket-Protocol", subprotocols(&token)),
        Head::upgrade("/ws")
            .set("Host", node.address.to_string())
            .with("Origin", &origin)
            .with("Cookie", format!("a=1; __Host-token={token}")),
    ] {
        let (mut wire, response) = handshake(&node, head).await?;
        assert_eq!(response.status, 101, "{response:?}");
        assert!(!response.header("sec-websocket-protocol").is_some_and(|name| name.contains("bearer")), "{response:?}");
        assert_eq!(user(&mut wire).await?, "ann");
    }
    let mut wire = Wire::open(node.address, "/ws").await?;
    let mut reply = wire.ask(&command("connect", json!({ "token": token }))).await?;
    let ok = reply["ok"].take();
    assert_eq!(ok["user"], "ann");
    assert!(ok["expires_in"].as_u64().is_some_and(|seconds| (3500..=3600).contains(&seconds)), "{ok}");
    assert!(ok["client"].as_str().is_some_and(|client| client.len() >= 12), "{ok}");
    let (mut raw, response) = handshake(&node, Head::upgrade("/raw/a").with("Authorization", bearer(&token))).await?;
    assert_eq!(response.status, 101, "{response:?}");
    raw.send(Frame::text("hello").bytes()).await?;
    assert_eq!(raw.message().await?, "hello");
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_token_can_do_nothing_and_is_closed_after_five_seconds() -> Result<()> {
    let node = node(&[]).await?;
    let (_, response) = handshake(&node, Head::upgrade("/raw/a")).await?;
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")), "{response:?}");
    let mut wire = Wire::open(node.address, "/ws").await?;
    let begin = Instant::now();
    for (name, what) in [
        ("subscribe", json!({ "channel": "a" })),
        ("publish", json!({ "channel": "a", "data": 1 })),
        ("unsubscribe", json!({ "channel": "a" })),
        ("connect", json!({})),
        ("refresh", json!({ "token": "x" })),
    ] {
        let reply = wire.ask(&command(name, what)).await?;
        assert_eq!(reply["error"]["code"], "unauthorised", "{name}: {reply}");
    }
    assert_eq!(wire.ask(&command("ping", json!({}))).await?["ok"], json!({}));
    let end = wire.end().await?;
    assert_eq!(end.code, UNAUTHORISED, "{end:?}");
    let waited = begin.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&waited), "{waited:?}");
    Ok(())
}

/// A token with this header and these claims, and a signature that is no signature.
fn forged(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode("no signature"))
}

#[tokio::test]
async fn a_bad_token_is_refused_wherever_it_stands() -> Result<()> {
    let (node, issuer) = (node(&[("FANFARE__AUTH__AUDIENCE", "chat")]).await?, Issuer::new()?);
    let claims = json!({ "sub": "ann", "exp": 99_999_999_999_u64, "aud": "chat" });
    let good = issuer.token("ann", &[])?;
    let unsigned = forged(&json!({ "alg": "none" }), &claims);
    for token in [
        "x".to_owned(),
        "a.b.c".to_owned(),
        unsigned.clone(),
        format!("{}.", unsigned.rsplit_once('.').context("three parts")?.0),
        forged(&json!({ "alg": "HS256" }), &claims),
        forged(&json!({ "alg": "HS256", "kid": "another", "jku": "http://127.0.0.1:1/" }), &claims),
        forged(&json!({ "alg": "RS256" }), &claims),
        good, // without the audience
        "y".repeat(8 * 1024 + 1),
    ] {
        for head in [
            Head::upgrade("/ws").with("Authorization", bearer(&token)),
            Head::upgrade("/raw/a").with("Authorization", bearer(&token)),
            Head::upgrade("/ws").with("Sec-WebSocket-Protocol", subprotocols(&token)),
        ] {
            let (_, response) = handshake(&node, head).await?;
            // A token that is too long for a subprotocol is refused before it is a token.
            assert!(matches!(response.status, 400 | 401), "{response:?}");
            assert!(!response.body.contains(&token[..token.len().min(20)]) || token.len() < 6, "{response:?}");
        }
        let mut wire = Wire::open(node.address, "/ws").await?;
        let reply = wire.ask(&command("connect", json!({ "token": token }))).await?;
        assert_eq!(
            (&reply["error"]["code"], &reply["error"]["retry"]),
            (&json!("unauthorised"), &json!(false)),
            "{reply}"
        );
        let end = wire.end().await?;
        assert_eq!(end.code, UNAUTHORISED, "{end:?}");
    }
    for path in ["/ws?token=x", "/raw/a?access_token=x"] {
        let (_, response) = handshake(&node, Head::upgrade(path)).await?;
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.body.contains("URL"), "{response:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_allows_what_its_claims_say() -> Result<()> {
    let (node, issuer) = (node(&[]).await?, Issuer::new()?);
    let token =
        issuer.token("ann", &["--channel", "chat:*", "--can", "subscribe,publish", "--subscribe", "chat:lobby"])?;
    let mut wire = connected(&node, &token).await?;
    let joined: Value = serde_json::from_str(&wire.message().await?)?;
    assert_eq!(joined["ok"]["channel"], "chat:lobby", "the token subscribes it at once: {joined}");
    for (name, channel, allowed) in [
        ("subscribe", "chat:a", true),
        ("subscribe", "news", false),
        ("publish", "chat:b", true),
        ("publish", "news", false),
    ] {
        let mut what = json!({ "channel": channel });
        if name == "publish" {
            what["data"] = json!(1);
        }
        let reply = wire.ask(&command(name, what)).await?;
        match allowed {
            true => assert!(reply["ok"].is_object(), "{name} {channel}: {reply}"),
            false => assert_eq!(reply["error"]["code"], FORBIDDEN, "{name} {channel}: {reply}"),
        }
    }
    for (path, status) in [("/raw/chat:a", 101), ("/raw/news", 403)] {
        let (_, response) = handshake(&node, Head::upgrade(path).with("Authorization", bearer(&token))).await?;
        assert_eq!(response.status, status, "{path}: {response:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_names_its_publisher_where_the_rule_says_so() -> Result<()> {
    let rules = r#"[{ match = "chat:*", tell_publisher = true }, { match = "*" }]"#;
    let (node, issuer) = (node(&[("FANFARE__CHANNELS", rules)]).await?, Issuer::new()?);
    let mut ann = connected(&node, &issuer.token("ann", &[])?).await?;
    let client = ann.ask(&command("connect", json!({}))).await?["ok"]["client"].take();
    let mut bob = connected(&node, &issuer.token("bob", &[])?).await?;
    for (channel, from) in [("chat:a", json!({ "user": "ann", "client": client })), ("news", Value::Null)] {
        bob.ask(&command("subscribe", json!({ "channel": channel }))).await?;
        ann.ask(&command("publish", json!({ "channel": channel, "data": 1 }))).await?;
        let message: Value = serde_json::from_str(&bob.message().await?)?;
        assert_eq!((&message["channel"], &message["from"]), (&json!(channel), &from), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refresh_renews_the_token_and_takes_away_what_the_new_one_does_not_allow() -> Result<()> {
    let (node, issuer) = (node(&[]).await?, Issuer::new()?);
    let token = issuer.token("ann", &["--channel", "*", "--can", "subscribe,publish"])?;
    let mut wire = connected(&node, &token).await?;
    for channel in ["a", "b"] {
        wire.ask(&command("subscribe", json!({ "channel": channel }))).await?;
    }
    let other = issuer.token("bob", &[])?;
    let reply = wire.ask(&command("refresh", json!({ "token": other }))).await?;
    assert_eq!(reply["error"]["code"], FORBIDDEN, "{reply}");
    let fewer = issuer.token("ann", &["--channel", "a", "--can", "subscribe,publish", "--ttl", "2h"])?;
    let removed = wire.ask(&command("refresh", json!({ "token": fewer }))).await?;
    assert_eq!(removed, json!({ "unsubscribed": { "channel": "b", "reason": "forbidden" } }));
    let reply: Value = serde_json::from_str(&wire.message().await?)?;
    assert!(reply["ok"]["expires_in"].as_u64().is_some_and(|seconds| seconds > 3_600), "{reply}");
    let mut publisher = connected(&node, &token).await?;
    for channel in ["b", "a"] {
        publisher.ask(&command("publish", json!({ "channel": channel, "data": channel }))).await?;
    }
    let first: Value = serde_json::from_str(&wire.message().await?)?;
    assert_eq!(first["channel"], "a", "nothing of the other channel comes any more");
    let reply = wire.ask(&command("refresh", json!({ "token": "a.b.c" }))).await?;
    assert_eq!(reply["error"]["code"], "unauthorised", "{reply}");
    assert_eq!(wire.ask(&command("ping", json!({}))).await?["ok"], json!({}), "the old token is still valid");
    Ok(())
}

#[tokio::test]
async fn a_connection_ends_when_its_token_and_the_leeway_have_ended() -> Result<()> {
    // The clients of this test answer no pings.
    let (node, issuer) = (node(&[("FANFARE__TIMING__PING", "10m")]).await?, Issuer::new()?);
    let token = issuer.token("ann", &["--ttl", "5s"])?;
    let begin = Instant::now();
    let mut native = connected(&node, &token).await?;
    let (mut raw, response) = handshake(&node, Head::upgrade("/raw/a").with("Authorization", bearer(&token))).await?;
    assert_eq!(response.status, 101, "{response:?}");
    let mut renewed = connected(&node, &token).await?;
    renewed.ask(&command("refresh", json!({ "token": issuer.token("ann", &[])? }))).await?;
    for wire in [&mut native, &mut raw] {
        let end = async {
            loop {
                // Each wait of a wire is shorter than the life of this token.
                match wire.end().await {
                    Ok(end) => return end,
                    Err(_) if begin.elapsed() < Duration::from_secs(60) => {}
                    Err(error) => panic!("{error:#}"),
                }
            }
        };
        let end = end.await;
        assert_eq!(end.code, UNAUTHORISED, "{end:?}");
        let lived = begin.elapsed();
        assert!((Duration::from_secs(33)..Duration::from_secs(45)).contains(&lived), "{lived:?}");
    }
    assert_eq!(renewed.ask(&command("ping", json!({}))).await?["ok"], json!({}));
    let (_, response) = handshake(&node, Head::upgrade("/ws").with("Authorization", bearer(&token))).await?;
    assert_eq!(response.status, 401, "{response:?}");
    Ok(())
}

#[tokio::test]
async fn no_token_and_no_secret_appears_in_a_log_at_trace_or_in_metrics() -> Result<()> {
    let (node, issuer) = (node(&[("FANFARE__LOG__LEVEL", "trace")]).await?, Issuer::new()?);
    let good = issuer.token("canary-user", &["--info", "{\"canary\":\"info\"}"])?;
    let bad = forged(&json!({ "alg": "HS256" }), &json!({ "sub": "canary-user", "exp": 99_999_999_999_u64 }));
    for token in [&good, &bad] {
        for head in [
            Head::upgrade("/ws").with("Authorization", bearer(token)),
            Head::upgrade("/raw/a").with("Sec-WebSocket-Protocol", subprotocols(token)),
            Head::upgrade(format!("/ws?token={token}")),
        ] {
            handshake(&node, head).await?;
        }
        let mut wire = Wire::open(node.address, "/ws").await?;
        for text in [
            command("connect", json!({ "token": token })),
            json!({ "refresh": token }).to_string(),
            json!({ "refresh": { "token": [token] } }).to_string(),
        ] {
            let answered = wire.ask(&text).await;
            if let Ok(reply) = answered {
                assert!(!reply.to_string().contains(&token[..30]), "{reply}");
            }
        }
    }
    let metrics = http::get(node.address, "/metrics").await?.body;
    let printed = [metrics, node.output()].concat();
    let encoded = URL_SAFE_NO_PAD.encode(&good);
    for canary in [SECRET, "canary", &good[good.len() - 20..], &bad[20..60], &encoded[10..40], &encoded[60..90]] {
        assert!(!printed.contains(canary), "{canary} was printed");
    }
    Ok(())
}
