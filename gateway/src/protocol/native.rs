//! `fanfare.v1`: JSON text frames, one object each.
//!
//! Pure. A command has at most one of `connect`, `subscribe`, `unsubscribe`, `publish`, `ping`, `pong` and an
//! `id` that its reply repeats. Replies hold `ok` or `error`; an error says whether a retry can help.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::marker::PhantomData;

use broker_adapters::{Break, InvalidPosition, MessageId, Payload, Position, PublishError, Record};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::base64;

/// The name of the subprotocol.
pub(crate) const NAME: &str = "fanfare.v1";

/// The most bytes of what a reply says of a command that cannot be read.
const MESSAGE: usize = 200;

/// The most bytes of a publish's key.
const KEY: usize = 255;

/// What a client asks for, with the number it gave to the question.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) id: Option<u64>,
    pub(crate) command: Command<'a>,
}

#[derive(Debug)]
pub(crate) enum Command<'a> {
    Connect,
    Subscribe { channel: Cow<'a, str>, since: Option<Position> },
    Unsubscribe { channel: Cow<'a, str> },
    Publish { channel: Cow<'a, str>, payload: Payload, key: Option<Cow<'a, str>> },
    Ping,
    Pong,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) retry: bool,
}

impl Failure {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: false }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (code, retry) = match &error {
            PublishError::Rejected(_) => ("rejected", false),
            PublishError::Overloaded(_) => ("overloaded", true),
            PublishError::Unavailable => ("unavailable", true),
            PublishError::Unknown => ("unknown", true),
        };
        Self { code, message: error.to_string(), retry }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame<'a> {
    id: Option<u64>,
    connect: Option<Object<Empty>>,
    #[serde(borrow)]
    subscribe: Option<Object<Subscribe<'a>>>,
    #[serde(borrow)]
    unsubscribe: Option<Object<OnChannel<'a>>>,
    #[serde(borrow)]
    publish: Option<Object<Publish<'a>>>,
    ping: Option<Object<Empty>>,
    pong: Option<Object<Empty>>,
}

/// A JSON object and nothing else: a derived struct alone would also take an array of its fields.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    since: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnChannel<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
}

/// Reads one command. On failure the number is told if it could be read, so that the reply finds its question.
pub(crate) fn parse(text: &str) -> Result<Request<'_>, (Option<u64>, Failure)> {
    let Object(frame): Object<Frame<'_>> = serde_json::from_str(text).map_err(|error| {
        let id = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|value| value.get("id")?.as_u64());
        let mut message = format!("not a command: {error}");
        // It may quote the client, who knows what it said.
        message.truncate(message.floor_char_boundary(MESSAGE));
        (id, Failure::new("bad_request", message))
    })?;
    let id = frame.id;
    let refuse = |why: String| (id, Failure::new("bad_request", why));
    if let Some(key) = frame.publish.as_ref().and_then(|Object(on)| on.key.as_deref())
        && !(1..=KEY).contains(&key.len())
    {
        return Err(refuse(format!("a key has 1 to {KEY} bytes; this one has {}", key.len())));
    }
    let since = match frame.subscribe.as_ref().and_then(|Object(on)| on.since.as_deref()) {
        Some(since) => Some(since.parse().map_err(|error: InvalidPosition| refuse(format!("`since` is {error}")))?),
        None => None,
    };
    let mut commands = [
        frame.connect.map(|Object(Empty {})| Command::Connect),
        frame.subscribe.map(|Object(on)| Command::Subscribe { channel: on.channel, since }),
        frame.unsubscribe.map(|Object(on)| Command::Unsubscribe { channel: on.channel }),
        frame.publish.map(|Object(on)| Command::Publish {
            channel: on.channel,
            payload: payload(on.data),
            key: on.key,
        }),
        frame.ping.map(|Object(Empty {})| Command::Ping),
        frame.pong.map(|Object(Empty {})| Command::Pong),
    ]
    .into_iter()
    .flatten();
    match (commands.next(), commands.next()) {
        (Some(command), None) => Ok(Request { id, command }),
        _ => Err(refuse("send one of connect, subscribe, unsubscribe, publish, ping, pong per object".into())),
    }
}

/// The id of a message that its publisher named by a key: the same wherever and whenever it is published again.
pub(crate) fn message_id(channel: &str, key: &str) -> MessageId {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(&(channel.len() as u64).to_be_bytes());
    hash.update(channel.as_bytes());
    hash.update(key.as_bytes());
    let digest = hash.digest().bytes();
    MessageId(digest.iter().take(16).fold(0, |id, &byte| id << 8 | u128::from(byte)))
}

/// A JSON string and a text are the same message.
fn payload(data: &RawValue) -> Payload {
    let json = data.get();
    if json.starts_with('"')
        && let Ok(text) = serde_json::from_str::<String>(json)
    {
        return Payload::Text(text.into());
    }
    Payload::Json(Bytes::copy_from_slice(json.as_bytes()))
}

/// A channel's name may be any text that is safe in logs and URLs and unlike a pattern.
pub(crate) fn check_channel(name: &str, most: usize) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::new("bad_channel", why));
    if name.is_empty() || name.len() > most {
        return refuse(format!("a channel's name has 1 to {most} bytes; this one has {}", name.len()));
    }
    let forbidden =
        |c: &char| c.is_control() || c.is_whitespace() || matches!(c, '{' | '}' | '*' | '\u{2028}' | '\u{2029}');
    match name.chars().find(forbidden) {
        Some(c) => {
            refuse(format!("a channel's name may not hold {c:?}: no spaces, control characters, `{{`, `}}` or `*`"))
        }
        None => Ok(()),
    }
}

/// The data frame of a record.
pub(crate) fn message(record: &Record) -> Vec<u8> {
    let payload = record.payload.bytes();
    let mut out = Vec::with_capacity(payload.len() + record.channel.len() + 72);
    out.extend_from_slice(b"{\"channel\":");
    write_string(&mut out, record.channel());
    match &record.payload {
        // What is in the broker was checked by its publisher only: it may not break out of its frame.
        Payload::Json(json) if serde_json::from_slice::<IgnoredAny>(json).is_ok() => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(json);
        }
        Payload::Json(text) | Payload::Text(text) => {
            out.extend_from_slice(b",\"data\":");
            write_string(&mut out, std::str::from_utf8(text).unwrap_or_default());
        }
        Payload::Binary(bytes) => {
            out.extend_from_slice(b",\"base64\":");
            write_string(&mut out, &base64(bytes));
        }
    }
    out.extend_from_slice(format!(",\"at\":\"{}\"}}", record.position()).as_bytes());
    out
}

/// Tells a subscriber that messages of its channel are lost.
pub(crate) fn lost(channel: &str, lost: Break) -> String {
    let channel = quoted(channel);
    format!("{{\"channel\":{channel},\"lost\":{{\"after\":\"{}\",\"reason\":\"{}\"}}}}", lost.after, lost.reason)
}

/// The question whether the client is there, with how far each of its channels is, so that quiet ones resume too.
pub(crate) fn ping<'a>(positions: impl IntoIterator<Item = (&'a str, Position)>) -> String {
    let mut at = String::new();
    for (channel, position) in positions {
        let comma = if at.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(at, "{comma}{}:\"{position}\"", quoted(channel));
    }
    format!("{{\"ping\":{{\"at\":{{{at}}}}}}}")
}

/// Says that the broker is away, or back: until then publishes fail and no messages come.
pub(crate) fn degraded(degraded: bool) -> String {
    format!("{{\"degraded\":{degraded}}}")
}

/// Asks a client of a node that goes away to wait so long before it reconnects, so that not all come at once.
pub(crate) fn reconnect(after_ms: u64) -> String {
    format!("{{\"reconnect\":{{\"after_ms\":{after_ms}}}}}")
}

/// The reply to `connect`.
pub(crate) fn connected(id: Option<u64>, node: &str) -> String {
    reply(id, &format!("\"ok\":{{\"node\":{},\"version\":{}}}", quoted(node), quoted(env!("CARGO_PKG_VERSION"))))
}

/// The reply to `subscribe`: what follows comes after `at`. Who asked for what was missed is told whether that is so.
pub(crate) fn subscribed(id: Option<u64>, channel: &str, at: Position, recovered: Option<bool>) -> String {
    let recovered = recovered.map_or_else(String::new, |recovered| format!(",\"recovered\":{recovered}"));
    reply(id, &format!("\"ok\":{{\"channel\":{},\"at\":\"{at}\"{recovered}}}", quoted(channel)))
}

/// The reply to `publish`: it is in the log.
pub(crate) fn published(id: Option<u64>, at: Option<Position>) -> String {
    let at = at.map_or_else(String::new, |at| format!("\"at\":\"{at}\""));
    reply(id, &format!("\"ok\":{{{at}}}"))
}

/// The reply to a command that has nothing to tell.
pub(crate) fn done(id: Option<u64>) -> String {
    reply(id, "\"ok\":{}")
}

/// The reply to a command that failed.
pub(crate) fn failed(id: Option<u64>, failure: &Failure) -> String {
    let Failure { code, message, retry } = failure;
    reply(id, &format!("\"error\":{{\"code\":\"{code}\",\"message\":{},\"retry\":{retry}}}", quoted(message)))
}

fn reply(id: Option<u64>, rest: &str) -> String {
    match id {
        Some(id) => format!("{{\"id\":{id},{rest}}}"),
        None => format!("{{{rest}}}"),
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use broker_adapters::{BreakReason, Check, MessageId, Offset, Partition};

    use super::*;

    fn position(offset: u64) -> Position {
        Position { partition: Partition(2), offset: Offset(offset), check: Check(0xab) }
    }

    #[test]
    fn every_command_is_read() {
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
    fn what_is_no_command_is_refused_with_its_number_where_there_is_one() {
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

    #[test]
    fn frames_are_valid_json_whatever_the_names() {
        let record = |payload| Record {
            partition: Partition(2),
            offset: Offset(9),
            id: MessageId(0xab),
            time: 0,
            channel: "a\"b".into(),
            payload,
            extensions: Default::default(),
        };
        let text = |payload| String::from_utf8(message(&record(payload))).expect("JSON is text");
        assert_eq!(text(Payload::Json("[1]".into())), r#"{"channel":"a\"b","data":[1],"at":"ab-2-9"}"#);
        let forged = Payload::Json("1},{\"forged\":1".into());
        assert_eq!(text(forged), r#"{"channel":"a\"b","data":"1},{\"forged\":1","at":"ab-2-9"}"#);
        assert_eq!(text(Payload::Text("\n".into())), r#"{"channel":"a\"b","data":"\n","at":"ab-2-9"}"#);
        assert_eq!(text(Payload::Binary("hi".into())), r#"{"channel":"a\"b","base64":"aGk=","at":"ab-2-9"}"#);
        let gap = Break { after: position(3), at: position(8), reason: BreakReason::Trimmed };
        assert_eq!(lost("c", gap), r#"{"channel":"c","lost":{"after":"ab-2-3","reason":"trimmed"}}"#);
        assert_eq!(subscribed(Some(1), "c", position(3), None), r#"{"id":1,"ok":{"channel":"c","at":"ab-2-3"}}"#);
        let resumed = r#"{"id":1,"ok":{"channel":"c","at":"ab-2-3","recovered":true}}"#;
        assert_eq!(subscribed(Some(1), "c", position(3), Some(true)), resumed);
        assert_eq!(ping([]), r#"{"ping":{"at":{}}}"#);
        let two = r#"{"ping":{"at":{"c":"ab-2-3","a\"b":"ab-2-4"}}}"#;
        assert_eq!(ping([("c", position(3)), ("a\"b", position(4))]), two);
        assert_eq!(degraded(true), r#"{"degraded":true}"#);
        assert_eq!(published(Some(1), Some(position(3))), r#"{"id":1,"ok":{"at":"ab-2-3"}}"#);
        assert_eq!(published(None, None), r#"{"ok":{}}"#);
        let failure = Failure::from(PublishError::Unavailable);
        let text = failed(Some(4), &failure);
        assert!(
            text.starts_with(r#"{"id":4,"error":{"code":"unavailable","message":""#)
                && text.ends_with(r#""retry":true}}"#)
        );
    }

    #[test]
    fn a_channel_name_is_safe_in_logs_and_no_pattern() {
        for good in ["a", "news", "chat:room-1", "/ws/echo", "größe", "a.b_c@d#e?f=g&h", "日本語"] {
            assert_eq!(check_channel(good, 255), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", " ", "a b", "a\r\nb", "\u{1b}[31m", "a\0", "{}", "*", "news*", "\u{85}", "\u{2028}", &long] {
            assert_eq!(check_channel(bad, 255).map_err(|failure| failure.code), Err("bad_channel"), "{bad:?}");
        }
    }
}
