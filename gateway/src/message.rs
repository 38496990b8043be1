//! A record, or a change of who is in a channel, on its way to sockets. It is encoded once per format, however many clients receive
//! it.

use std::sync::OnceLock;

use broker_adapters::{Position, Record};
use bytes::Bytes;

use crate::presence::Change;
use crate::protocol::{Format, Notice, Output};

/// A record and its encoded frames, shared by all workers.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) record: Record,
    /// Nothing until the first is made: most messages of a cluster have no subscriber on this node.
    frames: OnceLock<Box<[OnceLock<Bytes>; Format::COUNT]>>,
}

impl Message {
    pub(crate) fn new(record: Record) -> Self {
        Self { record, frames: OnceLock::new() }
    }

    /// The WebSocket frame in this format. It is made when the first subscriber needs it.
    pub(crate) fn frame(&self, format: Format) -> &Bytes {
        let frames = self.frames.get_or_init(Box::default);
        frames[format.index()].get_or_init(|| format.protocol().message(&self.record).frame())
    }
}

/// A change and its encoded frames, shared by all workers.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) change: Change,
    /// The position up to which it is true.
    pub(crate) at: Position,
    frames: [OnceLock<Option<Bytes>>; Format::COUNT],
}

impl Event {
    pub(crate) fn new(change: Change, at: Position) -> Self {
        Self { change, at, frames: Default::default() }
    }

    /// The frame in this format; `None` if its protocol has no word for it.
    pub(crate) fn frame(&self, format: Format) -> Option<&Bytes> {
        let make = || match format.protocol().notice(Notice::Presence { change: &self.change, at: self.at }) {
            Output::Message(body) => Some(body.frame()),
            Output::Nothing | Output::Close(_) => None,
        };
        self.frames[format.index()].get_or_init(make).as_ref()
    }
}
