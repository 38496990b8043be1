//! The bytes of one record inside the broker, version 1.
//!
//! `'F' 1 kind 0 | id (16) | time ms (8) | channel length (2) | payload length (4) | channel | payload`,
//! numbers big-endian. The lengths must add up exactly. The broker's bytes are not trusted: whatever does
//! not read as this is reported as a gap, never passed on.

use bytes::{BufMut, Bytes, BytesMut};

use crate::log::tail::Seen;
use crate::stored::position::{Check, Offset, Partition, Position};
use crate::stored::record::{MessageId, NewRecord, Payload, Record};

/// Bytes that the envelope adds to a record's channel and payload.
pub const ENVELOPE_OVERHEAD: usize = 34;

/// Where the time stands.
const TIME: std::ops::Range<usize> = 20..28;

const MAGIC: u8 = b'F';
const VERSION: u8 = 1;
const HEARTBEAT: u8 = 0;
const JSON: u8 = 1;
const TEXT: u8 = 2;
const BINARY: u8 = 3;

/// Bytes in the log that are no record of a version this program can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not written by this program.
    #[error("not a record: the first byte or the lengths are wrong")]
    Malformed,
    /// Written by a newer release.
    #[error("a record of format {0}, newer than this program: upgrade this node")]
    Newer(u8),
    /// The channel or a text is not UTF-8.
    #[error("a record whose text is not UTF-8")]
    Encoding,
}

/// What an envelope holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// It shows that the log is alive, and which record its node has read last.
    Heartbeat {
        /// That record's position; its text is the payload.
        seen: Option<Position>,
    },
    /// A message on a channel.
    Message { channel: Bytes, payload: Payload },
}

/// An envelope that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) id: MessageId,
    pub(crate) time: u64,
    pub(crate) content: Content,
}

impl Envelope {
    /// The fingerprint of the record.
    pub(crate) fn check(&self) -> Check {
        self.id.check(self.time)
    }

    /// What it says of the record at a place.
    pub(crate) fn seen(self, partition: Partition, offset: Offset) -> Seen {
        let Self { id, time, content } = self;
        let message = match content {
            Content::Heartbeat { .. } => None,
            Content::Message { channel, payload } => Some(Record { partition, offset, id, time, channel, payload }),
        };
        Seen { offset, check: id.check(time), time, message, repeated: false }
    }
}

pub(crate) fn message(record: &NewRecord, time: u64) -> Bytes {
    let kind = match record.payload {
        Payload::Json(_) => JSON,
        Payload::Text(_) => TEXT,
        Payload::Binary(_) => BINARY,
    };
    write(kind, record.id, time, record.channel.as_bytes(), record.payload.bytes())
}

/// The fingerprint of the record that an envelope of our own makes.
pub(crate) fn check(bytes: &[u8]) -> Check {
    let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0u128, |n, &byte| n << 8 | u128::from(byte));
    MessageId(number(4..20)).check(u64::try_from(number(TIME)).unwrap_or(0))
}

/// The same message, sent at another time.
pub(crate) fn sent_again(bytes: &[u8], time: u64) -> Bytes {
    let mut out = BytesMut::from(bytes);
    out[TIME].copy_from_slice(&time.to_be_bytes());
    out.freeze()
}

pub(crate) fn heartbeat(id: MessageId, time: u64, seen: Option<Position>) -> Bytes {
    let seen = seen.map_or_else(String::new, |seen| seen.to_string());
    write(HEARTBEAT, id, time, &[], seen.as_bytes())
}

fn write(kind: u8, id: MessageId, time: u64, channel: &[u8], payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(ENVELOPE_OVERHEAD + channel.len() + payload.len());
    out.put_slice(&[MAGIC, VERSION, kind, 0]);
    out.put_u128(id.0);
    out.put_u64(time);
    out.put_u16(u16::try_from(channel.len()).unwrap_or(u16::MAX));
    out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(channel);
    out.put_slice(payload);
    out.freeze()
}

/// Reads one envelope; its parts share the memory of `bytes`.
pub(crate) fn read(bytes: &Bytes) -> Result<Envelope, Unreadable> {
    let (head, rest) = bytes.split_first_chunk::<ENVELOPE_OVERHEAD>().ok_or(Unreadable::Malformed)?;
    let [MAGIC, version, kind, ..] = *head else {
        return Err(Unreadable::Malformed);
    };
    if version != VERSION {
        return Err(Unreadable::Newer(version));
    }
    let number = |at: usize, len: usize| head[at..at + len].iter().fold(0u128, |n, &byte| n << 8 | u128::from(byte));
    let channel_len = usize::try_from(number(28, 2)).unwrap_or(usize::MAX);
    let payload_len = usize::try_from(number(30, 4)).unwrap_or(usize::MAX);
    if channel_len.checked_add(payload_len) != Some(rest.len()) {
        return Err(Unreadable::Malformed);
    }
    let channel = bytes.slice(ENVELOPE_OVERHEAD..ENVELOPE_OVERHEAD + channel_len);
    let payload = bytes.slice(ENVELOPE_OVERHEAD + channel_len..);
    let utf8 = |bytes: &Bytes| std::str::from_utf8(bytes).is_ok();
    if !utf8(&channel) || (kind != BINARY && !utf8(&payload)) {
        return Err(Unreadable::Encoding);
    }
    let content = match kind {
        HEARTBEAT => Content::Heartbeat { seen: std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok()) },
        JSON => Content::Message { channel, payload: Payload::Json(payload) },
        TEXT => Content::Message { channel, payload: Payload::Text(payload) },
        BINARY => Content::Message { channel, payload: Payload::Binary(payload) },
        _ => return Err(Unreadable::Newer(version)),
    };
    Ok(Envelope { id: MessageId(number(4, 16)), time: u64::try_from(number(20, 8)).unwrap_or(0), content })
}

/// Whether this was written by Fanfare, of this release or of another one.
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
pub(crate) fn is_ours(bytes: &[u8]) -> bool {
    // Versions are small: a text that begins with an F is none.
    matches!(bytes, [MAGIC, VERSION..b' ', ..]) && bytes.len() >= ENVELOPE_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NewRecord {
        NewRecord {
            id: MessageId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            channel: "room:ü".into(),
            payload: Payload::Json(Bytes::from_static(b"{\"a\":1}")),
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for payload in
            [Payload::Json(Bytes::new()), Payload::Text("ü".into()), Payload::Binary(Bytes::from_static(&[0xff]))]
        {
            let record = NewRecord { payload: payload.clone(), ..sample() };
            let read = read(&message(&record, 77)).expect("written by this program");
            let content = Content::Message { channel: Bytes::from("room:ü"), payload };
            assert_eq!(read, Envelope { id: record.id, time: 77, content });
        }
        let again = read(&sent_again(&message(&sample(), 77), 1 << 40)).expect("written by this program");
        assert_eq!((again.id, again.time), (sample().id, 1 << 40));
        assert_eq!(again.check(), check(&sent_again(&message(&sample(), 77), 1 << 40)));
        assert_ne!(again.check(), read(&message(&sample(), 77)).expect("written by this program").check());
        let seen = Position { partition: Partition(3), offset: Offset(258), check: Check(77) };
        for seen in [None, Some(seen)] {
            let beat = read(&heartbeat(MessageId(5), 9, seen)).expect("written by this program");
            assert_eq!(beat, Envelope { id: MessageId(5), time: 9, content: Content::Heartbeat { seen } });
        }
    }

    #[test]
    fn the_stored_format_is_fixed() {
        let bytes = message(&NewRecord { channel: "c".into(), payload: Payload::Text("t".into()), ..sample() }, 258);
        let mut expected = vec![b'F', 1, 2, 0];
        expected.extend(1..=16);
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2, 0, 1, 0, 0, 0, 1, b'c', b't']);
        assert_eq!(&bytes[..], &expected[..]);
    }

    #[test]
    #[cfg(any(feature = "kafka", feature = "rabbitmq"))]
    fn a_record_of_any_release_is_known_as_ours() {
        let mut newer = message(&sample(), 1).to_vec();
        newer[1] = 2;
        assert!(is_ours(&message(&sample(), 1)) && is_ours(&heartbeat(MessageId(5), 9, None)) && is_ours(&newer));
        let text = b"Frames, 40 bytes of a text in plain ASCII".as_slice();
        for other in
            [b"".as_slice(), b"F", b"F\x01\0\0", text, b"{\"order\":1,\"what\":\"a record of another program\"}"]
        {
            assert!(!is_ours(other), "{other:?}");
        }
    }

    #[test]
    fn whatever_is_no_record_is_told_apart() {
        let good = message(&sample(), 1);
        for cut in 0..good.len() {
            assert_eq!(read(&good.slice(..cut)), Err(Unreadable::Malformed), "cut at {cut}");
        }
        let changed = |at: usize, to: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = to;
            read(&bytes.into())
        };
        assert_eq!(changed(0, b'G'), Err(Unreadable::Malformed));
        assert_eq!(changed(1, 2), Err(Unreadable::Newer(2)));
        assert_eq!(changed(2, 99), Err(Unreadable::Newer(1)));
        assert_eq!(changed(29, 200), Err(Unreadable::Malformed));
        assert_eq!(changed(30, 255), Err(Unreadable::Malformed));
        assert_eq!(changed(ENVELOPE_OVERHEAD, 0xff), Err(Unreadable::Encoding));
    }
}
