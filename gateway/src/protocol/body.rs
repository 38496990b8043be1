//! A message to a client, before it is framed for its transport.

use std::borrow::Cow;

use bytes::Bytes;

use crate::codec::{self, Opcode};

/// The content of one message. Kept apart from its frame, so that each transport can frame it in its own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body<'a> {
    /// `None` on a transport without frames.
    opcode: Option<Opcode>,
    content: Cow<'a, [u8]>,
}

impl<'a> Body<'a> {
    /// A text message; `content` must be UTF-8.
    pub(crate) fn text(content: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { opcode: Some(Opcode::Text), content: content.into() }
    }

    /// A binary message.
    pub(crate) fn binary(content: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { opcode: Some(Opcode::Binary), content: content.into() }
    }

    /// Bytes of a stream that has no frames.
    pub(crate) fn stream(content: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { opcode: None, content: content.into() }
    }

    /// The same content, which is JSON, as one line of a stream. Ends of lines in JSON stand between its tokens only.
    pub(crate) fn into_line(self) -> Body<'static> {
        let mut content = self.content.into_owned();
        content.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        content.push(b'\n');
        Body::stream(content)
    }

    /// The message as its transport carries it.
    pub(crate) fn frame(&self) -> Bytes {
        match self.opcode {
            Some(opcode) => codec::frame(opcode, &self.content),
            None => Bytes::copy_from_slice(&self.content),
        }
    }
}

#[cfg(test)]
impl std::fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.content))
    }
}
