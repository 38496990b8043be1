//! The native protocol's commands, good and bad: each gets its reply, and no bad one ends the connection.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::wire::{self, Frame, Wire};

/// Texts that are no command, with the id that can still be read from each.
const BAD_COMMANDS: &[(&str, Option<u64>)] = &[
    ("", None),
    (" ", None),
    ("hello", None),
    ("{", None),
    ("}", None),
    ("null", None),
    ("true", None),
    ("5", None),
    (r#""{}""#, None),
    ("[]", None),
    (r#"[{"id":7,"ping":{}}]"#, None),
    (r#"[7,null,{"channel":"a"},null,null,null,null]"#, None),
    (r#"[7,null,null,null,null,{},null]"#, None),
    ("\u{feff}{}", None),
    (r#"{"id":7,"ping":{}} x"#, None),
    (r#"{"id":7,"ping":{}}{"id":8,"ping":{}}"#, None),
    (r#"{"id":7,"ping":{},}"#, None),
    (r#"{'id':7,'ping':{}}"#, None),
    (r#"{"id":7,"publish":{"channel":"a","data":nul}}"#, None),
    (r#"{"id":7,"publish":{"channel":"a","data":01}}"#, None),
    (r#"{"id":7,"publish":{"channel":"a","data":NaN}}"#, None),
    (r#"{"id":7,"subscribe":{"channel":"\ud800"}}"#, None),
    (r#"{"id":7,"subscribe":{"channel":"\x"}}"#, None),
    ("{\"id\":7,\"subscribe\":{\"channel\":\"a\nb\"}}", None),
    ("{}", None),
    (r#"{"id":7}"#, Some(7)),
    (r#"{"id":0}"#, Some(0)),
    (r#"{"id":18446744073709551615}"#, Some(u64::MAX)),
    (r#"{"id":18446744073709551616,"ping":{}}"#, None),
    (r#"{"id":1e999999,"ping":{}}"#, None),
    (r#"{"id":7.0,"ping":{}}"#, None),
    (r#"{"id":-1,"ping":{}}"#, None),
    (r#"{"id":"7","ping":{}}"#, None),
    (r#"{"id":true,"ping":{}}"#, None),
    (r#"{"id":[7],"ping":{}}"#, None),
    (r#"{"id":7,"ping":{},"pong":{}}"#, Some(7)),
    (r#"{"id":7,"ping":{},"ping":{}}"#, Some(7)),
    (r#"{"id":7,"id":7,"ping":{}}"#, Some(7)),
    (r#"{"id":7,"subscribe":{"channel":"a","channel":"b"}}"#, Some(7)),
    (r#"{"id":7,"ping":null}"#, Some(7)),
    (r#"{"id":7,"ping":[]}"#, Some(7)),
    (r#"{"id":7,"ping":1}"#, Some(7)),
    (r#"{"id":7,"ping":{"x":1}}"#, Some(7)),
    (r#"{"id":7,"Ping":{}}"#, Some(7)),
    (r#"{"id":7,"unknown":{}}"#, Some(7)),
    (r#"{"id":7,"ping":{},"unknown":{}}"#, Some(7)),
    (r#"{"id":7,"subscribe":{}}"#, Some(7)),
    (r#"{"id":7,"subscribe":"a"}"#, Some(7)),
    (r#"{"id":7,"subscribe":["a"]}"#, Some(7)),
    (r#"{"id":7,"subscribe":[{"channel":"a"}]}"#, Some(7)),
    (r#"{"id":7,"subscribe":{"channel":7}}"#, Some(7)),
    (r#"{"id":7,"subscribe":{"channel":null}}"#, Some(7)),
    (r#"{"id":7,"subscribe":{"channel":["a"]}}"#, Some(7)),
    (r#"{"id":7,"subscribe":{"channel":"a","sinc":"x"}}"#, Some(7)),
    (r#"{"id":7,"unsubscribe":{"chanel":"a"}}"#, Some(7)),
    (r#"{"id":7,"publish":{"channel":"a"}}"#, Some(7)),
    (r#"{"id":7,"publish":{"data":1}}"#, Some(7)),
    (r#"{"id":7,"publish":["a",1]}"#, Some(7)),
    (r#"{"id":7,"publish":{"channel":"a","data":1,"data":2}}"#, Some(7)),
];

#[tokio::test]
async fn a_bad_command_gets_a_reply_with_its_id_and_the_connection_stays() -> Result<()> {
    let server = wire::serve("fanfare", &[("FANFARE__LIMITS__MESSAGE", "256KiB")]).await?;
    let mut wire = Wire::open(server.address, "/ws").await?;
    let deep = |depth| "[".repeat(depth);
    let closed = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = "x".repeat(200 << 10);
    let owned = [
        (format!(r#"{{"id":7,"publish":{{"channel":"a","data":{}"#, deep(100_000)), None),
        (deep(100_000), None),
        (closed(100_000), None),
        (r#"{"a":"#.repeat(40_000), None),
        (format!(r#"{{"id":{},"ping":{{}}}}"#, closed(100)), None),
        (format!(r#"{{"id":{},"ping":{{}}}}"#, closed(50_000)), None),
        (format!(r#"{{"id":7,"{long}":1}}"#), Some(7)),
        (format!(r#"{{"id":"{long}","ping":{{}}}}"#), None),
        (format!(r#"{{"id":7,"subscribe":"{long}"}}"#), Some(7)),
    ];
    for (text, id) in BAD_COMMANDS.iter().map(|(text, id)| ((*text).to_owned(), *id)).chain(owned) {
        let shown: String = text.chars().take(80).collect();
        wire.send(Frame::text(&text).bytes()).await?;
        let reply = wire.message().await.with_context(|| shown.clone())?;
        // What was wrong must not be sent back whole.
        assert!(reply.len() < 1024, "{shown}: {} bytes", reply.len());
        let reply: Value = serde_json::from_str(&reply)?;
        assert_eq!(reply["error"]["code"], "bad_request", "{shown}: {reply}");
        assert_eq!(reply["error"]["retry"], false, "{shown}: {reply}");
        assert!(reply["error"]["message"].as_str().is_some_and(|message| message.len() > 20), "{shown}: {reply}");
        assert_eq!(reply.get("id").and_then(Value::as_u64), id, "{shown}: {reply}");
        assert_eq!(reply.as_object().map(|reply| reply.len()), Some(1 + usize::from(id.is_some())), "{shown}: {reply}");
    }
    assert_eq!(wire.ask(r#"{"id":18446744073709551615,"ping":{}}"#).await?, json!({"id": u64::MAX, "ok": {}}));
    wire::visit(server.address, "/raw/news").await
}

#[tokio::test]
async fn a_bad_channel_name_is_refused_by_every_command() -> Result<()> {
    let server = wire::serve("fanfare", &[("FANFARE__LOG__LEVEL", "debug")]).await?;
    let mut wire = Wire::open(server.address, "/ws").await?;
    let long = "x".repeat(256);
    let names = [
        "",
        " ",
        "a b",
        "a\r\nINFO forged",
        "\u{1b}[31m",
        "a\0b",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{2028}",
        "{}",
        "{a",
        "a}",
        "*",
        "news*",
        &long,
    ];
    for name in names {
        for command in ["subscribe", "publish"] {
            let mut body = json!({ "channel": name });
            if command == "publish" {
                body["data"] = json!(1);
            }
            let reply = wire.ask(&json!({"id": 7, command: body}).to_string()).await?;
            assert_eq!(
                (&reply["id"], &reply["error"]["code"]),
                (&json!(7), &json!("bad_channel")),
                "{name:?}: {reply}"
            );
        }
        let reply = wire.ask(&json!({"id": 7, "unsubscribe": {"channel": name}}).to_string()).await?;
        let code = reply["error"]["code"].as_str().unwrap_or_default();
        assert!(["bad_channel", "not_subscribed"].contains(&code), "{name:?}: {reply}");
    }
    let output = server.output();
    assert!(!output.contains("forged") && !output.contains('\u{1b}'), "{output}");
    Ok(())
}

#[tokio::test]
async fn subscribing_twice_is_once_and_leaving_what_one_is_not_in_is_an_error() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let mut wire = Wire::open(server.address, "/ws").await?;
    let never = wire.ask(r#"{"id":1,"unsubscribe":{"channel":"news"}}"#).await?;
    assert_eq!(never["error"]["code"], "not_subscribed", "{never}");
    for id in 2..4 {
        let reply = wire.ask(&json!({"id": id, "subscribe": {"channel": "news"}}).to_string()).await?;
        assert_eq!((&reply["id"], &reply["ok"]["channel"]), (&json!(id), &json!("news")), "{reply}");
    }
    for data in ["once", "only"] {
        wire.send(Frame::text(json!({"publish": {"channel": "news", "data": data}}).to_string()).bytes()).await?;
    }
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| *last != "only") {
        let message: Value = serde_json::from_str(&wire.message().await?)?;
        heard.extend(message.get("data").cloned());
    }
    assert_eq!(heard, ["once", "only"]);
    let left = wire.ask(r#"{"id":9,"unsubscribe":{"channel":"news"}}"#).await?;
    // The second publish's own reply may come after the message.
    let left = if left.get("id").is_none() { serde_json::from_str(&wire.message().await?)? } else { left };
    assert_eq!(left, json!({"id": 9, "ok": {}}));
    let again = wire.ask(r#"{"id":10,"unsubscribe":{"channel":"news"}}"#).await?;
    assert_eq!(again["error"]["code"], "not_subscribed", "{again}");
    Ok(())
}

#[tokio::test]
async fn a_connection_may_be_in_a_hundred_channels_and_no_more() -> Result<()> {
    let server = wire::serve("fanfare", &[]).await?;
    let mut wire = Wire::open(server.address, "/ws").await?;
    let subscribe = |n: u32| json!({"id": n, "subscribe": {"channel": format!("c{n}")}}).to_string();
    for n in 0..100 {
        let reply = wire.ask(&subscribe(n)).await?;
        assert_eq!(reply["ok"]["channel"], format!("c{n}"), "{reply}");
    }
    let reply = wire.ask(&subscribe(100)).await?;
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(100), &json!("too_many_channels")), "{reply}");
    let reply = wire.ask(&subscribe(99)).await?;
    assert_eq!(reply["ok"]["channel"], "c99", "one that it is in: {reply}");
    wire.ask(r#"{"unsubscribe":{"channel":"c0"}}"#).await?;
    let reply = wire.ask(&subscribe(100)).await?;
    assert_eq!(reply["ok"]["channel"], "c100", "there is room again: {reply}");
    Ok(())
}
