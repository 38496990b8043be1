//! Server-Sent Events: each message of a channel is an event, and so is each notice. Clients only listen.
//!
//! Pure. The `id:` line comes first in an event, so that a connection with several channels can put its own in its place.
//! Ends of lines in a payload reach the client as `\n`: the format has no other.

use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_adapters::{Payload, Record};
use bytes::Bytes;
use serde_json::json;

use super::places::Places;
use super::{Body, Incoming, Input, Notice, Output, Protocol, Reply, Session, attendance};
use crate::close::CloseReason;

/// The first bytes of the line with an event's id.
pub(crate) const ID: &str = "id: ";

/// The most bytes that a client may send after its request.
const UNREAD: usize = 16 << 10;

/// The protocol.
pub(crate) struct Sse;

/// The session of a client that only listens, in any format.
#[derive(Default)]
pub(crate) struct Listener {
    /// The bytes that came after the request.
    heard: usize,
    places: Option<Box<Places>>,
}

impl Listener {
    /// A client with an id for all its channels.
    pub(crate) fn with(places: Places) -> Self {
        Self { heard: 0, places: Some(Box::new(places)) }
    }
}

impl Session for Listener {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Input<'a> {
        self.heard = self.heard.saturating_add(match message {
            Incoming::Text(text) => text.len(),
            Incoming::Binary(bytes) => bytes.len(),
        });
        if self.heard > UNREAD { Input::Close(CloseReason::Unsupported) } else { Input::Nothing }
    }

    fn places(&mut self) -> Option<&mut Places> {
        self.places.as_deref_mut()
    }
}

impl Protocol for Sse {
    fn open(&self) -> Box<dyn Session> {
        Box::new(Listener::default())
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        let payload = record.payload.bytes();
        let mut out = Vec::with_capacity(payload.len() + 72);
        out.extend_from_slice(format!("{ID}{}\n", record.position()).as_bytes());
        match &record.payload {
            Payload::Json(text) | Payload::Text(text) => write_data(&mut out, text),
            Payload::Binary(bytes) => {
                out.extend_from_slice(b"event: binary\n");
                write_data(&mut out, STANDARD.encode(bytes).as_bytes());
            }
        }
        out.push(b'\n');
        Body::stream(out)
    }

    fn reply(&self, _id: Option<u64>, reply: &Reply<'_>) -> Output {
        match reply {
            Reply::Subscribed { channel, at, recovered, presence, .. } => {
                let lost = json!({ "channel": channel, "reason": "not_held" });
                let lost = (*recovered == Some(false)).then(|| written("lost", &lost));
                let list = presence.map(|of| written("presence", &attendance::list_event(channel, of)));
                let events: String = lost.into_iter().chain(list).collect();
                text(format!("{ID}{at}\n{}", if events.is_empty() { "\n" } else { &events }))
            }
            // The client comes back by itself, and is then answered with a status.
            Reply::Failed(failure) if failure.code == "rate_limited" => Output::Close(CloseReason::RateLimited),
            Reply::Failed(_) => Output::Close(CloseReason::Overload),
            _ => Output::Nothing,
        }
    }

    fn notice(&self, notice: Notice<'_>) -> Output {
        match notice {
            Notice::Lost { channel, lost } => {
                let what =
                    json!({ "channel": channel, "after": lost.after.to_string(), "reason": lost.reason.to_string() });
                event(&format!("{ID}{}\n", lost.at), "lost", &what)
            }
            Notice::Skipped { channel, count } => event("", "skipped", &json!({ "channel": channel, "count": count })),
            Notice::Unsubscribed { channel, reason } => {
                event("", "unsubscribed", &json!({ "channel": channel, "reason": reason }))
            }
            Notice::Presence { change, at } => text(written("presence", &attendance::change_event(change, at))),
            Notice::Unseen { channel, reason } => {
                event("", "presence", &json!({ "channel": channel, "ended": reason }))
            }
            // A comment, which keeps proxies from ending the connection. The id lets the client resume a quiet channel.
            Notice::Ping([(_, at)]) => text(format!("{ID}{at}\n:\n\n")),
            Notice::Ping(_) => text(":\n\n".to_owned()),
            Notice::Degraded(degraded) => event("", "degraded", &json!({ "degraded": degraded })),
            Notice::Reconnect { after_ms } => {
                event(&format!("retry: {after_ms}\n"), "reconnect", &json!({ "after_ms": after_ms }))
            }
        }
    }

    fn ending(&self, reason: CloseReason) -> Option<Body<'static>> {
        let what = ending(reason)?;
        match event("", "close", &what) {
            Output::Message(body) => Some(body),
            Output::Nothing | Output::Close(_) => None,
        }
    }
}

/// What a client that listens is sent when the node ends its connection. After [`Notice::Reconnect`] it needs no more, and
/// a client that closed gets nothing.
pub(super) fn ending(reason: CloseReason) -> Option<serde_json::Value> {
    match reason {
        CloseReason::Drain | CloseReason::Moved | CloseReason::GoingAway | CloseReason::PeerClosed(_) => None,
        _ => Some(json!({ "code": reason.code()?, "reason": reason.text(), "reconnect": reason.reconnect() })),
    }
}

/// What moves the client, as an event that pages see. Without an event of its own it becomes `at`.
pub(crate) fn seen(event: Bytes) -> Bytes {
    let quiet = |line: &[u8]| line.is_empty() || line.starts_with(b":") || line.starts_with(ID.as_bytes());
    match event.strip_suffix(b"\n") {
        Some(lines) if event.starts_with(ID.as_bytes()) && lines.split(|byte| *byte == b'\n').all(quiet) => {
            [lines, b"event: at\ndata: \n\n"].concat().into()
        }
        _ => event,
    }
}

/// A notice as an event.
pub(crate) fn notice(notice: Notice<'_>) -> Output {
    Sse.notice(notice)
}

/// The event's data: a line for each line of the text, or one without content.
fn write_data(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        rest = match &rest[end..] {
            [] => return,
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

fn event(first: &str, name: &str, what: &serde_json::Value) -> Output {
    text(first.to_owned() + &written(name, what))
}

/// An event with JSON as its data. Ends of lines in JSON stand between its tokens only.
fn written(name: &str, what: &impl Display) -> String {
    let json = what.to_string().replace(['\n', '\r'], " ");
    format!("event: {name}\ndata: {json}\n\n")
}

fn text(text: String) -> Output {
    Output::Message(Body::stream(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use broker_adapters::{Check, MessageId, Offset, Partition, Position};

    use super::*;
    use crate::presence::{Audience, Change, Name, Snapshot};

    fn shown(output: Output) -> String {
        match output {
            Output::Message(body) => body.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_text_becomes_one_data_line_for_each_of_its_lines() {
        for (text, expected) in [
            ("hello", "data: hello\n"),
            ("", "data: \n"),
            ("a\nb", "data: a\ndata: b\n"),
            ("a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n"),
            (" indented\n\nid: 7", "data:  indented\ndata: \ndata: id: 7\n"),
        ] {
            let mut out = Vec::new();
            write_data(&mut out, text.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), expected, "{text:?}");
        }
    }

    #[test]
    fn a_message_is_its_payload_and_bytes_have_an_event_of_their_own() {
        let written = |payload| {
            let (partition, offset, id) = (Partition(2), Offset(9), MessageId(0xab));
            let (channel, extensions) = ("a".into(), Default::default());
            let record = Record { partition, offset, id, time: 0, channel, payload, extensions };
            Sse.message(&record).to_string()
        };
        assert_eq!(written(Payload::Json("[1]".into())), "id: 09.2.ab\ndata: [1]\n\n");
        assert_eq!(written(Payload::Text("a\nb".into())), "id: 09.2.ab\ndata: a\ndata: b\n\n");
        assert_eq!(written(Payload::Binary("hi".into())), "id: 09.2.ab\nevent: binary\ndata: aGk=\n\n");
    }

    #[test]
    fn an_event_that_moves_the_client_begins_with_its_id() {
        let at = Position { partition: Partition(1), offset: Offset(2), check: Check(3) };
        let subscribed = |recovered| Reply::Subscribed { channel: "a", at, recovered, last: None, presence: None };
        assert_eq!(shown(Sse.reply(None, &subscribed(None))), "id: 02.1.3\n\n");
        assert_eq!(
            shown(Sse.reply(None, &subscribed(Some(false)))),
            "id: 02.1.3\nevent: lost\ndata: {\"channel\":\"a\",\"reason\":\"not_held\"}\n\n"
        );
        let (joined, info) = (vec![(Name::user("ann"), Some("{\"a\":\r\n1}".into()))], "\"info\":{\"a\":  1}");
        let list = Snapshot { members: joined.clone(), count: 1, ..Snapshot::default() };
        let listed = Reply::Subscribed { channel: "a", at, recovered: Some(false), last: None, presence: Some(&list) };
        let list = format!(
            "event: presence\ndata: {{\"channel\":\"a\",\"members\":[{{\"user\":\"ann\",{info}}}],\"count\":1}}\n\n"
        );
        let lost = "event: lost\ndata: {\"channel\":\"a\",\"reason\":\"not_held\"}\n\n";
        assert_eq!(shown(Sse.reply(None, &listed)), format!("id: 02.1.3\n{lost}{list}"));
        let change = Change { channel: "a".into(), to: Audience::Everyone, joined, left: Vec::new(), count: 2 };
        let change = shown(Sse.notice(Notice::Presence { change: &change, at }));
        let members = format!("\"joined\":[{{\"user\":\"ann\",{info}}}],\"count\":2,\"at\":\"02.1.3\"");
        assert_eq!(change, format!("event: presence\ndata: {{\"channel\":\"a\",{members}}}\n\n"));
        assert_eq!(shown(Sse.notice(Notice::Ping(&[("a", at)]))), "id: 02.1.3\n:\n\n");
        assert_eq!(shown(Sse.notice(Notice::Ping(&[]))), ":\n\n");
    }

    #[test]
    fn a_position_without_an_event_becomes_one_that_pages_see() {
        for (event, expected) in [
            ("id: 02.1.3\n\n", "id: 02.1.3\nevent: at\ndata: \n\n"),
            ("id: 02.1.3\n:\n\n", "id: 02.1.3\n:\nevent: at\ndata: \n\n"),
            ("id: 02.1.3\ndata: 1\n\n", "id: 02.1.3\ndata: 1\n\n"),
            ("id: 02.1.3\nevent: lost\ndata: {}\n\n", "id: 02.1.3\nevent: lost\ndata: {}\n\n"),
            (":\n\n", ":\n\n"),
        ] {
            assert_eq!(seen(event.into()), expected, "{event}");
        }
    }

    #[test]
    fn an_end_names_its_code_unless_the_client_is_asked_to_reconnect_or_closed_itself() {
        let ending = |reason| Sse.ending(reason).map(|body| body.to_string());
        for silent in [
            CloseReason::Drain,
            CloseReason::Moved,
            CloseReason::GoingAway,
            CloseReason::PeerClosed(None),
            CloseReason::PingTimeout,
        ] {
            assert_eq!(ending(silent), None, "{silent:?}");
        }
        let expired = ending(CloseReason::Unauthorised).expect("an event");
        assert!(expired.starts_with("event: close\ndata: {\"code\":4401,") && expired.ends_with("}\n\n"), "{expired}");
    }
}
