//! `fanfare.v1`: JSON text messages, one object each.
//!
//! Pure. A command has exactly one of `connect`, `refresh`, `subscribe`, `unsubscribe`, `publish`, `history`, `presence`, `ping`,
//! `pong`, and optionally an `id` that its reply repeats. A reply has `ok` or `error`; an error says whether a retry can help.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_adapters::{Extension, InvalidPosition, Payload, Position, Record};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::attendance;
use super::{
    Body, Command, Failure, Incoming, Input, MOST, Notice, Output, Protocol, Reply, Request, Session, Start, Token,
};
use crate::close::CloseReason;
use crate::errors_page::see;
use crate::presence::InvalidName;

/// The name of the subprotocol.
pub(crate) const NAME: &str = "fanfare.v1";

/// The longest explanation of an invalid command, in bytes.
const MESSAGE: usize = 200;

/// The most messages that `history` gives without a `limit`.
pub(crate) const LIMIT: u32 = 100;

/// The longest key of a publish, in bytes.
pub(crate) const KEY: usize = 255;

/// The protocol. Its sessions have no state.
pub(crate) struct Native;

impl Protocol for Native {
    fn path(&self) -> Option<&'static str> {
        Some("/ws")
    }

    fn names(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn takes_tokens(&self) -> bool {
        true
    }

    fn open(&self) -> Box<dyn Session> {
        Box::new(Self)
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        Body::text(message(record))
    }

    fn reply(&self, id: Option<u64>, reply: &Reply<'_>) -> Output {
        let rest = match reply {
            Reply::Connected { node, client, user, expires_in } => {
                let user = user.map_or_else(String::new, |user| format!(",\"user\":{}", quoted(user)));
                let expires = expires_in.map_or_else(String::new, |seconds| format!(",\"expires_in\":{seconds}"));
                let (node, version) = (quoted(node), quoted(env!("CARGO_PKG_VERSION")));
                format!("\"ok\":{{\"node\":{node},\"version\":{version},\"client\":\"{client}\"{user}{expires}}}")
            }
            Reply::Refreshed { expires_in } => {
                let expires = expires_in.map_or_else(String::new, |seconds| format!("\"expires_in\":{seconds}"));
                format!("\"ok\":{{{expires}}}")
            }
            Reply::Done => "\"ok\":{}".to_owned(),
            Reply::Subscribed { channel, at, recovered, last, presence } => {
                let recovered = recovered.map_or_else(String::new, |recovered| format!(",\"recovered\":{recovered}"));
                let last = last.map_or_else(String::new, |last| format!(",\"last\":{last}"));
                let presence = presence.map_or_else(String::new, attendance::in_subscribed);
                format!("\"ok\":{{\"channel\":{},\"at\":\"{at}\"{recovered}{last}{presence}}}", quoted(channel))
            }
            Reply::Presence { channel, snapshot } => attendance::page(channel, snapshot),
            Reply::History { channel, records, next, complete } => {
                let next = next.map_or_else(String::new, |next| format!(",\"next\":\"{next}\""));
                let (channel, messages) = (quoted(channel), messages(records));
                format!("\"ok\":{{\"channel\":{channel},\"messages\":[{messages}]{next},\"complete\":{complete}}}")
            }
            Reply::Published { at } => {
                let at = at.map_or_else(String::new, |at| format!("\"at\":\"{at}\""));
                format!("\"ok\":{{{at}}}")
            }
            Reply::Failed(Failure { code, message, retry, retry_after }) => {
                let after = retry_after.map_or_else(String::new, |after| format!(",\"retry_after_ms\":{after}"));
                let message = quoted(&(message.clone() + &see(code)));
                format!("\"error\":{{\"code\":\"{code}\",\"message\":{message},\"retry\":{retry}{after}}}")
            }
        };
        text(match id {
            Some(id) => format!("{{\"id\":{id},{rest}}}"),
            None => format!("{{{rest}}}"),
        })
    }

    fn notice(&self, notice: Notice<'_>) -> Output {
        text(match notice {
            Notice::Lost { channel, lost } => {
                let (channel, after, reason) = (quoted(channel), lost.after, lost.reason);
                format!("{{\"channel\":{channel},\"lost\":{{\"after\":\"{after}\",\"reason\":\"{reason}\"}}}}")
            }
            Notice::Skipped { channel, count } => format!("{{\"channel\":{},\"skipped\":{count}}}", quoted(channel)),
            Notice::Unsubscribed { channel, reason } => {
                format!("{{\"unsubscribed\":{{\"channel\":{},\"reason\":\"{reason}\"}}}}", quoted(channel))
            }
            Notice::Presence { change, at } => attendance::change(change, at),
            Notice::Unseen { channel, reason } => attendance::unseen(channel, reason),
            Notice::Ping(positions) => ping(positions),
            Notice::Degraded(degraded) => format!("{{\"degraded\":{degraded}}}"),
            Notice::Reconnect { after_ms } => format!("{{\"reconnect\":{{\"after_ms\":{after_ms}}}}}"),
        })
    }
}

impl Session for Native {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Input<'a> {
        match message {
            Incoming::Text(Cow::Borrowed(text)) => parse(text).map_or_else(invalid, Input::Command),
            Incoming::Text(Cow::Owned(text)) => {
                parse(&text).map_or_else(invalid, |request| Input::Command(request.into_owned()))
            }
            Incoming::Binary(_) => Input::Close(CloseReason::Unsupported),
        }
    }
}

fn invalid<'a>((id, failure): (Option<u64>, Failure)) -> Input<'a> {
    Input::Invalid { id, failure }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    connect: Option<Object<Connect<'a>>>,
    #[serde(borrow)]
    refresh: Option<Object<Refresh<'a>>>,
    #[serde(borrow)]
    subscribe: Option<Object<Subscribe<'a>>>,
    #[serde(borrow)]
    unsubscribe: Option<Object<OnChannel<'a>>>,
    #[serde(borrow)]
    publish: Option<Object<Publish<'a>>>,
    #[serde(borrow)]
    history: Option<Object<History<'a>>>,
    #[serde(borrow)]
    presence: Option<Object<Presence<'a>>>,
    ping: Option<Object<Empty>>,
    pong: Option<Object<Empty>>,
}

/// Deserializes only from a JSON object: a derived struct alone would also accept an array of its fields.
pub(crate) struct Object<T>(pub(crate) T);

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
struct Connect<'a> {
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    since: Option<Cow<'a, str>>,
    last: Option<u32>,
    #[serde(default)]
    presence: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Presence<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    after: Option<Cow<'a, str>>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct History<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    since: Option<Cow<'a, str>>,
    #[serde(borrow)]
    before: Option<Cow<'a, str>>,
    limit: Option<u32>,
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

/// The message of a publish that is not in a frame: channel, payload and key.
pub(crate) fn posted(json: &[u8]) -> Result<(String, Payload, Option<String>), Failure> {
    let Object(on): Object<Publish<'_>> = serde_json::from_slice(json).map_err(|error| {
        let mut why = format!("not a message, such as {{\"channel\":\"news\",\"data\":1}}: {error}");
        why.truncate(why.floor_char_boundary(MESSAGE));
        Failure::new("bad_request", why)
    })?;
    Ok((on.channel.into_owned(), payload(on.data), on.key.map(Cow::into_owned)))
}

/// Fails if the key of a publish is too long or empty.
pub(crate) fn check_key(key: Option<&str>) -> Result<(), Failure> {
    match key.map(str::len) {
        Some(length) if !(1..=KEY).contains(&length) => {
            Err(Failure::new("bad_request", format!("a key has 1 to {KEY} bytes; this one has {length}")))
        }
        _ => Ok(()),
    }
}

/// Parses one command. A failure comes with the command's id, if that can be read, so that the reply can repeat it.
fn parse(text: &str) -> Result<Request<'_>, (Option<u64>, Failure)> {
    let Object(frame): Object<Frame<'_>> = serde_json::from_str(text).map_err(|error| {
        let id = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|value| value.get("id")?.as_u64());
        let mut message = format!("not a command: {}", without_strings(&error.to_string()));
        message.truncate(message.floor_char_boundary(MESSAGE));
        (id, Failure::new("bad_request", message))
    })?;
    let id = frame.id;
    let refuse = |why: String| (id, Failure::new("bad_request", why));
    let key = frame.publish.as_ref().and_then(|Object(on)| on.key.as_deref());
    check_key(key).map_err(|failure| (id, failure))?;
    let since = match frame.subscribe.as_ref() {
        Some(Object(on)) => position("since", on.since.as_deref()).map_err(refuse)?,
        None => None,
    };
    let last = frame.subscribe.as_ref().and_then(|Object(on)| on.last);
    count("last", last).map_err(refuse)?;
    let history = match frame.history {
        Some(Object(on)) => Some(history(on).map_err(refuse)?),
        None => None,
    };
    let presence = match frame.presence {
        Some(Object(on)) => Some(presence(on).map_err(refuse)?),
        None => None,
    };
    let sees = frame.subscribe.as_ref().is_some_and(|Object(on)| on.presence);
    let mut commands = [
        frame.connect.map(|Object(on)| Command::Connect { token: on.token.map(Token) }),
        frame.refresh.map(|Object(on)| Command::Refresh { token: Token(on.token) }),
        frame.subscribe.map(|Object(on)| Command::Subscribe { channel: on.channel, since, last, presence: sees }),
        frame.unsubscribe.map(|Object(on)| Command::Unsubscribe { channel: on.channel }),
        frame.publish.map(|Object(on)| Command::Publish {
            channel: on.channel,
            payload: payload(on.data),
            key: on.key,
        }),
        history,
        presence,
        frame.ping.map(|Object(Empty {})| Command::Ping),
        frame.pong.map(|Object(Empty {})| Command::Pong),
    ]
    .into_iter()
    .flatten();
    match (commands.next(), commands.next()) {
        (Some(command), None) => Ok(Request { id, command }),
        _ => Err(refuse(
            "send one of connect, refresh, subscribe, unsubscribe, publish, history, presence, ping, pong per object"
                .into(),
        )),
    }
}

/// A parser's error without the string that it quotes, which may be a token.
fn without_strings(error: &str) -> String {
    match (error.find("string \""), error.rfind("\", ")) {
        (Some(begin), Some(end)) if begin < end => format!("{}string{}", &error[..begin], &error[end + 1..]),
        _ => error.to_owned(),
    }
}

fn history(on: History<'_>) -> Result<Command<'_>, String> {
    let start = match (position("since", on.since.as_deref())?, position("before", on.before.as_deref())?) {
        (Some(since), None) => Start::Since(since),
        (None, Some(before)) => Start::Before(before),
        (None, None) => Start::End,
        (Some(_), Some(_)) => return Err("send `since` or `before`, not both".into()),
    };
    count("limit", on.limit)?;
    Ok(Command::History { channel: on.channel, start, limit: on.limit.unwrap_or(LIMIT) })
}

fn presence(on: Presence<'_>) -> Result<Command<'_>, String> {
    let after = on.after.map(|after| after.parse().map_err(|error: InvalidName| format!("`after` is {error}")));
    count("limit", on.limit)?;
    Ok(Command::Presence { channel: on.channel, after: after.transpose()?, limit: on.limit.unwrap_or(LIMIT) })
}

fn position(field: &str, text: Option<&str>) -> Result<Option<Position>, String> {
    text.map(|text| text.parse().map_err(|error: InvalidPosition| format!("`{field}` is {error}"))).transpose()
}

fn count(field: &str, number: Option<u32>) -> Result<(), String> {
    match number {
        Some(number) if !(1..=MOST).contains(&number) => Err(format!("`{field}` is 1 to {MOST}, not {number}")),
        _ => Ok(()),
    }
}

/// A JSON string becomes a text message.
pub(crate) fn payload(data: &RawValue) -> Payload {
    let json = data.get();
    if json.starts_with('"')
        && let Ok(text) = serde_json::from_str::<String>(json)
    {
        return Payload::Text(text.into());
    }
    Payload::Json(Bytes::copy_from_slice(json.as_bytes()))
}

/// The JSON message for a record.
pub(super) fn message(record: &Record) -> Vec<u8> {
    let payload = record.payload.bytes();
    let mut out = Vec::with_capacity(payload.len() + record.channel.len() + 72);
    out.extend_from_slice(b"{\"channel\":");
    write_string(&mut out, record.channel());
    out.push(b',');
    write_content(&mut out, record);
    out.push(b'}');
    out
}

/// The messages of one channel, without its name.
pub(crate) fn messages(records: &[&Record]) -> String {
    let mut out = Vec::with_capacity(records.iter().map(|record| record.payload.bytes().len() + 72).sum());
    for record in records {
        out.extend_from_slice(if out.is_empty() { b"{" } else { b",{" });
        write_content(&mut out, record);
        out.push(b'}');
    }
    String::from_utf8(out).unwrap_or_default()
}

/// The field that holds the content of a message.
pub(super) fn write_data(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        // The broker's bytes are not trusted: only valid JSON may be embedded unchanged.
        Payload::Json(json) if serde_json::from_slice::<IgnoredAny>(json).is_ok() => {
            out.extend_from_slice(b"\"data\":");
            out.extend_from_slice(json);
        }
        Payload::Json(text) | Payload::Text(text) => {
            out.extend_from_slice(b"\"data\":");
            write_string(out, std::str::from_utf8(text).unwrap_or_default());
        }
        Payload::Binary(bytes) => {
            out.extend_from_slice(b"\"base64\":");
            write_string(out, &STANDARD.encode(bytes));
        }
    }
}

/// The fields of a message: its data and its position.
pub(super) fn write_content(out: &mut Vec<u8>, record: &Record) {
    write_data(out, &record.payload);
    let (user, client) = (record.extensions.get(Extension::User), record.extensions.get(Extension::Client));
    if let Some(client) = client {
        let user = user.map_or_else(String::new, |user| format!("\"user\":{},", quoted(user)));
        out.extend_from_slice(format!(",\"from\":{{{user}\"client\":{}}}", quoted(client)).as_bytes());
    }
    out.extend_from_slice(format!(",\"at\":\"{}\"", record.position()).as_bytes());
}

/// The ping with the position of each channel.
fn ping(positions: &[(&str, Position)]) -> String {
    let mut at = String::new();
    for (channel, position) in positions {
        let comma = if at.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(at, "{comma}{}:\"{position}\"", quoted(channel));
    }
    format!("{{\"ping\":{{\"at\":{{{at}}}}}}}")
}

fn text(json: String) -> Output {
    Output::Message(Body::text(json.into_bytes()))
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests;
