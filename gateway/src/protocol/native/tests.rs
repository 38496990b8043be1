//! Parsing commands, and encoding replies, notices and records.

use broker_adapters::{Break, BreakReason, Check, MessageId, Offset, Partition, PublishError};

use super::*;

fn position(offset: u64) -> Position {
    Position { partition: Partition(2), offset: Offset(offset), check: Check(0xab) }
}

#[test]
fn every_command_is_parsed() {
    let read = |text| format!("{:?}", parse(text).expect("a command"));
    let of = |id: &str, command: &str| format!("Request {{ id: {id}, command: {command} }}");
    assert_eq!(
        read(r#"{"id":1,"subscribe":{"channel":"n\u0065ws"}}"#),
        of("Some(1)", "Subscribe { channel: \"news\", since: None }")
    );
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
    assert_eq!(read(r#"{"id":18446744073709551615,"connect":{}}"#), of("Some(18446744073709551615)", "Connect"));
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
        (r#"[7,null,{"channel":"a"},null,null,null,null]"#, None),
    ] {
        let (found, failure) = parse(text).expect_err(text);
        assert_eq!((found, failure.code, failure.retry), (id, "bad_request", false), "{text}");
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
    assert_eq!(written(Payload::Json("[1]".into())), r#"{"channel":"a\"b","data":[1],"at":"ab-2-9"}"#);
    let forged = Payload::Json("1},{\"forged\":1".into());
    assert_eq!(written(forged), r#"{"channel":"a\"b","data":"1},{\"forged\":1","at":"ab-2-9"}"#);
    assert_eq!(written(Payload::Text("\n".into())), r#"{"channel":"a\"b","data":"\n","at":"ab-2-9"}"#);
    assert_eq!(written(Payload::Binary("hi".into())), r#"{"channel":"a\"b","base64":"aGk=","at":"ab-2-9"}"#);
}

#[test]
fn replies_repeat_the_id_and_say_what_happened() {
    let reply = |id, reply: Reply<'_>| json(Native.reply(id, &reply));
    let subscribed = |recovered| Reply::Subscribed { channel: "c", at: position(3), recovered };
    assert_eq!(reply(Some(1), subscribed(None)), r#"{"id":1,"ok":{"channel":"c","at":"ab-2-3"}}"#);
    let resumed = r#"{"id":1,"ok":{"channel":"c","at":"ab-2-3","recovered":true}}"#;
    assert_eq!(reply(Some(1), subscribed(Some(true))), resumed);
    assert_eq!(reply(Some(1), Reply::Published { at: Some(position(3)) }), r#"{"id":1,"ok":{"at":"ab-2-3"}}"#);
    assert_eq!(reply(None, Reply::Published { at: None }), r#"{"ok":{}}"#);
    assert_eq!(reply(None, Reply::Done), r#"{"ok":{}}"#);
    let failed = reply(Some(4), Reply::Failed(&Failure::from(PublishError::Unavailable)));
    assert!(
        failed.starts_with(r#"{"id":4,"error":{"code":"unavailable","message":""#)
            && failed.ends_with(r#""retry":true}}"#)
    );
}

#[test]
fn notices_are_valid_json_whatever_the_names() {
    fn notice(notice: Notice<'_>) -> String {
        json(Native.notice(notice))
    }
    let lost = Break { after: position(3), at: position(8), reason: BreakReason::Trimmed };
    let expected = r#"{"channel":"a\"b","lost":{"after":"ab-2-3","reason":"trimmed"}}"#;
    assert_eq!(notice(Notice::Lost { channel: "a\"b", lost }), expected);
    assert_eq!(notice(Notice::Ping(&[])), r#"{"ping":{"at":{}}}"#);
    let two = [("c", position(3)), ("a\"b", position(4))];
    assert_eq!(notice(Notice::Ping(&two)), r#"{"ping":{"at":{"c":"ab-2-3","a\"b":"ab-2-4"}}}"#);
    assert_eq!(notice(Notice::Degraded(true)), r#"{"degraded":true}"#);
    assert_eq!(notice(Notice::Reconnect { after_ms: 7 }), r#"{"reconnect":{"after_ms":7}}"#);
}
