//! An event, as your backend gets it, and its place among all.

use std::fmt;

use broker_adapters::{Position, Record};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::WebhookEvent;
use crate::presence::{Step, What};

/// The place of an event: the record that it comes from, and its number among the steps of that record. All nodes give it the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: Position,
    pub(super) index: u32,
}

/// As an event's `id` has it.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.to_string().replace('.', "-"), self.index)
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) mark: Mark,
    /// When it happened, in milliseconds since 1970.
    pub(super) time: u64,
    pub(super) json: Bytes,
}

/// Its JSON.
#[derive(Debug, Serialize)]
struct Shape<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Box<RawValue>>,
    time: u64,
}

/// What kind of event a step is.
pub(super) fn kind(what: &What) -> WebhookEvent {
    match what {
        What::Occupied => WebhookEvent::Occupied,
        What::Joined(..) => WebhookEvent::Joined,
        What::Left(_) => WebhookEvent::Left,
        What::Vacated => WebhookEvent::Vacated,
    }
}

impl Event {
    /// The event of a record's step with this number. `now` is in milliseconds since 1970.
    pub(super) fn of(record: &Record, index: u32, step: &Step, now: u64) -> Self {
        let mark = Mark { at: record.position(), index };
        // A clock that is ahead must not make the event young.
        let time = record.time.min(now);
        let (name, info) = match &step.what {
            What::Joined(name, info) => (Some(name), info.as_ref()),
            What::Left(name) => (Some(name), None),
            What::Occupied | What::Vacated => (None, None),
        };
        let of_kind = |kind: &str| name.filter(|name| name.kind() == kind).map(|name| name.text());
        let shape = Shape {
            id: mark.to_string(),
            kind: kind(&step.what).name(),
            channel: &step.channel,
            user: of_kind("user"),
            client: of_kind("client"),
            // What tokens say was parsed as JSON before.
            info: info.and_then(|info| RawValue::from_string(info.to_string()).ok()),
            time,
        };
        Self { mark, time, json: serde_json::to_vec(&shape).unwrap_or_default().into() }
    }

    /// The bytes that it holds, about.
    pub(super) fn weight(&self) -> usize {
        self.json.len() + size_of::<Self>()
    }
}
