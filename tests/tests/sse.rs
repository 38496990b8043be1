//! Server-Sent Events: what a client that only listens gets, in each form, and how its stream begins and ends.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::events::{Event, Events};
use tests::tokens::Issuer;
use tests::wire::{self, Frame, Wire};
use tests::{Client, Program};

async fn node(environment: &[(&str, &str)]) -> Result<Program> {
    wire::serve("fanfare", environment).await
}

fn message(data: &str) -> Event {
    Event { name: "message".to_owned(), data: data.to_owned() }
}

/// The data of an event of this name, as JSON.
async fn named(events: &mut Events, name: &str) -> Result<Value> {
    let event = events.event().await?;
    assert_eq!(event.name, name, "{event:?}");
    Ok(serde_json::from_str(&event.data)?)
}

/// An open stream that has a place in all its channels.
async fn open(node: &Program, path: &str) -> Result<Events> {
    let mut events = Events::open(node.address, path, &[]).await?;
    assert_eq!(events.status, 200, "{events:?}");
    events.placed().await?;
    Ok(events)
}

async fn publisher(node: &Program) -> Result<Client> {
    Client::native(&format!("http://{}", node.address)).await
}

#[tokio::test]
async fn a_stream_of_one_channel_has_the_payload_as_data_and_the_position_as_id() -> Result<()> {
    let node = node(&[]).await?;
    let mut events = open(&node, "/sse/news").await?;
    assert_eq!(events.header("content-type"), Some("text/event-stream"), "{}", events.head);
    assert_eq!(events.header("cache-control"), Some("no-store"));
    assert_eq!(events.header("x-accel-buffering"), Some("no"));
    assert_eq!(events.header("connection"), Some("close"));
    for absent in ["content-length", "transfer-encoding", "access-control-allow-origin"] {
        assert_eq!(events.header(absent), None, "{}", events.head);
    }
    assert!(events.retry.is_some_and(|retry| (1000..3000).contains(&retry)), "{:?}", events.retry);
    let mut other = Wire::open(node.address, "/ws").await?;
    other.ask(r#"{"subscribe":{"channel":"news"}}"#).await?;
    for (data, expected) in [
        (json!("hello"), "hello"),
        (json!("two\nlines"), "two\nlines"),
        (json!(""), ""),
        (json!({ "a": [1, 2] }), r#"{"a":[1,2]}"#),
    ] {
        let command = json!({ "publish": { "channel": "news", "data": data } }).to_string();
        other.send(Frame::text(command).bytes()).await?;
        assert_eq!(events.event().await?, message(expected));
        let mut native: Value = serde_json::from_str(&other.message().await?)?;
        while native["channel"].is_null() {
            native = serde_json::from_str(&other.message().await?)?;
        }
        assert_eq!(native["at"], events.last_id, "a client can go on with either protocol");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_of_several_channels_resumes_all_of_them_from_one_id() -> Result<()> {
    let node = node(&[]).await?;
    let (path, publisher) = ("/sse?channel=a&channel=b&channel=c", publisher(&node).await?);
    let mut events = open(&node, path).await?;
    publisher.publish("a", "a1").await?;
    publisher.publish("b", "b1").await?;
    let mut came = [events.event().await?.data, events.event().await?.data];
    came.sort();
    assert_eq!(came, ["a1", "b1"]);
    let id = events.last_id.clone();
    drop(events);
    for (channel, text) in [("c", "c1"), ("a", "a2"), ("c", "c2"), ("b", "b2")] {
        publisher.publish(channel, text).await?;
    }
    let mut events = Events::resume(node.address, path, &id).await?;
    let mut came = Vec::new();
    for _ in 0..4 {
        came.push(events.event().await?.data);
    }
    came.sort();
    assert_eq!(came, ["a2", "b2", "c1", "c2"]);
    // With the id in the URL too, as a page keeps it.
    let mut events = Events::open(node.address, &format!("{path}&since={id}&data=message"), &[]).await?;
    let first: Value = serde_json::from_str(&events.event().await?.data)?;
    assert!(first["channel"].is_string() && first["data"].is_string() && first["at"].is_string(), "{first}");
    // The ids of a request are of its own channels.
    for other in ["/sse?channel=a&channel=b", "/sse?channel=b&channel=a&channel=c", "/sse/a"] {
        let mut refused = Events::resume(node.address, other, &id).await?;
        assert_eq!(refused.status, 400, "{other}");
        assert!(refused.body().await?.contains("other channels"), "{other}");
    }
    Ok(())
}

#[tokio::test]
async fn lines_of_json_are_the_messages_of_the_native_protocol() -> Result<()> {
    let node = node(&[]).await?;
    let lines = [("Accept", "application/x-ndjson")];
    let mut events = Events::open(node.address, "/sse?channel=a&channel=b", &lines).await?;
    assert_eq!(events.header("content-type"), Some("application/x-ndjson"), "{}", events.head);
    let mut places = Vec::new();
    for _ in 0..2 {
        let ok: Value = serde_json::from_str(&events.line().await?.context("ended")?)?;
        places.push(ok["ok"]["at"].as_str().context("no position")?.to_owned());
    }
    let publisher = publisher(&node).await?;
    publisher.publish("b", "hello").await?;
    let line: Value = serde_json::from_str(&events.line().await?.context("ended")?)?;
    assert_eq!((&line["channel"], &line["data"]), (&json!("b"), &json!("hello")));
    drop(events);
    // A client that keeps positions gives them back as a list in the order of its channels.
    let path = format!("/sse?channel=a&channel=b&since={}", places.join(","));
    let mut events = Events::open(node.address, &path, &lines).await?;
    let mut recovered = 0;
    loop {
        let next: Value = serde_json::from_str(&events.line().await?.context("ended")?)?;
        recovered += usize::from(next["ok"]["recovered"] == true);
        if next["data"] == "hello" {
            break;
        }
    }
    assert!(recovered >= 1);
    Ok(())
}

#[tokio::test]
async fn the_last_messages_come_first_and_what_is_lost_is_an_event() -> Result<()> {
    let node = node(&[]).await?;
    let publisher = publisher(&node).await?;
    for number in 0..20 {
        publisher.publish("news", &number.to_string()).await?;
    }
    let mut events = Events::open(node.address, "/sse/news?last=3", &[]).await?;
    for expected in ["17", "18", "19"] {
        assert_eq!(events.event().await?, message(expected));
    }
    // A position of another log.
    let (offset, rest) = events.last_id.split_once('.').context("a position")?;
    let (partition, _) = rest.split_once('.').context("a position")?;
    let foreign = format!("{offset}.{partition}.7");
    let mut events = Events::resume(node.address, "/sse/news", &foreign).await?;
    assert_eq!(named(&mut events, "lost").await?, json!({ "channel": "news", "reason": "not_held" }));
    publisher.publish("news", "after").await?;
    assert_eq!(events.event().await?, message("after"));
    Ok(())
}

#[tokio::test]
async fn a_text_that_looks_like_an_event_stays_the_data_of_one() -> Result<()> {
    let node = node(&[]).await?;
    let mut events = open(&node, "/sse/news").await?;
    publisher(&node).await?.publish("news", "id: 9\r\n\r\nevent: x\rdata: forged").await?;
    assert_eq!(events.event().await?, message("id: 9\n\nevent: x\ndata: forged"));
    Ok(())
}

/// A browser's `EventSource` gives up for ever after another status than 200.
#[tokio::test]
async fn a_refusal_that_a_retry_can_help_is_a_reconnect_event_for_an_event_source_and_503_for_others() -> Result<()> {
    let node = Program::start("fanfare", &["--broker", "redis://127.0.0.1:1"], &[]).await?;
    let refused = Events::open(node.address, "/sse/news", &[]).await?;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    let mut events = Events::open(node.address, "/sse/news", &[("Accept", "text/event-stream")]).await?;
    assert_eq!((events.status, events.header("content-type")), (200, Some("text/event-stream")), "{events:?}");
    let after = named(&mut events, "reconnect").await?["after_ms"].as_u64();
    assert_eq!(after, events.retry);
    assert!(after.is_some_and(|after| (1000..3000).contains(&after)), "{after:?}");
    Ok(())
}

#[tokio::test]
async fn quiet_streams_get_comments_and_ids_by_which_they_resume() -> Result<()> {
    let node = node(&[("FANFARE__TIMING__PING", "1s"), ("FANFARE__TIMING__PONG", "500ms")]).await?;
    let mut quiet = open(&node, "/sse?channel=a&channel=b").await?;
    let first = quiet.last_id.clone();
    let publisher = publisher(&node).await?;
    publisher.publish("other", "x").await?;
    publisher.publish("a", "1").await?;
    assert_eq!(quiet.event().await?, message("1"));
    let after = quiet.last_id.clone();
    while quiet.comments < 3 {
        publisher.publish("another", "x").await?;
        publisher.publish("a", "beat").await?;
        quiet.event().await?;
    }
    assert!(first != after && after != quiet.last_id);
    Ok(())
}

#[tokio::test]
async fn what_a_client_sends_is_ignored_within_bounds_and_its_close_is_noticed() -> Result<()> {
    let node = node(&[]).await?;
    let mut events = open(&node, "/sse/news").await?;
    events.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    publisher(&node).await?.publish("news", "still here").await?;
    assert_eq!(events.event().await?, message("still here"));
    drop(events);
    node.line("reason=\"peer_closed\"").await?;
    let mut events = open(&node, "/sse/news").await?;
    // It may be cut off while it sends.
    let _ = events.send(&[b'x'; 20 << 10]).await;
    assert_eq!(named(&mut events, "close").await?["code"], 1003);
    assert_eq!(events.next().await?, None);
    Ok(())
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused_with_a_reason() -> Result<()> {
    let node = node(&[]).await?;
    let many: Vec<_> = (0..65).map(|number| format!("channel={number}")).collect();
    let (many, long) = (format!("/sse?{}", many.join("&")), format!("/sse/{}", "x".repeat(256)));
    for (method, path, headers, status, reason) in [
        ("POST", "/sse/news", &[("Content-Length", "0")][..], 405, "GET"),
        ("HEAD", "/sse/news", &[], 405, ""),
        ("GET", "/sse/news", &[("Content-Length", "1")], 400, "no body"),
        ("GET", "/sse", &[], 400, "name a channel"),
        ("GET", "/sse?chanel=a", &[], 400, "name a channel"),
        ("GET", &many, &[], 400, "at most 64"),
        ("GET", &long, &[], 400, "1 to 255 bytes"),
        ("GET", "/sse/a%20b", &[], 400, "must not contain"),
        ("GET", "/sse/news?channel=a", &[], 400, "not in both"),
        ("GET", "/sse/news?last=0", &[], 400, "1 to 1000"),
        ("GET", "/sse/news?since=x", &[], 400, "not an id"),
        ("GET", "/sse/news", &[("Last-Event-ID", "~AAAA")], 400, "not an id"),
        ("GET", "/sse/news", &[("Host", "evil.example.org")], 421, "not one of this node's names"),
        ("GET", "/sse/news", &[("Origin", "https://evil.example.org")], 403, "may not connect"),
    ] {
        let mut events = Events::ask(node.address, method, path, headers).await?;
        let case = format!("{method} {path} {headers:?}");
        assert_eq!(events.status, status, "{case}: {events:?}");
        if method != "HEAD" {
            let body = events.body().await?;
            assert!(body.contains(reason), "{case}: {body}");
        }
        if status == 405 {
            assert_eq!(events.header("allow"), Some("GET, OPTIONS"), "{case}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn pages_of_listed_origins_may_listen_and_only_named_ones_with_credentials() -> Result<()> {
    const PAGE: &str = "https://app.example.com";
    let shared = async |origins: &str, origin: &str| {
        let node = node(&[("FANFARE__HTTP__ORIGINS", origins)]).await?;
        let events = Events::open(node.address, "/sse/news", &[("Origin", origin)]).await?;
        assert_eq!((events.status, events.header("vary")), (200, Some("origin")), "{events:?}");
        let header = |name| events.header(name).map(str::to_owned);
        anyhow::Ok((header("access-control-allow-origin"), header("access-control-allow-credentials")))
    };
    let named = (Some(PAGE.to_owned()), Some("true".to_owned()));
    assert_eq!(shared(PAGE, PAGE).await?, named);
    assert_eq!(shared("https://*.example.com", PAGE).await?, named);
    assert_eq!(shared("*", PAGE).await?, (Some("*".to_owned()), None));
    assert_eq!(shared("null", "null").await?, (Some("*".to_owned()), None));

    let node = node(&[("FANFARE__HTTP__ORIGINS", PAGE)]).await?;
    let asked = [("Origin", PAGE), ("Access-Control-Request-Method", "GET")];
    let preflight = Events::ask(node.address, "OPTIONS", "/sse?channel=a", &asked).await?;
    assert_eq!(preflight.status, 204, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET"));
    assert!(preflight.header("access-control-allow-headers").is_some_and(|names| names.contains("authorization")));
    // A page can read why it is refused.
    let refused = Events::open(node.address, "/sse", &[("Origin", PAGE)]).await?;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (400, Some(PAGE)));
    let foreign = Events::ask(node.address, "OPTIONS", "/sse/a", &[("Origin", "https://evil.example.org")]).await?;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
    Ok(())
}

#[tokio::test]
async fn a_drain_asks_to_reconnect_and_ends_the_stream_and_new_ones_are_sent_elsewhere() -> Result<()> {
    let mut node = node(&[("FANFARE__TIMING__DRAIN_WAIT", "off"), ("FANFARE__TIMING__DRAIN", "1s")]).await?;
    let mut events = open(&node, "/sse?channel=a&channel=b").await?;
    let mut lines = Events::open(node.address, "/sse/a", &[("Accept", "application/x-ndjson")]).await?;
    lines.line().await?;
    node.signal("TERM").await?;
    let hint = named(&mut events, "reconnect").await?["after_ms"].as_u64().context("no time")?;
    assert_eq!((events.retry, events.next().await?), (Some(hint), None));
    let hint: Value = serde_json::from_str(&lines.line().await?.context("ended")?)?;
    assert!(hint["reconnect"]["after_ms"].is_u64(), "{hint}");
    assert_eq!(lines.line().await?, None);
    assert!(node.ended().await?.success());
    Ok(())
}

#[tokio::test]
async fn a_stream_needs_a_token_where_clients_need_one_and_ends_with_it() -> Result<()> {
    let (variable, keys) = Issuer::keys();
    let rules = r#"[{ match = "open:*", subscribe = "user" }, { match = "own:{sub}", subscribe = "user" }, { match = "closed", subscribe = "nobody" }]"#;
    let cookie = ("FANFARE__AUTH__COOKIE", "__Host-token");
    let node = node(&[(variable, &keys), ("FANFARE__CHANNELS", rules), cookie]).await?;
    let issuer = Issuer::new()?;
    let token = issuer.token("ann", &[])?;
    let (bearer, cookie) = (format!("Bearer {token}"), format!("__Host-token={token}"));
    let status = async |path: &str, headers: &[(&str, &str)]| {
        anyhow::Ok(Events::open(node.address, path, headers).await?.status)
    };
    let authorised = [("Authorization", bearer.as_str())];
    let origin = format!("http://{}", node.address);
    assert_eq!(status("/sse/open:a", &[]).await?, 401);
    assert_eq!(status("/sse/open:a", &[("Authorization", "Bearer x")]).await?, 401);
    assert_eq!(status("/sse/open:a", &authorised).await?, 200);
    assert_eq!(status("/sse?channel=open:a&channel=own:ann", &authorised).await?, 200);
    assert_eq!(status("/sse?channel=open:a&channel=own:bob", &authorised).await?, 403);
    assert_eq!(status("/sse/closed", &authorised).await?, 403);
    assert_eq!(status(&format!("/sse/open:a?token={token}"), &[]).await?, 400);
    assert_eq!(status("/sse/open:a", &[("Cookie", &cookie)]).await?, 401, "it may be of any page");
    assert_eq!(status("/sse/open:a", &[("Cookie", &cookie), ("Origin", &origin)]).await?, 200);
    assert_eq!(status("/sse/open:a", &[("Cookie", &cookie), ("Sec-Fetch-Site", "same-origin")]).await?, 200);
    assert_eq!(status("/sse/open:a", &[("Cookie", &cookie), ("Sec-Fetch-Site", "cross-site")]).await?, 401);
    let mut refused = Events::open(node.address, "/sse?channel=open:a&channel=closed", &authorised).await?;
    assert!(refused.body().await?.starts_with("closed: "), "the answer names the channel");
    assert!(!node.output().contains(&token), "no token is logged");
    Ok(())
}

/// A token's last second, and the leeway of 30 s, are over: the stream says so and ends.
#[tokio::test]
async fn a_stream_ends_with_an_event_when_its_token_has_expired() -> Result<()> {
    let (variable, keys) = Issuer::keys();
    let node = node(&[(variable, &keys)]).await?;
    let token = Issuer::new()?.token("ann", &["--ttl", "1s"])?;
    let mut events = Events::open(node.address, "/sse/news", &[("Authorization", &format!("Bearer {token}"))]).await?;
    assert_eq!(events.status, 200, "{events:?}");
    let end = named(&mut events, "close").await?;
    assert_eq!((&end["code"], &end["reconnect"]), (&json!(4401), &json!(true)), "{end}");
    assert_eq!(events.next().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_stalled_client_is_ended_by_the_rule_of_all_clients() -> Result<()> {
    let node = node(&[("FANFARE__NODE__WORKERS", "1")]).await?;
    for path in ["/sse/news", "/sse?channel=news&channel=b", "/sse/news?data=message"] {
        let stalled = Events::with_room(node.address, path, 1).await?;
        let mut reading = Events::open(node.address, path, &[]).await?;
        let publisher = publisher(&node).await?;
        let before = node.output().matches("reason=\"too_slow\"").count();
        let text = "x".repeat(32 << 10);
        for _ in 0..200 {
            publisher.publish("news", &text).await?;
            assert_eq!(reading.event().await?.name, "message");
        }
        node.nth_line("reason=\"too_slow\"", before).await?;
        drop(stalled);
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_client_of_a_latest_channel_ends_with_the_newest_value() -> Result<()> {
    const RULES: &str = r#"[{ match = "price:*", subscribe = "anyone", publish = "anyone", slow = "latest" }]"#;
    for path in ["/sse/price:a", "/sse?channel=price:a&channel=price:b", "/sse/price:a?data=message"] {
        let node = node(&[("FANFARE__CHANNELS", RULES), ("FANFARE__NODE__WORKERS", "1")]).await?;
        let mut slow = Events::with_room(node.address, path, 1).await?;
        let publisher = publisher(&node).await?;
        let filler = "x".repeat(32 << 10);
        const ALL: u64 = 300;
        for number in 0..ALL {
            publisher.publish("price:a", &format!("{number} {filler}")).await?;
        }
        let (mut received, mut skipped, mut last) = (0, 0, None);
        while last != Some(ALL - 1) {
            let event = slow.event().await?;
            if event.name == "skipped" {
                let count: Value = serde_json::from_str(&event.data)?;
                skipped += count["count"].as_u64().context("no count")?;
                continue;
            }
            let text = match path.ends_with("message") {
                true => serde_json::from_str::<Value>(&event.data)?["data"].as_str().unwrap_or_default().to_owned(),
                false => event.data,
            };
            let number: u64 = text.split(' ').next().unwrap_or_default().parse()?;
            assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
            (received, last) = (received + 1, Some(number));
        }
        assert_eq!(received + skipped, ALL, "{path}: {received} received, {skipped} skipped");
        assert!(skipped > 0, "{path}");
        // Its id is that of the newest: nothing is missed and nothing comes again.
        publisher.publish("price:a", "after").await?;
        let resumed_path = path;
        let mut resumed = Events::resume(node.address, resumed_path, &slow.last_id).await?;
        assert!(resumed.event().await?.data.contains("after"), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_of_connections_and_subscriptions_hold_for_streams() -> Result<()> {
    let limits = [("FANFARE__LIMITS__CONNECTIONS_PER_ADDRESS", "2"), ("FANFARE__LIMITS__CHANNELS_PER_CONNECTION", "3")];
    let node = node(&limits).await?;
    let mut many = Events::open(node.address, "/sse?channel=a&channel=b&channel=c&channel=d", &[]).await?;
    assert_eq!(many.status, 400);
    assert!(many.body().await?.contains("at most 3"));
    drop(many);
    let _held = [open(&node, "/sse/a").await?, open(&node, "/sse/a").await?];
    let third = Events::open(node.address, "/sse/a", &[]).await?;
    assert_eq!((third.status, third.header("retry-after")), (429, Some("5")), "{third:?}");
    let limits = [
        ("FANFARE__LIMITS__CHANNELS_PER_CONNECTION", "1"),
        ("FANFARE__LIMITS__SUBSCRIBES_PER_SECOND", "1"),
        ("FANFARE__LIMITS__RATES_PER_ADDRESS", "2"),
    ];
    let node = self::node(&limits).await?;
    let mut answers = Vec::new();
    for _ in 0..8 {
        // No connection is left between two requests.
        answers.push(Events::open(node.address, "/sse/a", &[]).await?.status);
    }
    assert!(answers.starts_with(&[200]) && answers.contains(&429), "{answers:?}");
    Ok(())
}
