//! Reads Redis's answers. They are not trusted: whatever has the wrong shape is told, never passed over.

use bytes::Bytes;
use redis::Value;

use crate::broker::Entry;
use crate::position::{Epoch, Offset, Partition};

/// From here on an id is no offset, as in the scripts.
pub(super) const LIMIT: u64 = 1_000_000_000_000_000;

/// An epoch for a log that has none yet, as it stands in Redis.
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

/// Logs what the scripts say of a log that they had to begin anew.
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

/// One entry of a stream. What is in another shape than ours keeps its place, but cannot be read.
pub(super) fn entry(partition: Partition, value: Value) -> Option<Entry> {
    let (id, fields) = pair(value)?;
    let id = bulk(id)?;
    let dash = id.iter().position(|&byte| byte == b'-')?;
    let offset = Offset(number(&id[..dash])?);
    let ours = pair(fields).filter(|_| &id[dash..] == b"-0");
    let record = ours.and_then(|(field, bytes)| Some((epoch(&bulk(field)?)?, bulk(bytes)?)));
    let (epoch, bytes) = match record {
        Some((epoch, bytes)) => (Some(epoch), Bytes::from(bytes)),
        None => (None, Bytes::new()),
    };
    Some(Entry { partition, epoch, offset, bytes })
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
        let read = Entry { partition: Partition(3), epoch: Some(Epoch(255)), offset: Offset(12), bytes };
        assert_eq!(entry(Partition(3), value), Some(read));
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
    fn no_stream_and_no_answer_are_told_apart() {
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
