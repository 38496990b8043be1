//! `POST /publish`: off by default; with the rights of the client, and three outcomes.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::events::Events;
use tests::tokens::Issuer;
use tests::{Broker, Client, Cluster, Program, http, wire};
use tokio::net::TcpStream;

const ON: (&str, &str) = ("FANFARE__HTTP__PUBLISH", "true");

/// Sends a body with these header lines.
async fn post(address: std::net::SocketAddr, body: &str, headers: &str) -> Result<http::Answer> {
    let length = body.len();
    let head = format!("POST /publish HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n");
    http::ask(&mut TcpStream::connect(address).await?, &(head + body)).await
}

async fn node(environment: &[(&str, &str)]) -> Result<Program> {
    wire::serve("fanfare", environment).await
}

fn code(answer: &http::Answer) -> Result<Value> {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.body)?;
    assert_eq!(problem["status"], answer.status, "{problem}");
    Ok(problem["code"].clone())
}

#[tokio::test]
async fn it_is_off_by_default() -> Result<()> {
    let node = node(&[]).await?;
    assert_eq!(post(node.address, r#"{"channel":"news","data":1}"#, "").await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_message_is_stored_before_the_answer_and_delivered_once_for_a_key() -> Result<()> {
    let node = node(&[ON]).await?;
    let mut events = Events::open(node.address, "/sse/news", &[]).await?;
    events.placed().await?;
    let (body, key) = (r#"{"channel":"news","data":{"a":1}}"#, "Idempotency-Key: k1\r\n");
    let answer = post(node.address, body, key).await?;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    let at: Value = serde_json::from_str(&answer.body)?;
    assert_eq!(events.event().await?.data, r#"{"a":1}"#);
    assert_eq!(at["at"], events.last_id);
    for (body, headers) in [(body, key), (r#"{"channel":"news","data":{"a":1},"key":"k1"}"#, "")] {
        assert_eq!(post(node.address, body, headers).await?.status, 200);
    }
    assert_eq!(post(node.address, r#"{"channel":"news","data":"next"}"#, "").await?.status, 200);
    assert_eq!(events.event().await?.data, "next", "the repeats were dropped");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_published_is_a_problem_document() -> Result<()> {
    let rules = r#"[{ match = "open", publish = "anyone", message = "8B" }]"#;
    let node = node(&[ON, ("FANFARE__CHANNELS", rules), ("FANFARE__LIMITS__MESSAGE", "1KiB")]).await?;
    let long = format!(r#"{{"channel":"open","data":"{}"}}"#, "x".repeat(2000));
    for (body, headers, status, expected) in [
        ("", "", 400, "bad_request"),
        ("[1]", "", 400, "bad_request"),
        (r#"{"channel":"open"}"#, "", 400, "bad_request"),
        (r#"{"channel":"open","data":1,"more":2}"#, "", 400, "bad_request"),
        (r#"{"channel":"a b","data":1}"#, "", 400, "bad_channel"),
        (r#"{"channel":"open","data":1,"key":""}"#, "", 400, "bad_request"),
        (r#"{"channel":"open","data":1,"key":"a"}"#, "Idempotency-Key: b\r\n", 400, "bad_request"),
        (r#"{"channel":"other","data":1}"#, "", 403, "forbidden"),
        (r#"{"channel":"open","data":"123456789"}"#, "", 413, "too_large"),
        (&long, "", 413, "too_large"),
    ] {
        let answer = post(node.address, body, headers).await?;
        assert_eq!((answer.status, code(&answer)?), (status, json!(expected)), "{body} {headers}: {answer:?}");
    }
    let get = Events::open(node.address, "/publish", &[]).await?;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST, OPTIONS")), "{get:?}");
    Ok(())
}

#[tokio::test]
async fn pages_need_a_listed_origin_and_clients_the_right() -> Result<()> {
    const PAGE: &str = "https://app.example.com";
    let (variable, keys) = Issuer::keys();
    let node = node(&[ON, (variable, &keys), ("FANFARE__HTTP__ORIGINS", PAGE)]).await?;
    let body = r#"{"channel":"news","data":1}"#;
    let may =
        format!("Authorization: Bearer {}\r\n", Issuer::new()?.token("ann", &["--channel", "*", "--can", "publish"])?);
    assert_eq!(post(node.address, body, "").await?.status, 401);
    assert_eq!(post(node.address, body, "Authorization: Bearer x\r\n").await?.status, 401);
    assert_eq!(post(node.address, body, &may).await?.status, 200);
    assert_eq!(post(node.address, body, &format!("{may}Origin: https://evil.example.org\r\n")).await?.status, 403);
    let answer = post(node.address, body, &format!("{may}Origin: {PAGE}\r\n")).await?;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(PAGE)));
    let preflight = Events::ask(node.address, "OPTIONS", "/publish", &[("Origin", PAGE)]).await?;
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, Some("POST")));
    Ok(())
}

#[tokio::test]
async fn the_rate_of_a_rule_counts_for_all_requests_of_a_user_together() -> Result<()> {
    let rules = r#"[{ match = "paced", publish = "anyone", rate = 1 }, { match = "open", publish = "anyone" }]"#;
    let (variable, keys) = Issuer::keys();
    let node = node(&[ON, (variable, &keys), ("FANFARE__CHANNELS", rules), ("FANFARE__AUTH__ANONYMOUS", "on")]).await?;
    let issuer = Issuer::new()?;
    let [ann, bob] = ["ann", "bob"].map(|user| issuer.token(user, &[]));
    let header = |token: String| format!("Authorization: Bearer {token}\r\n");
    let (ann, bob, paced) = (header(ann?), header(bob?), r#"{"channel":"paced","data":1}"#);
    let mut refused = None;
    for _ in 0..1000 {
        let answer = post(node.address, paced, &ann).await?;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.context("1,000 requests take less than 500 s")?;
    assert_eq!((refused.status, code(&refused)?), (429, json!("rate_limited")), "{refused:?}");
    let after = refused.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(after.is_some_and(|seconds| (1..=2).contains(&seconds)), "{refused:?}");
    for (headers, body) in [(&bob, paced), (&String::new(), paced), (&ann, r#"{"channel":"open","data":1}"#)] {
        assert_eq!(post(node.address, body, headers).await?.status, 200, "{headers}");
    }
    Ok(())
}

#[tokio::test]
async fn more_than_an_address_may_publish_is_429_and_a_broker_that_is_away_503_or_504() -> Result<()> {
    let limits = [("FANFARE__LIMITS__PUBLISHES_PER_SECOND", "1"), ("FANFARE__LIMITS__RATES_PER_ADDRESS", "1"), ON];
    let limited = node(&limits).await?;
    let body = r#"{"channel":"news","data":1}"#;
    let mut last = post(limited.address, body, "").await?;
    for _ in 0..20 {
        if last.status != 200 {
            break;
        }
        last = post(limited.address, body, "").await?;
    }
    assert_eq!((last.status, code(&last)?), (429, json!("rate_limited")), "{last:?}");
    assert!(last.header("retry-after").is_some(), "{last:?}");

    let cluster = Cluster::of(1).broker(Broker::Redis).set(ON.0, ON.1).set("FANFARE__BROKER__PUBLISH_TIMEOUT", "1s");
    let cluster = cluster.start().await?;
    let address = cluster.node_address(1);
    let watch = Client::native(&format!("http://{address}")).await?;
    watch.subscribe("news").await?;
    assert_eq!(post(address, body, "").await?.status, 200);
    cluster.broker().kill().await?;
    let away = post(address, body, "Idempotency-Key: again\r\n").await?;
    let expected = [(503, json!("unavailable")), (504, json!("unknown"))];
    let outcome = (away.status, code(&away)?);
    assert!(expected.contains(&outcome), "{away:?}");
    cluster.broker().start().await?;
    http::until(address, "/ready", |answer| answer.status == 200).await.context("the broker is back")?;
    assert_eq!(post(address, body, "Idempotency-Key: again\r\n").await?.status, 200);
    Ok(())
}
