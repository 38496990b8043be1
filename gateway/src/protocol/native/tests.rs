//! Parsing commands, and encoding replies, notices and records.

use broker_adapters::{Break, BreakReason, Check, Extensions, MessageId, Offset, Partition, PublishError};

use super::*;
use crate::protocol::{Command, Request, Start};

fn position(offset: u64) -> Position {
    Position { partition: Partition(2), offset: Offset(offset), check: Check(0xab) }
}

#[test]
fn every_command_is_parsed() {
    let read = |text: &str| format!("{:?}", parse(text).expect("a command"));
    let of = |id: &str, command: &str| format!("Request {{ id: {id}, command: {command} }}");
    assert_eq!(
        read(r#"{"id":1,"subscribe":{"channel":"n\u0065ws"}}"#),
        of("Some(1)", "Subscribe { channel: \"news\", since: None, last: None, presence: Nothing }")
    );
    assert_eq!(
        read(r#"{"subscribe":{"channel":"news","last":50}}"#),
        of("None", "Subscribe { channel: \"news\", since: None, last: Some(50), presence: Nothing }")
    );
    assert_eq!(
        read(r#"{"subscribe":{"channel":"news","presence":true}}"#),
        of("None", "Subscribe { channel: \"news\", since: None, last: None, presence: Usual }")
    );
    assert_eq!(
        read(r#"{"subscribe":{"channel":"news","presence":"all"}}"#),
        of("None", "Subscribe { channel: \"news\", since: None, last: None, presence: All }")
    );
    let after = "Some(Name { text: \"ann\", client: false })";
    assert_eq!(
        read(r#"{"presence":{"channel":"news","after":"user:ann","limit":7}}"#),
        of("None", &format!("Presence {{ channel: \"news\", after: {after}, limit: 7 }}"))
    );
    let history = |fields: &str| read(&format!(r#"{{"history":{{"channel":"news"{fields}}}}}"#));
    let expected = |start, limit| {
        format!("{:?}", Request { id: None, command: Command::History { channel: "news".into(), start, limit } })
    };
    assert_eq!(history(""), expected(Start::End, LIMIT));
    assert_eq!(history(r#","since":"03.2.ab","limit":1000"#), expected(Start::Since(position(3)), 1000));
    assert_eq!(history(r#","before":"ab-2-3","limit":1"#), expected(Start::Before(position(3)), 1));
    assert_eq!(read(r#"{"unsubscribe":{"channel":"news"}}"#), of("None", "Unsubscribe { channel: \"news\" }"));
    assert_eq!(
        read(r#"{"id":2,"publish":{"channel":"c","data":{"a":[1, 2]}}}"#),
        of("Some(2)", "Publish { channel: \"c\", payload: Json(b\"{\\\"a\\\":[1, 2]}\"), key: None }")
    );
    assert_eq!(
        read(r#"{"id":2,"publish":{"channel":"c","data":"h\u00e9"}}"#),
        of("Some(2)", "Publish { channel: \"c\", payload: Text(b\"h\\xc3\\xa9\"), key: None }")
    );
    assert_eq!(read(r#"{"id":3,"ping":{}}"#), of("Some(3)", "Ping"));
    assert_eq!(read(r#"{"pong":{}}"#), of("None", "Pong"));
    assert_eq!(
        read(r#"{"id":18446744073709551615,"connect":{}}"#),
        of("Some(18446744073709551615)", "Connect { token: None }")
    );
    assert_eq!(read(r#"{"connect":{"token":"ey"}}"#), of("None", "Connect { token: Some(Token) }"));
    assert_eq!(read(r#"{"refresh":{"token":"ey"}}"#), of("None", "Refresh { token: Token }"));
}

#[test]
fn an_invalid_command_is_refused_with_its_id_if_it_has_one() {
    for (text, id) in [
        ("", None),
        ("hello", None),
        ("[]", None),
        ("{}", None),
        (r#"{"id":7}"#, Some(7)),
        (r#"{"id":7,"subscribe":{}}"#, Some(7)),
        (r#"{"id":7,"subscribe":{"channel":1}}"#, Some(7)),
        (r#"{"id":7,"subscribe":{"channel":"a"},"ping":{}}"#, Some(7)),
        (r#"{"id":7,"subscripe":{"channel":"a"}}"#, Some(7)),
        (r#"{"id":-1,"ping":{}}"#, None),
        (r#"{"id":7,"publish":{"channel":"a"}}"#, Some(7)),
        (r#"{"id":7,"publish":{"channel":"a","data":nul}}"#, None),
        (r#"{"id":7,"subscribe":["a"]}"#, Some(7)),
        (r#"{"id":7,"subscribe":{"channel":"a","since":"x"}}"#, Some(7)),
        (r#"{"id":7,"subscribe":{"channel":"a","since":7}}"#, Some(7)),
        (r#"{"id":7,"publish":{"channel":"a","data":1,"key":""}}"#, Some(7)),
        (r#"{"id":7,"ping":[]}"#, Some(7)),
        (r#"{"id":7,"refresh":{}}"#, Some(7)),
        (r#"{"id":7,"connect":{"token":7}}"#, Some(7)),
        (r#"{"id":7,"subscribe":{"channel":"a","last":0}}"#, Some(7)),
        (r#"{"id":7,"subscribe":{"channel":"a","last":1001}}"#, Some(7)),
        (r#"{"id":7,"history":{"channel":"a","limit":0}}"#, Some(7)),
        (r#"{"id":7,"history":{"channel":"a","limit":1001}}"#, Some(7)),
        (r#"{"id":7,"history":{"channel":"a","since":"yesterday"}}"#, Some(7)),
        (r#"{"id":7,"history":{"channel":"a","since":"01.0.1","before":"01.0.1"}}"#, Some(7)),
        (r#"[7,null,{"channel":"a"},null,null,null,null,null]"#, None),
    ] {
        let (found, failure) = parse(text).expect_err(text);
        assert_eq!((found, failure.code, failure.retry), (id, "bad_request", false), "{text}");
    }
}

#[test]
fn an_error_does_not_quote_a_token() {
    for text in [
        r#"{"connect":"eyJ-secret"}"#,
        r#"{"id":1,"refresh":"eyJ-\"secret"}"#,
        r#"{"refresh":{"token":["eyJ-secret"]}}"#,
    ] {
        let (_, failure) = parse(text).expect_err(text);
        assert!(!failure.message.contains("secret") && failure.message.starts_with("not a command: "), "{failure:?}");
    }
}

fn json(output: Output) -> String {
    let Output::Message(body) = output else { panic!("not a message: {output:?}") };
    body.to_string()
}

#[test]
fn records_are_valid_json_whatever_the_names() {
    let written = |payload| {
        let (partition, offset, id, time) = (Partition(2), Offset(9), MessageId(0xab), 0);
        let channel = "a\"b".into();
        let record = Record { partition, offset, id, time, channel, payload, extensions: Default::default() };
        Native.message(&record).to_string()
    };
    assert_eq!(written(Payload::Json("[1]".into())), r#"{"channel":"a\"b","data":[1],"at":"09.2.ab"}"#);
    let forged = Payload::Json("1},{\"forged\":1".into());
    assert_eq!(written(forged), r#"{"channel":"a\"b","data":"1},{\"forged\":1","at":"09.2.ab"}"#);
    assert_eq!(written(Payload::Text("\n".into())), r#"{"channel":"a\"b","data":"\n","at":"09.2.ab"}"#);
    assert_eq!(written(Payload::Binary("hi".into())), r#"{"channel":"a\"b","base64":"aGk=","at":"09.2.ab"}"#);
}

#[test]
fn a_message_names_its_publisher_if_the_record_does() {
    let message = |extensions| {
        let (partition, offset, id, payload) = (Partition(2), Offset(9), MessageId(0xab), Payload::Json("1".into()));
        Native.message(&Record { partition, offset, id, time: 0, channel: "c".into(), payload, extensions }).to_string()
    };
    let client = Extensions::default().with(Extension::Client, "c7").expect("short");
    assert_eq!(message(client.clone()), r#"{"channel":"c","data":1,"from":{"client":"c7"},"at":"09.2.ab"}"#);
    let user = client.with(Extension::User, "a\"b").expect("short");
    assert_eq!(message(user), r#"{"channel":"c","data":1,"from":{"user":"a\"b","client":"c7"},"at":"09.2.ab"}"#);
}

#[test]
fn replies_repeat_the_id_and_say_what_happened() {
    let reply = |id, reply: Reply<'_>| json(Native.reply(id, &reply));
    let subscribed =
        |recovered| Reply::Subscribed { channel: "c", at: position(3), recovered, last: None, presence: None };
    let last =
        Reply::Subscribed { channel: "c", at: position(3), recovered: Some(false), last: Some(7), presence: None };
    let expected = r#"{"id":1,"ok":{"channel":"c","at":"03.2.ab","recovered":false,"last":7}}"#;
    assert_eq!(reply(Some(1), last), expected);
    assert_eq!(reply(Some(1), subscribed(None)), r#"{"id":1,"ok":{"channel":"c","at":"03.2.ab"}}"#);
    let resumed = r#"{"id":1,"ok":{"channel":"c","at":"03.2.ab","recovered":true}}"#;
    assert_eq!(reply(Some(1), subscribed(Some(true))), resumed);
    assert_eq!(reply(Some(1), Reply::Published { at: Some(position(3)) }), r#"{"id":1,"ok":{"at":"03.2.ab"}}"#);
    assert_eq!(reply(None, Reply::Published { at: None }), r#"{"ok":{}}"#);
    assert_eq!(reply(None, Reply::Done), r#"{"ok":{}}"#);
    let connected = |user, expires_in| Reply::Connected { node: "one", client: "c7", user, expires_in };
    let anonymous = concat!(r#"{"ok":{"node":"one","version":""#, env!("CARGO_PKG_VERSION"), r#"","client":"c7"}}"#);
    assert_eq!(reply(None, connected(None, None)), anonymous);
    assert!(
        reply(Some(1), connected(Some("a\"b"), Some(60))).ends_with(r#""client":"c7","user":"a\"b","expires_in":60}}"#)
    );
    assert_eq!(reply(Some(2), Reply::Refreshed { expires_in: Some(60) }), r#"{"id":2,"ok":{"expires_in":60}}"#);
    let failed = reply(Some(4), Reply::Failed(&Failure::from(PublishError::Unavailable)));
    assert!(
        failed.starts_with(r#"{"id":4,"error":{"code":"unavailable","message":""#)
            && failed.ends_with(r#""retry":true}}"#)
    );
    let slower = reply(None, Reply::Failed(&Failure::for_a_time("rate_limited", "wait", 250)));
    let expected = r#"{"error":{"code":"rate_limited","message":"wait; see docs/errors.md#rate_limited","retry":true,"retry_after_ms":250}}"#;
    assert_eq!(slower, expected);
}

#[test]
fn history_is_one_reply_with_all_messages() {
    let record = |offset, payload| {
        let (partition, id, channel) = (Partition(2), MessageId(0xab), "c".into());
        Record { partition, offset: Offset(offset), id, time: 0, channel, payload, extensions: Default::default() }
    };
    let records = [record(3, Payload::Json("[1]".into())), record(9, Payload::Binary("hi".into()))];
    let history = |records: &[&Record], next, complete| {
        json(Native.reply(Some(1), &Reply::History { channel: "c", records, next, complete }))
    };
    let messages = r#"{"data":[1],"at":"03.2.ab"},{"base64":"aGk=","at":"09.2.ab"}"#;
    let expected =
        format!(r#"{{"id":1,"ok":{{"channel":"c","messages":[{messages}],"next":"03.2.ab","complete":false}}}}"#);
    assert_eq!(history(&[&records[0], &records[1]], Some(position(3)), false), expected);
    assert_eq!(history(&[], None, true), r#"{"id":1,"ok":{"channel":"c","messages":[],"complete":true}}"#);
}

#[test]
fn notices_are_valid_json_whatever_the_names() {
    fn notice(notice: Notice<'_>) -> String {
        json(Native.notice(notice))
    }
    let lost = Break { after: position(3), at: position(8), reason: BreakReason::Trimmed };
    let expected = r#"{"channel":"a\"b","lost":{"after":"03.2.ab","reason":"trimmed"}}"#;
    assert_eq!(notice(Notice::Lost { channel: "a\"b", lost }), expected);
    let unsubscribed = r#"{"unsubscribed":{"channel":"a\"b","reason":"forbidden"}}"#;
    assert_eq!(notice(Notice::Unsubscribed { channel: "a\"b", reason: "forbidden" }), unsubscribed);
    assert_eq!(notice(Notice::Skipped { channel: "c", count: 3 }), r#"{"channel":"c","skipped":3}"#);
    assert_eq!(notice(Notice::Ping(&[])), r#"{"ping":{"at":{}}}"#);
    let two = [("c", position(3)), ("a\"b", position(4))];
    assert_eq!(notice(Notice::Ping(&two)), r#"{"ping":{"at":{"c":"03.2.ab","a\"b":"04.2.ab"}}}"#);
    assert_eq!(notice(Notice::Degraded(true)), r#"{"degraded":true}"#);
    assert_eq!(notice(Notice::Reconnect { after_ms: 7 }), r#"{"reconnect":{"after_ms":7}}"#);
}
