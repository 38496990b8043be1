//! `fanfare.v1`: JSON text messages, one object each.
//!
//! Pure. A command has exactly one of `connect`, `refresh`, `subscribe`, `unsubscribe`, `publish`, `history`, `presence`, `ping`,
//! `pong`, and optionally an `id` that its reply repeats. A reply has `ok` or `error`; an error says whether a retry can help.

mod commands;

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_adapters::{Extension, Payload, Position, Record};
use serde::de::IgnoredAny;

use self::commands::parse;
pub(crate) use self::commands::{LIMIT, Object, check_key, payload, posted};
use super::{Body, Failure, Incoming, Input, Notice, Output, Protocol, Reply, Session, attendance};
use crate::close::CloseReason;
use crate::errors_page::see;

/// The name of the subprotocol.
pub(crate) const NAME: &str = "fanfare.v1";

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
