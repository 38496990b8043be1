//! A record on its way to sockets. It is encoded once per format, however many clients receive it.

use std::sync::OnceLock;

use broker_adapters::Record;
use bytes::Bytes;

use crate::protocol::Format;

/// A record and its encoded frames, shared by all workers.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) record: Record,
    frames: [OnceLock<Bytes>; Format::COUNT],
}

impl Message {
    pub(crate) fn new(record: Record) -> Self {
        Self { record, frames: Default::default() }
    }

    /// The WebSocket frame in this format. It is made when the first subscriber needs it.
    pub(crate) fn frame(&self, format: Format) -> &Bytes {
        self.frames[format.index()].get_or_init(|| format.protocol().message(&self.record).frame())
    }
}
