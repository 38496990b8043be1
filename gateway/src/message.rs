//! A record on its way to sockets: turned into a finished frame once per format, however many receive it.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_adapters::{Payload, Record};
use bytes::Bytes;

use crate::codec::{self, Opcode};
use crate::protocol::native;

/// How a protocol writes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A JSON object with the channel, the data and the position.
    Native,
    /// The payload and nothing else.
    Raw,
}

impl Format {
    /// All formats, each at the index that it has as a number.
    pub(crate) const ALL: [Self; 2] = [Self::Native, Self::Raw];
}

/// A record and its frames, shared by all workers.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) record: Record,
    frames: [OnceLock<Bytes>; Format::ALL.len()],
}

impl Message {
    pub(crate) fn new(record: Record) -> Self {
        Self { record, frames: Default::default() }
    }

    /// The frame in this format, made by whoever asks first.
    pub(crate) fn frame(&self, format: Format) -> &Bytes {
        self.frames[format as usize].get_or_init(|| match format {
            Format::Native => codec::frame(Opcode::Text, &native::message(&self.record)),
            Format::Raw => match &self.record.payload {
                Payload::Json(text) | Payload::Text(text) => codec::frame(Opcode::Text, text),
                Payload::Binary(bytes) => codec::frame(Opcode::Binary, bytes),
            },
        })
    }
}

/// Bytes as JSON can carry them.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
