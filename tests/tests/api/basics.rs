//! What each path does when all is well, and what it says about a wrong request.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::api::document;
use tests::tokens::Issuer;
use tests::wire::{Head, Wire};
use tests::{Frame, http};

use super::{listener, node};

/// A message with this data came, and its position is this one.
async fn came(client: &tests::Client, data: &str, at: &Value) -> Result<()> {
    let wanted = |frame: &Frame| matches!(frame, Frame::Message { data: found, .. } if found == data);
    let frame = client.meets(data, wanted).await?;
    let Frame::Message { at: found, .. } = frame else { anyhow::bail!("not a message: {frame:?}") };
    assert_eq!(found.as_deref(), at.as_str());
    Ok(())
}

#[tokio::test]
async fn a_publish_is_answered_with_its_position_and_reaches_subscribers() -> Result<()> {
    let (node, api) = node(&[]).await?;
    let client = listener(&node, "news").await?;
    let (status, stored) = api.post("/v1/publish", &json!({ "channel": "news", "data": { "a": 1 } })).await?;
    assert_eq!(status, 200, "{stored}");
    came(&client, "{\"a\":1}", &stored["at"]).await?;
    let (status, stored) = api.post("/v1/publish", &json!({ "channels": ["news", "other"], "data": "text" })).await?;
    assert_eq!((status, &stored["results"][1]["channel"]), (200, &json!("other")), "{stored}");
    came(&client, "text", &stored["results"][0]["at"]).await?;
    let messages = json!([{ "channel": "news", "data": "one" }, { "channel": "a b", "data": 1 }, { "channel": "news", "data": "two" }]);
    let (status, stored) = api.post("/v1/batch", &json!({ "messages": messages })).await?;
    let results = &stored["results"];
    assert_eq!((status, &results[1]["problem"]["code"]), (200, &json!("bad_channel")), "{stored}");
    came(&client, "one", &results[0]["at"]).await?;
    came(&client, "two", &results[2]["at"]).await?;
    assert!(results[0]["at"].as_str() < results[2]["at"].as_str(), "{results}");
    Ok(())
}

#[tokio::test]
async fn a_body_of_any_type_is_published_as_it_is() -> Result<()> {
    let (node, api) = node(&[]).await?;
    let client = listener(&node, "/ws/room").await?;
    for (content_type, body, expected) in [
        (Some("application/json"), &b"{\"b\":2}"[..], "{\"b\":2}"),
        (Some("text/plain"), "grüße".as_bytes(), "grüße"),
        (Some("application/json"), b"\"a string\"", "a string"),
    ] {
        let headers: Vec<_> = content_type.iter().map(|value| ("Content-Type", *value)).collect();
        let answer = api.send("POST", "/v1/channels/%2Fws%2Froom/messages", &headers, body).await?;
        let (status, stored) = document(&answer)?;
        assert_eq!(status, 200, "{stored}");
        came(&client, expected, &stored["at"]).await?;
    }
    let answer = api.send("POST", "/v1/channels/%2Fws%2Froom/messages", &[], &[0xff, 0, 1]).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let (_, stored) = document(&answer)?;
    let (_, page) = api.get("/v1/channels/%2Fws%2Froom/history?limit=1").await?;
    assert_eq!(page["messages"], json!([{ "base64": "/wAB", "at": stored["at"] }]), "{page}");
    client.messages(4).await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_request_is_answered_with_what_to_change_and_stores_nothing() -> Result<()> {
    let (node, api) = node(&[("FANFARE__LIMITS__MESSAGE", "1KiB")]).await?;
    let client = listener(&node, "a").await?;
    let json = [("Content-Type", "application/json")];
    let large = format!("{{\"channel\":\"a\",\"data\":\"{}\"}}", "x".repeat(2000));
    let huge = "x".repeat(1 << 20);
    for (method, path, headers, body, status, words) in [
        ("POST", "/v1/publish", &json[..], "{\"channel\":\"a\",\n\"data\":}", 400, "line 2 column 8"),
        ("POST", "/v1/publish", &json, "{\"data\":1}", 400, "`channel` or `channels`"),
        (
            "POST",
            "/v1/publish",
            &json,
            "{\"channel\":\"a b\",\"data\":1}",
            400,
            "a channel's name must not contain ' '",
        ),
        ("POST", "/v1/publish", &json, "{\"channel\":\"{cluster}\",\"data\":1}", 400, "must not contain '{'"),
        ("POST", "/v1/publish", &json, "{\"channel\":\"a\",\"data\":1,\"key\":\"\"}", 400, "1 to 255 bytes"),
        ("POST", "/v1/publish", &json, &large, 413, "at most 1024 bytes; this one has 2000"),
        ("POST", "/v1/publish", &json, &huge, 413, "the body of this request"),
        ("POST", "/v1/channels/a/messages", &[], &huge, 413, "the body of this request"),
        ("POST", "/v1/publish", &[("Content-Type", "text/plain")], "{\"channel\":\"a\",\"data\":1}", 415, "--json"),
        ("POST", "/v1/channels/a/messages", &json, "{", 400, "not JSON"),
        ("GET", "/v1/publish", &[], "", 405, "POST"),
        ("GET", "/v2/publish", &[], "", 404, "POST /v1/publish"),
        ("POST", "/v1/batch", &json, "{\"messages\":[]}", 400, "1 to 1000 messages"),
        ("GET", "/v1/channels/a/history?last=7", &[], "", 400, "`since`, `before` and `limit`"),
        ("GET", "/v1/channels/a/presence?after=ann", &[], "", 400, "`after` is not a `next`"),
        ("GET", "/v1/channels/a?limit=1", &[], "", 400, "no parameters"),
        ("GET", "/v1/channels?limit=1001", &[], "", 400, "1 to 1000"),
    ] {
        let answer = api.send(method, path, headers, body.as_bytes()).await?;
        let (found, problem) = document(&answer)?;
        assert_eq!((found, &problem["status"]), (status, &json!(status)), "{method} {path}: {problem}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let detail = problem["detail"].as_str().context("a text")?;
        assert!(detail.contains(words), "{words} is not in: {detail}");
    }
    let (_, problem) = document(&api.send("POST", "/v1/publish", &json, large.as_bytes()).await?)?;
    assert_eq!((&problem["limit"], &problem["actual"], &problem["retry"]), (&json!(1024), &json!(2000), &json!(false)));
    assert_eq!(api.send("OPTIONS", "/v1/publish", &[], b"").await?.header("allow"), Some("POST"));
    api.post("/v1/publish", &json!({ "channel": "a", "data": "last" })).await?;
    client.sees("last").await?;
    assert_eq!(client.count(), 1, "{:?}", client.frames());
    Ok(())
}

#[tokio::test]
async fn history_is_read_in_both_directions() -> Result<()> {
    let (_node, api) = node(&[]).await?;
    let messages: Vec<_> = (0..25).map(|n| json!({ "channel": "chat:1", "data": n })).collect();
    let (_, stored) = api.post("/v1/batch", &json!({ "messages": messages })).await?;
    let at = |n: usize| stored["results"][n]["at"].as_str().unwrap_or_default().to_owned();
    let numbers = |page: &Value| -> Vec<u64> {
        page["messages"].as_array().into_iter().flatten().filter_map(|message| message["data"].as_u64()).collect()
    };
    let mut seen = Vec::new();
    let mut path = "/v1/channels/chat:1/history?limit=10".to_owned();
    loop {
        let (status, page) = api.get(&path).await?;
        assert_eq!((status, &page["channel"]), (200, &json!("chat:1")), "{page}");
        seen.splice(0..0, numbers(&page));
        match page["next"].as_str() {
            Some(next) if page["complete"] == false => {
                path = format!("/v1/channels/chat:1/history?limit=10&before={next}")
            }
            _ => break,
        }
    }
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
    let (_, page) = api.get(&format!("/v1/channels/chat:1/history?since={}", at(19))).await?;
    assert_eq!((numbers(&page), &page["complete"]), ((20..25).collect(), &json!(true)), "{page}");
    assert_eq!(page["messages"][4]["at"].as_str(), Some(at(24).as_str()));
    let (_, page) = api.get("/v1/channels/chat:2/history").await?;
    assert_eq!((numbers(&page), &page["complete"]), (Vec::new(), &json!(true)), "{page}");
    let elsewhere = at(24).split('.').take(2).collect::<Vec<_>>().join(".") + ".77";
    let (status, problem) = api.get(&format!("/v1/channels/chat:1/history?since={elsewhere}")).await?;
    assert_eq!((status, &problem["code"]), (410, &json!("gone")), "{problem}");
    Ok(())
}

#[tokio::test]
async fn a_revoked_user_is_closed_also_with_a_log_in_memory() -> Result<()> {
    let (variable, keys) = Issuer::keys();
    let (node, api) = node(&[(variable, &keys)]).await?;
    let issuer = Issuer::new()?;
    let (ann, bob) = (issuer.token("ann", &[])?, issuer.token("bob", &[])?);
    let mut wires = Vec::new();
    for token in [&ann, &bob] {
        let mut wire = Wire::connect(node.address).await?;
        wire.send(Head::upgrade("/ws").with("Authorization", format!("Bearer {token}")).bytes()).await?;
        assert_eq!(wire.response().await?.status, 101);
        wires.push(wire);
    }
    let (status, stored) = document(&api.send("POST", "/v1/users/ann/revoke", &[], b"").await?)?;
    assert!(status == 200 && stored["at"].is_string(), "{status} {stored}");
    assert_eq!(wires[0].end().await?.code, Some(4401));
    assert_eq!(wires[1].ask(&json!({ "id": 1, "ping": {} }).to_string()).await?["ok"], json!({}));
    let (status, problem) = api.post("/v1/users/bob/revoke", &json!({ "jti": "1", "issued_until": 1 })).await?;
    assert_eq!((status, &problem["code"]), (400, &json!("bad_request")), "{problem}");
    Ok(())
}

#[tokio::test]
async fn health_and_counters_need_no_key_and_me_describes_it() -> Result<()> {
    let (node, api) = node(&[("FANFARE__NODE__NAME", "one")]).await?;
    for (path, word) in
        [("/live", "live"), ("/ready", "ready"), ("/metrics", "fanfare_ready 1"), ("/v1/openapi.json", "3.1.0")]
    {
        let answer = http::get(api.address, path).await?;
        assert!(answer.status == 200 && answer.body.contains(word), "{path}: {} {}", answer.head, answer.body);
    }
    let (status, me) = api.get("/v1/me").await?;
    assert_eq!((status, &me["key"], &me["node"]), (200, &json!("backend"), &json!("one")), "{me}");
    assert_eq!(me["can"], json!(["publish", "read", "admin"]));
    assert_eq!(http::get(node.address, "/v1/me").await?.status, 404, "the public listener has no API");
    Ok(())
}
