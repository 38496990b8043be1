//! Keys: which are accepted, for what, and that they are shown to nobody.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::json;
use tests::api::{Api, BACKEND, SECRET, document, keys};
use tests::wire::serve;
use tests::{PATIENCE, Program, binary, http};
use tokio::process::Command;
use tokio::time::timeout;

use super::{listener, node};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const MESSAGE: &[u8] = b"{\"channel\":\"news\",\"data\":\"hello\"}";

#[tokio::test]
async fn without_keys_a_local_node_makes_one_and_prints_a_command_that_works() -> Result<()> {
    let node = serve("fanfare", &[("FANFARE__API__LISTEN", "auto")]).await?;
    let client = listener(&node, "news").await?;
    let line = node.line("curl ").await?;
    let output = Command::new("bash").args(["-ec", line.trim()]).stdin(Stdio::null()).output().await?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    assert!(answer["at"].is_string(), "{answer}");
    client.sees("hello").await?;
    let key = line.split("Bearer ").nth(1).and_then(|rest| rest.split('\'').next()).context("no key")?;
    assert_eq!(Api::of(&node).await?.with(key).get("/v1/me").await?.0, 200);
    assert_eq!(Api::of(&node).await?.with(BACKEND).get("/v1/me").await?.0, 401);
    Ok(())
}

#[tokio::test]
async fn an_automatic_port_that_is_in_use_is_replaced_and_a_configured_one_is_an_error() -> Result<()> {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    let port = taken.local_addr()?.port();
    let beside = port.checked_sub(1000).context("ports for any program are high")?;
    let listen = format!("127.0.0.1:{beside}");
    // The port below may be in use by another test; then this one has nothing to show.
    if let Ok(node) = Program::start("fanfare", &["--listen", &listen], &[("FANFARE__API__LISTEN", "auto")]).await {
        let api = Api::of(&node).await?;
        assert!(api.address.port() != port && http::get(api.address, "/live").await?.status == 200);
    }
    let mut command = Command::new(binary("fanfare")?);
    command.env_clear().env("FANFARE__HTTP__LISTEN", "127.0.0.1:0").env("FANFARE__API__LISTEN", &address);
    let failed = timeout(PATIENCE, command.kill_on_drop(true).output()).await.context("it runs")??;
    let error = String::from_utf8(failed.stderr)?;
    assert!(!failed.status.success() && error.contains(&format!("cannot listen on {address}")), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_api_for_other_machines_needs_keys() -> Result<()> {
    let check = |more: Vec<(&'static str, String)>| async move {
        let mut command = Command::new(binary("fanfare")?);
        command.arg("check").env_clear().env("FANFARE__API__LISTEN", "0.0.0.0:0").envs(more);
        anyhow::Ok(command.output().await?)
    };
    let refused = check(Vec::new()).await?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("fanfare genkey api"), "{words}");
    assert!(check(vec![tests::api::backend()]).await?.status.success());
    Ok(())
}

#[tokio::test]
async fn a_made_key_with_its_hash_in_the_configuration_works() -> Result<()> {
    let made = Command::new(binary("fanfare")?).args(["genkey", "api"]).output().await?;
    let text = String::from_utf8(made.stdout)?;
    let key = text.lines().find_map(|line| line.strip_prefix("#   Authorization: Bearer ")).context("no key")?;
    let (_, secret) = key.split_once('.').context("an id and a secret")?;
    assert!(!text.lines().filter(|line| !line.starts_with('#')).any(|line| line.contains(secret)), "{text}");
    let directory = real_brokers::Scratch::new("api-key")?;
    let file = directory.path().join("fanfare.toml");
    std::fs::write(&file, format!("{text}\n[http]\nlisten = \"127.0.0.1:0\"\n"))?;
    let file = file.display().to_string();
    let listen = [("FANFARE__API__LISTEN", "127.0.0.1:0")];
    let node = Program::start("fanfare", &["--config", &file], &listen).await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    let api = Api::of(&node).await?.with(key);
    let (status, me) = api.get("/v1/me").await?;
    assert_eq!((status, &me["can"]), (200, &json!(["publish", "read"])), "{me}");
    assert_eq!(api.post("/v1/publish", &json!({ "channel": "a", "data": 1 })).await?.0, 200);
    assert!(!node.output().contains("curl "), "no key is made");
    Ok(())
}

#[tokio::test]
async fn a_key_does_only_what_its_rights_and_channels_allow() -> Result<()> {
    let (variable, keys) = keys(&[
        ("shop", "[\"publish\"]", "[\"orders:*\", \"news\"]"),
        ("reader", "[\"read\"]", "[\"news\"]"),
        ("admin", "[\"admin\"]", "[\"*\"]"),
    ]);
    let (_node, api) = node(&[(variable, &keys)]).await?;
    let publish = json!({ "channel": "news", "data": 1 });
    for (id, path, body, status) in [
        ("shop", "/v1/publish", Some(&publish), 200),
        ("shop", "/v1/publish", Some(&json!({ "channel": "orders:1:paid", "data": 1 })), 200),
        ("shop", "/v1/publish", Some(&json!({ "channel": "other", "data": 1 })), 403),
        ("shop", "/v1/publish", Some(&json!({ "channels": ["news", "other"], "data": 1 })), 403),
        ("shop", "/v1/channels/news/history", None, 403),
        ("shop", "/v1/users/ann/revoke", Some(&json!({})), 403),
        ("shop", "/v1/shed", Some(&json!({})), 403),
        ("shop", "/v1/me", None, 200),
        ("reader", "/v1/channels/news/history", None, 200),
        ("reader", "/v1/channels/orders:1/history", None, 403),
        ("reader", "/v1/publish", Some(&publish), 403),
        ("reader", "/v1/shed", Some(&json!({ "stop": true })), 403),
        ("admin", "/v1/users/ann/revoke", Some(&json!({})), 200),
        ("admin", "/v1/shed", Some(&json!({})), 200),
        ("admin", "/v1/shed", Some(&json!({ "stop": true })), 200),
        ("admin", "/v1/publish", Some(&publish), 403),
        ("shop2", "/v1/publish", Some(&publish), 401),
    ] {
        let api = api.with(&format!("{id}.{SECRET}"));
        let (found, document) = match body {
            Some(body) => api.post(path, body).await?,
            None => api.get(path).await?,
        };
        assert_eq!(found, status, "{id} {path}: {document}");
    }
    let reader = api.with(&format!("reader.{SECRET}"));
    let (_, page) = reader.get("/v1/channels/news/history").await?;
    assert_eq!(
        page["messages"].as_array().map(Vec::len),
        Some(1),
        "a publish that is forbidden in part stores nothing: {page}"
    );
    Ok(())
}

#[tokio::test]
async fn keys_are_independent_of_the_rules_for_clients_but_not_of_their_sizes() -> Result<()> {
    let rules =
        "[{ match = \"news\", publish = \"nobody\", subscribe = \"anyone\", history = \"nobody\", message = \"16B\" }]";
    let (node, api) = node(&[("FANFARE__CHANNELS", rules)]).await?;
    let client = listener(&node, "news").await?;
    assert_eq!(api.post("/v1/publish", &json!({ "channel": "news", "data": "short" })).await?.0, 200);
    client.sees("short").await?;
    let (status, problem) = api.post("/v1/publish", &json!({ "channel": "news", "data": "longer than that" })).await?;
    assert_eq!(status, 200, "{problem}");
    let (status, problem) = api.post("/v1/publish", &json!({ "channel": "news", "data": "longer than that." })).await?;
    assert_eq!((status, &problem["limit"], &problem["actual"]), (413, &json!(16), &json!(17)), "{problem}");
    assert_eq!(api.get("/v1/channels/news/history").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn a_flood_of_wrong_keys_is_limited_and_the_right_key_still_works() -> Result<()> {
    let (_node, api) = node(&[]).await?;
    let wrong = api.with(&format!("backend.{}", "x".repeat(SECRET.len())));
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for _ in 0..1000 {
        let answer = wrong.send("POST", "/v1/publish", &[JSON], MESSAGE).await?;
        assert!(answer.status != 429 || answer.header("retry-after").is_some(), "{}", answer.head);
        *statuses.entry(answer.status).or_default() += 1;
    }
    let limited = statuses.get(&429).copied().unwrap_or_default();
    assert!(statuses.keys().all(|status| [401, 429].contains(status)) && limited > 0, "{statuses:?}");
    assert_eq!(api.send("POST", "/v1/publish", &[JSON], MESSAGE).await?.status, 200);
    let metrics = http::get(api.address, "/metrics").await?.body;
    assert!(metrics.contains("{reason=\"key\"} 1000"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn publishes_of_a_key_are_limited() -> Result<()> {
    let (_node, api) = node(&[("FANFARE__API__PUBLISHES_PER_SECOND", "5")]).await?;
    let messages = vec![json!({ "channel": "a", "data": 1 }); 100];
    let (status, answer) = api.post("/v1/batch", &json!({ "messages": messages })).await?;
    let refused = |result: &&serde_json::Value| result["problem"]["code"] == "rate_limited";
    let count = answer["results"].as_array().into_iter().flatten().filter(refused).count();
    assert!(status == 200 && (80..=90).contains(&count), "{count}");
    let answer = api.send("POST", "/v1/publish", &[JSON], MESSAGE).await?;
    let (status, problem) = document(&answer)?;
    assert_eq!((status, &problem["limit"], &problem["retry"]), (429, &json!(5), &json!(true)), "{problem}");
    assert!(answer.header("retry-after").is_some());
    Ok(())
}

#[tokio::test]
async fn a_page_of_another_host_and_a_page_of_any_origin_get_nothing() -> Result<()> {
    let (_node, api) = node(&[("FANFARE__HTTP__ORIGINS", "*")]).await?;
    let rebound = api.send("POST", "/v1/publish", &[JSON, ("Host", "evil.example")], MESSAGE).await?;
    assert_eq!((rebound.status, document(&rebound)?.1["code"].as_str()), (421, Some("host")));
    let asked = [("Origin", "https://page.example"), ("Access-Control-Request-Method", "POST")];
    let preflight = api.send("OPTIONS", "/v1/publish", &asked, b"").await?;
    let page = api.send("GET", "/v1/me", &asked[..1], b"").await?;
    for answer in [&preflight, &page] {
        assert!(!answer.head.to_lowercase().contains("access-control-"), "{}", answer.head);
    }
    assert_eq!(preflight.status, 405);
    assert_eq!(api.send("GET", "/v1/me", &[("Host", "localhost:1")], b"").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn no_key_appears_in_a_log_at_trace_in_metrics_or_in_an_error() -> Result<()> {
    let (node, api) = node(&[("FANFARE__LOG__LEVEL", "trace")]).await?;
    let wrong = "backend.canary-wrong-secret-0123456789-0123456789";
    let mut printed = String::new();
    for key in [BACKEND, wrong, &wrong.replace("backend.", "canary-id."), &wrong.replace('.', "")] {
        for (method, path) in
            [("POST", "/v1/publish"), ("GET", "/v1/me"), ("POST", "/v1/users/ann/revoke"), ("GET", "/nowhere")]
        {
            let body = if method == "POST" { MESSAGE } else { b"" };
            printed += &api.with(key).send(method, path, &[JSON], body).await?.body;
        }
        let other = api.send("GET", "/v1/me", &[("Authorization", &format!("Basic {key}"))], b"").await?;
        printed += &other.body;
    }
    printed += &http::get(api.address, "/metrics").await?.body;
    printed += &node.output();
    assert!(printed.contains("DEBUG") && !printed.contains("canary"), "a key was printed");
    Ok(())
}
