//! The bytes of one record inside the broker, version 1. Numbers are big-endian.
//!
//! `'F' | version | kind | flags | id (16) | time in ms (8) | channel length (2) | payload length (4)`, then, if flagged,
//! `length (2) | extensions`, then `channel | payload`. The lengths must add up exactly. The broker's bytes are not
//! trusted: what does not read as this is reported as a gap and never passed on.
//!
//! The first 28 bytes, up to and with the time, mean the same in every version. Flag 0 says that a reader that does not
//! know the version, the kind or a flag may skip the record: nothing is lost to it. Without flag 0 such a record is a gap.
//! Data that every reader may ignore becomes an extension. Data that no reader may ignore needs a new kind, flag or version.

use bytes::{BufMut, Bytes, BytesMut};

use super::extensions::Extensions;
use super::position::{Check, Offset, Partition, Position};
use super::record::{MessageId, NewRecord, Payload, Record};
use crate::log::event::Seen;

/// Bytes that the envelope adds to a record's channel and payload. Extensions take two more and their own size.
pub const ENVELOPE_OVERHEAD: usize = 34;

/// Bytes that mean the same in every version.
const HEAD: usize = 28;

/// Where the id stands.
const ID: std::ops::Range<usize> = 4..20;
/// Where the time stands.
const TIME: std::ops::Range<usize> = 20..HEAD;

const MAGIC: u8 = b'F';
const VERSION: u8 = 1;
/// Versions are small, so that a text that begins with an F is not taken for a record.
const VERSIONS: std::ops::Range<u8> = VERSION..b' ';

/// A reader that does not know this record may skip it.
const SKIPPABLE: u8 = 1 << 0;
/// Extensions stand before the channel.
const EXTENDED: u8 = 1 << 1;

const HEARTBEAT: u8 = 0;
const JSON: u8 = 1;
const TEXT: u8 = 2;
const BINARY: u8 = 3;
/// JSON from node to node, always written as skippable. Kind 4 stays unknown: the golden file has it as such.
const CONTROL: u8 = 5;

/// Bytes in the log that are no record of a version this program can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not written by this program.
    #[error("not a record: the first byte or the lengths are wrong")]
    Malformed,
    /// Written by a newer release, and not to be skipped.
    #[error("a record of format {version}, kind {kind}, which only newer releases can read: upgrade this node")]
    Newer {
        /// The version of its format.
        version: u8,
        /// Its kind.
        kind: u8,
    },
    /// The channel, a text or an extension is not UTF-8.
    #[error("a record whose text is not UTF-8")]
    Encoding,
}

/// What an envelope holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Shows that the log is alive, and which record its node has read last.
    Heartbeat {
        /// That record's position; its stored text is the payload.
        seen: Option<Position>,
    },
    /// A message on a channel.
    Message { channel: Bytes, payload: Payload, extensions: Extensions },
    /// A record for the nodes themselves, which no client receives.
    Control { channel: Bytes, payload: Payload },
    /// A record that only newer releases know, and that others may skip.
    Skipped,
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

    /// The record at a place, as a tail gives it.
    pub(crate) fn seen(self, partition: Partition, offset: Offset) -> Seen {
        let Self { id, time, content } = self;
        let (mut message, mut control) = (None, None);
        match content {
            Content::Heartbeat { .. } | Content::Skipped => {}
            Content::Message { channel, payload, extensions } => {
                message = Some(Record { partition, offset, id, time, channel, payload, extensions });
            }
            Content::Control { channel, payload } => {
                let extensions = Extensions::default();
                control = Some(Box::new(Record { partition, offset, id, time, channel, payload, extensions }));
            }
        }
        Seen { offset, check: id.check(time), time, message, control, repeated: false }
    }
}

pub(crate) fn message(record: &NewRecord, time: u64) -> Bytes {
    let kind = match record.payload {
        _ if record.control => CONTROL,
        Payload::Json(_) => JSON,
        Payload::Text(_) => TEXT,
        Payload::Binary(_) => BINARY,
    };
    write(kind, (record.id, time), record.extensions.bytes(), record.channel.as_bytes(), record.payload.bytes())
}

/// The fingerprint of the record that an envelope of our own makes.
pub(crate) fn check(bytes: &[u8]) -> Check {
    MessageId(number(&bytes[ID])).check(u64::try_from(number(&bytes[TIME])).unwrap_or(0))
}

/// The same message, sent at another time.
pub(crate) fn sent_again(bytes: &[u8], time: u64) -> Bytes {
    let mut out = BytesMut::from(bytes);
    out[TIME].copy_from_slice(&time.to_be_bytes());
    out.freeze()
}

pub(crate) fn heartbeat(id: MessageId, time: u64, seen: Option<Position>) -> Bytes {
    let seen = seen.map_or_else(String::new, |seen| seen.stored_text());
    write(HEARTBEAT, (id, time), &[], &[], seen.as_bytes())
}

fn write(kind: u8, (id, time): (MessageId, u64), extensions: &[u8], channel: &[u8], payload: &[u8]) -> Bytes {
    let extended = !extensions.is_empty();
    let more = if extended { 2 + extensions.len() } else { 0 };
    let mut out = BytesMut::with_capacity(ENVELOPE_OVERHEAD + more + channel.len() + payload.len());
    let flags = if extended { EXTENDED } else { 0 } | if kind == CONTROL { SKIPPABLE } else { 0 };
    out.put_slice(&[MAGIC, VERSION, kind, flags]);
    out.put_u128(id.0);
    out.put_u64(time);
    out.put_u16(u16::try_from(channel.len()).unwrap_or(u16::MAX));
    out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    if extended {
        out.put_u16(u16::try_from(extensions.len()).unwrap_or(u16::MAX));
        out.put_slice(extensions);
    }
    out.put_slice(channel);
    out.put_slice(payload);
    out.freeze()
}

/// Reads one envelope; its parts share the memory of `bytes`. Of one that may be skipped, only the head is looked at.
pub(crate) fn read(bytes: &Bytes) -> Result<Envelope, Unreadable> {
    let head = bytes.first_chunk::<HEAD>().ok_or(Unreadable::Malformed)?;
    let [MAGIC, version, kind, flags, ..] = *head else {
        return Err(Unreadable::Malformed);
    };
    if !VERSIONS.contains(&version) {
        return Err(Unreadable::Malformed);
    }
    let known = version == VERSION && (kind <= BINARY || kind == CONTROL) && flags & !(SKIPPABLE | EXTENDED) == 0;
    let content = match known {
        true => content(bytes, kind, flags & EXTENDED != 0)?,
        false if flags & SKIPPABLE != 0 => Content::Skipped,
        false => return Err(Unreadable::Newer { version, kind }),
    };
    let id = MessageId(number(&head[ID]));
    Ok(Envelope { id, time: u64::try_from(number(&head[TIME])).unwrap_or(0), content })
}

/// Reads what follows the head.
fn content(bytes: &Bytes, kind: u8, extended: bool) -> Result<Content, Unreadable> {
    let (head, rest) = bytes.split_first_chunk::<ENVELOPE_OVERHEAD>().ok_or(Unreadable::Malformed)?;
    let length = |bytes: &[u8]| usize::try_from(number(bytes)).unwrap_or(usize::MAX);
    let (channel_len, payload_len) = (length(&head[HEAD..HEAD + 2]), length(&head[HEAD + 2..]));
    let mut begin = ENVELOPE_OVERHEAD;
    let mut extensions = Extensions::default();
    if extended {
        let size = length(rest.get(..2).ok_or(Unreadable::Malformed)?);
        begin += 2 + size;
        if begin > bytes.len() {
            return Err(Unreadable::Malformed);
        }
        extensions = Extensions::read(bytes.slice(begin - size..begin))?;
    }
    if channel_len.checked_add(payload_len) != Some(bytes.len() - begin) {
        return Err(Unreadable::Malformed);
    }
    let channel = bytes.slice(begin..begin + channel_len);
    let payload = bytes.slice(begin + channel_len..);
    let utf8 = |bytes: &Bytes| std::str::from_utf8(bytes).is_ok();
    if !utf8(&channel) || (kind != BINARY && !utf8(&payload)) {
        return Err(Unreadable::Encoding);
    }
    let payload = match kind {
        CONTROL => return Ok(Content::Control { channel, payload: Payload::Json(payload) }),
        JSON => Payload::Json(payload),
        TEXT => Payload::Text(payload),
        BINARY => Payload::Binary(payload),
        _ => {
            let seen = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
            return Ok(Content::Heartbeat { seen });
        }
    };
    Ok(Content::Message { channel, payload, extensions })
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
}

/// Whether this was written by Fanfare, of this release or of another one.
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
pub(crate) fn is_ours(bytes: &[u8]) -> bool {
    matches!(bytes, [MAGIC, version, ..] if VERSIONS.contains(version)) && bytes.len() >= HEAD
}

#[cfg(test)]
mod tests {
    use super::super::extensions::Extension;
    use super::*;

    fn sample() -> NewRecord {
        let id = MessageId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        NewRecord::new(id, "room:ü".into(), Payload::Json(Bytes::from_static(b"{\"a\":1}")))
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for payload in
            [Payload::Json(Bytes::new()), Payload::Text("ü".into()), Payload::Binary(Bytes::from_static(&[0xff]))]
        {
            let extended = Extensions::default().with(Extension::User, "ü").expect("short enough");
            for extensions in [Extensions::default(), extended] {
                let record = NewRecord { payload: payload.clone(), extensions: extensions.clone(), ..sample() };
                let read = read(&message(&record, 77)).expect("written by this program");
                let content =
                    Content::Message { channel: Bytes::from("room:ü"), payload: payload.clone(), extensions };
                assert_eq!(read, Envelope { id: record.id, time: 77, content });
            }
        }
        let control = NewRecord::control(MessageId(5), "{cluster}", Bytes::from_static(b"{}"));
        let (channel, payload) = (Bytes::from("{cluster}"), control.payload.clone());
        let read_back = read(&message(&control, 9)).expect("written by this program");
        assert_eq!(read_back, Envelope { id: MessageId(5), time: 9, content: Content::Control { channel, payload } });
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
    #[cfg(any(feature = "kafka", feature = "rabbitmq"))]
    fn a_record_of_any_release_is_known_as_ours() {
        let mut newer = message(&sample(), 1).to_vec();
        newer[1] = 2;
        assert!(is_ours(&message(&sample(), 1)) && is_ours(&heartbeat(MessageId(5), 9, None)));
        assert!(is_ours(&newer) && is_ours(&newer[..HEAD]) && !is_ours(&newer[..HEAD - 1]));
        let text = b"Frames, 40 bytes of a text in plain ASCII".as_slice();
        for other in
            [b"".as_slice(), b"F", b"F\x01\0\0", text, b"{\"order\":1,\"what\":\"a record of another program\"}"]
        {
            assert!(!is_ours(other), "{other:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        let extensions = Extensions::default().with(Extension::Client, "c7").expect("short enough");
        for good in [message(&sample(), 1), message(&NewRecord { extensions, ..sample() }, 1)] {
            for cut in 0..good.len() {
                assert_eq!(read(&good.slice(..cut)), Err(Unreadable::Malformed), "cut at {cut}");
            }
            let longer = [&good[..], b"x"].concat();
            assert_eq!(read(&longer.into()), Err(Unreadable::Malformed));
        }
        let good = message(&sample(), 1);
        for (at, to, why) in [
            (0, b'G', Unreadable::Malformed),
            (1, 0, Unreadable::Malformed),
            (1, b' ', Unreadable::Malformed),
            (1, 2, Unreadable::Newer { version: 2, kind: JSON }),
            (2, 99, Unreadable::Newer { version: 1, kind: 99 }),
            (3, 1 << 2, Unreadable::Newer { version: 1, kind: JSON }),
            (3, EXTENDED, Unreadable::Malformed),
            (29, 200, Unreadable::Malformed),
            (30, 255, Unreadable::Malformed),
            (ENVELOPE_OVERHEAD, 0xff, Unreadable::Encoding),
        ] {
            let mut bytes = good.to_vec();
            bytes[at] = to;
            assert_eq!(read(&bytes.into()), Err(why), "byte {at} is {to}");
        }
    }

    #[test]
    fn what_only_newer_releases_know_is_skipped_if_it_is_flagged_so() {
        let good = message(&sample(), 77);
        let skipped = Envelope { id: sample().id, time: 77, content: Content::Skipped };
        for (version, kind, flags) in [(2, JSON, 0), (31, 0, 0xfe), (1, 4, 0), (1, 255, 0xfe), (1, JSON, 1 << 7)] {
            for length in [HEAD, HEAD + 1, good.len()] {
                let mut bytes = good[..length].to_vec();
                bytes[1..4].copy_from_slice(&[version, kind, flags | SKIPPABLE]);
                assert_eq!(read(&bytes.clone().into()).as_ref(), Ok(&skipped), "{version} {kind} {flags}");
                bytes[3] = flags & !SKIPPABLE;
                assert_eq!(read(&bytes.into()), Err(Unreadable::Newer { version, kind }), "{version} {kind} {flags}");
            }
        }
        let mut known = good.to_vec();
        known[3] |= SKIPPABLE;
        assert_eq!(read(&known.into()), read(&good), "what is known is not skipped");
    }
}
