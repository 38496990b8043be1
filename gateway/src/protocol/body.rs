//! A message to a client, before it is framed for its transport.

use std::borrow::Cow;

use bytes::Bytes;

use crate::codec::{self, Opcode};

/// The content of one message. Kept apart from its frame, so that each transport can frame it in its own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body<'a> {
    opcode: Opcode,
    content: Cow<'a, [u8]>,
}

impl<'a> Body<'a> {
    /// A text message; `content` must be UTF-8.
    pub(crate) fn text(content: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { opcode: Opcode::Text, content: content.into() }
    }

    /// A binary message.
    pub(crate) fn binary(content: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { opcode: Opcode::Binary, content: content.into() }
    }

    /// The message as a WebSocket frame.
    pub(crate) fn frame(&self) -> Bytes {
        codec::frame(self.opcode, &self.content)
    }
}

#[cfg(test)]
impl std::fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.content))
    }
}
