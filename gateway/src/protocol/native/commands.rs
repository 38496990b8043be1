//! The commands of `fanfare.v1`: their JSON.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use broker_adapters::{InvalidPosition, Payload, Position};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::presence::InvalidName;
use crate::protocol::{Command, Failure, MOST, Request, Sight, Start, Token};

/// The longest explanation of an invalid command, in bytes.
const MESSAGE: usize = 200;

/// The most messages that `history` gives without a `limit`.
pub(crate) const LIMIT: u32 = 100;

/// The longest key of a publish, in bytes.
pub(crate) const KEY: usize = 255;

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
    presence: Option<Wanted>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`presence` is true, false or \"all\"")]
enum Wanted {
    Whether(bool),
    How(How),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    All,
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
pub(super) fn parse(text: &str) -> Result<Request<'_>, (Option<u64>, Failure)> {
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
    let sees = match frame.subscribe.as_ref().and_then(|Object(on)| on.presence.as_ref()) {
        Some(Wanted::Whether(wanted)) => (*wanted).into(),
        Some(Wanted::How(How::All)) => Sight::All,
        None => Sight::Nothing,
    };
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
