//! Reads Redis's answers. They are not trusted: an answer of a wrong shape is an error and never ignored.

use bytes::Bytes;
use redis::Value;

use crate::broker::Entry;
use crate::stored::position::{Check, Epoch, Offset, Partition};
use crate::stored::record::MessageId;

/// From here on an id is no offset, as in the scripts.
pub(super) const LIMIT: u64 = 1_000_000_000_000_000;

/// A new epoch, in the form in which Redis keeps it.
pub(super) fn new_epoch() -> String {
    format!("{:016x}", fastrand::u64(1..))
}

fn epoch(text: &[u8]) -> Option<Epoch> {
    let plain = text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit);
    let number = u64::from_str_radix(std::str::from_utf8(text).ok().filter(|_| plain)?, 16).ok()?;
    Some(Epoch(number))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Epoch and last offset, as the scripts return them.
pub(super) fn standing(answer: &Value) -> Option<(Epoch, u64)> {
    let Value::Array(parts) = answer else { return None };
    match &parts[..] {
        [Value::BulkString(text), Value::BulkString(last), ..] => Some((epoch(text)?, number(last)?)),
        [Value::BulkString(text), Value::Int(last), ..] => Some((epoch(text)?, u64::try_from(*last).ok()?)),
        _ => None,
    }
}

/// Logs the reason why the scripts began a damaged log anew.
pub(super) fn report_damage(partition: Partition, answer: &Value) {
    let Value::Array(parts) = answer else { return };
    if let [_, _, Value::BulkString(why)] = &parts[..] {
        let why = String::from_utf8_lossy(why);
        tracing::warn!(partition = partition.0, %why, "a partition of the log in Redis was damaged; it begins anew");
    }
}

/// The answer of `XREAD`: for each stream that has something, its key and its entries.
pub(super) fn streams(answer: Value) -> Option<Vec<(Vec<u8>, Vec<Value>)>> {
    let streams = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    streams
        .into_iter()
        .map(|stream| pair(stream).and_then(|(key, entries)| Some((bulk(key)?, array(entries)?))))
        .collect()
}

/// One entry of a stream. An entry of another shape than ours keeps its place and is unreadable.
pub(super) fn entry(partition: Partition, value: Value) -> Option<Entry> {
    let (id, fields) = pair(value)?;
    let id = bulk(id)?;
    let dash = id.iter().position(|&byte| byte == b'-')?;
    let offset = Offset(number(&id[..dash])?);
    let ours = array(fields).filter(|_| &id[dash..] == b"-0");
    let (epoch, bytes, previous) = ours.and_then(record).unwrap_or_default();
    Some(Entry { partition, epoch, offset, previous, bytes })
}

/// The fields of an entry: its log's epoch with the envelope, then `before` with id and time of the record before it, where
/// that is known.
fn record(fields: Vec<Value>) -> Option<(Option<Epoch>, Bytes, Option<Check>)> {
    let mut fields = fields.into_iter().map(bulk);
    let (field, bytes) = (fields.next()??, fields.next()??);
    let previous = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(name), Some(tail)) if name.as_deref() == Some(b"before") => {
            let (id, time) = tail.as_deref()?.split_first_chunk()?;
            Some(MessageId(u128::from_be_bytes(*id)).check(u64::from_be_bytes(time.try_into().ok()?)))
        }
        _ => return None,
    };
    Some((Some(epoch(&field)?), Bytes::from(bytes), previous))
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn bulk(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn pair(value: Value) -> Option<(Value, Value)> {
    let pair: [Value; 2] = array(value)?.try_into().ok()?;
    Some(pair.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(values: impl Into<Vec<Value>>) -> Value {
        Value::Array(values.into())
    }

    #[test]
    fn an_epoch_reads_back_as_it_was_written() {
        let written = new_epoch();
        assert_eq!(epoch(written.as_bytes()).map(|epoch| format!("{:016x}", epoch.0)), Some(written));
        for wrong in ["", "ff", "+00000000000000f", "00000000000000fg", "00000000000000ff0"] {
            assert_eq!(epoch(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn an_entry_proves_its_epoch_by_its_field() {
        let value = list([text("12-0"), list([text("00000000000000ff"), text("bytes")])]);
        let bytes = Bytes::from_static(b"bytes");
        let read =
            Entry { partition: Partition(3), epoch: Some(Epoch(255)), offset: Offset(12), previous: None, bytes };
        assert_eq!(entry(Partition(3), value), Some(read.clone()));
        let tail = [&7_u128.to_be_bytes()[..], &9_u64.to_be_bytes()[..]].concat();
        let fields = list([text("00000000000000ff"), text("bytes"), text("before"), Value::BulkString(tail)]);
        let read = Entry { previous: Some(MessageId(7).check(9)), ..read };
        assert_eq!(entry(Partition(3), list([text("12-0"), fields])), Some(read));
    }

    #[test]
    fn an_entry_of_another_shape_holds_its_place_but_cannot_be_read() {
        let ours = || list([text("00000000000000ff"), text("bytes")]);
        for (id, fields) in [
            ("7-0", list([text("field"), text("value")])),
            ("7-0", list([text("00000000000000ff"), text("a"), text("00000000000000ff"), text("b")])),
            ("7-0", list([])),
            ("7-0", Value::Nil),
            ("7-1", ours()),
        ] {
            let entry = entry(Partition(0), list([text(id), fields])).expect("it has a place");
            assert_eq!((entry.epoch, entry.offset, entry.bytes), (None, Offset(7), Bytes::new()));
        }
        for id in ["7", "x-0", "-0", "99999999999999999999-0"] {
            assert_eq!(entry(Partition(0), list([text(id), ours()])), None, "{id}");
        }
    }

    #[test]
    fn no_stream_is_not_taken_for_no_answer() {
        assert_eq!(streams(Value::Nil), Some(Vec::new()));
        assert_eq!(
            streams(list([list([text("key"), list([Value::Int(1)])])])),
            Some(vec![(b"key".to_vec(), vec![Value::Int(1)])])
        );
        for wrong in [Value::Okay, list([Value::Int(1)]), list([list([text("key")])])] {
            assert_eq!(streams(wrong), None);
        }
    }
}
