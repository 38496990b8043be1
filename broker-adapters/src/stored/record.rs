//! One message on its way through the log: before it is stored, and after.

use bytes::Bytes;

use super::extensions::Extensions;
use super::position::{Check, Offset, Partition, Position};

/// The identity of a message, by which a retry is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    /// A new id, unlike any other.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u128(..))
    }

    /// The fingerprint of a record with this id, sent at this time; never [`Check::UNKNOWN`].
    ///
    /// With the time in it, a retry of the same message has another fingerprint, even at the same offset of another log.
    #[must_use]
    pub fn check(self, time: u64) -> Check {
        let folded = (self.0 >> 64) as u64 ^ self.0 as u64 ^ time.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Check(folded.max(1))
    }
}

/// What a message holds. A text equals the JSON string of the same characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// One JSON value, as it was written by its publisher.
    Json(Bytes),
    /// Characters in UTF-8.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Payload {
    /// The bytes, whatever they stand for.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }
}

/// A message to be published.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Its identity. Publishing the same id again within the dedup window delivers nothing.
    pub id: MessageId,
    /// The channel, at most 65,535 bytes.
    pub channel: String,
    /// The content.
    pub payload: Payload,
    /// More that it carries, such as its user; mostly nothing.
    pub extensions: Extensions,
    /// Whether it is for the nodes themselves. Its payload is then JSON, and no client receives it.
    pub control: bool,
}

impl NewRecord {
    /// A message without extensions.
    #[must_use]
    pub fn new(id: MessageId, channel: String, payload: Payload) -> Self {
        Self { id, channel, payload, extensions: Extensions::default(), control: false }
    }

    /// A record for the nodes themselves, in the partition of `channel`.
    #[must_use]
    pub fn control(id: MessageId, channel: &str, json: Bytes) -> Self {
        Self { control: true, ..Self::new(id, channel.to_owned(), Payload::Json(json)) }
    }
}

/// A message as it stands in the log.
#[derive(Debug, Clone)]
pub struct Record {
    /// The partition it stands in.
    pub partition: Partition,
    /// Its place there.
    pub offset: Offset,
    /// Its identity.
    pub id: MessageId,
    /// When its publisher sent it, in milliseconds since 1970 by the publisher's clock.
    pub time: u64,
    /// The channel: UTF-8, checked when the record was read.
    pub channel: Bytes,
    /// The content.
    pub payload: Payload,
    /// More that it carries, such as its user; mostly nothing.
    pub extensions: Extensions,
}

impl Record {
    /// Where the record stands.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { partition: self.partition, offset: self.offset, check: self.id.check(self.time) }
    }

    /// Bytes of its content and its extensions.
    #[must_use]
    pub fn size(&self) -> usize {
        self.channel.len() + self.payload.bytes().len() + self.extensions.size()
    }

    /// The channel's name.
    #[must_use]
    pub fn channel(&self) -> &str {
        std::str::from_utf8(&self.channel).unwrap_or_default()
    }
}
