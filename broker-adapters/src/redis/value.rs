//! Reads Redis's answers. They are not trusted: an answer of a wrong shape is an error and never ignored.

use bytes::Bytes;
use redis::Value;

use super::reply::{Values, number};
use crate::broker::Entry;
use crate::stored::position::{Check, Epoch, Offset, Partition};
use crate::stored::record::MessageId;

/// From here on an id is no offset, as in the scripts.
pub(super) const LIMIT: u64 = 1_000_000_000_000_000;

/// The most fields and values of an entry of ours.
const FIELDS: usize = 4;

/// A new epoch, in the form in which Redis keeps it.
pub(super) fn new_epoch() -> String {
    format!("{:016x}", fastrand::u64(1..))
}

fn epoch(text: &[u8]) -> Option<Epoch> {
    let plain = text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit);
    let number = u64::from_str_radix(std::str::from_utf8(text).ok().filter(|_| plain)?, 16).ok()?;
    Some(Epoch(number))
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

/// An entry of a stream, in the bytes of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) offset: Offset,
    pub(super) bytes: &'a [u8],
    epoch: Option<Epoch>,
    previous: Option<Check>,
}

impl Found<'_> {
    /// The entry, with its envelope in memory that stays.
    pub(super) fn entry(&self, partition: Partition, bytes: Bytes) -> Entry {
        Entry { partition, epoch: self.epoch, offset: self.offset, previous: self.previous, bytes }
    }
}

/// The entry that comes next in a reply; `None` if there is no entry.
pub(super) fn next_entry<'a>(values: &mut Values<'a>) -> Option<Found<'a>> {
    let Some(2) = values.array()? else { return None };
    let id = values.bulk()?;
    let (mut ahead, mut fields) = (*values, [[].as_slice(); FIELDS]);
    match next_fields(&mut ahead, &mut fields) {
        Some(count) => {
            *values = ahead;
            found(id, &fields[..count])
        }
        None => {
            values.skip()?;
            found(id, &[])
        }
    }
}

/// The number of fields and values that come next, if they may be ours.
fn next_fields<'a>(values: &mut Values<'a>, fields: &mut [&'a [u8]; FIELDS]) -> Option<usize> {
    let count = values.array()??;
    for field in fields.get_mut(..count)? {
        *field = values.bulk()?;
    }
    Some(count)
}

/// One entry of a stream, in a tree of values.
pub(super) fn entry(partition: Partition, value: &Value) -> Option<Entry> {
    let Value::Array(pair) = value else { return None };
    let [Value::BulkString(id), fields] = &pair[..] else { return None };
    let fields = match fields {
        Value::Array(fields) => fields.iter().map(bulk).collect::<Option<Vec<_>>>().unwrap_or_default(),
        _ => Vec::new(),
    };
    let found = found(id, &fields)?;
    Some(found.entry(partition, Bytes::copy_from_slice(found.bytes)))
}

/// An entry of another shape than ours keeps its place and is unreadable.
fn found<'a>(id: &[u8], fields: &[&'a [u8]]) -> Option<Found<'a>> {
    let dash = id.iter().position(|&byte| byte == b'-')?;
    let offset = Offset(number(&id[..dash])?);
    let ours = content(fields).filter(|_| &id[dash..] == b"-0");
    let (epoch, bytes, previous) = ours.unwrap_or_default();
    Some(Found { offset, bytes, epoch, previous })
}

/// The fields of an entry: its log's epoch with the envelope, then `before` with id and time of the record before it, where
/// that is known.
fn content<'a>(fields: &[&'a [u8]]) -> Option<(Option<Epoch>, &'a [u8], Option<Check>)> {
    let (log, bytes, previous) = match *fields {
        [log, bytes] => (log, bytes, None),
        [log, bytes, b"before", tail] => {
            let (id, time) = tail.split_first_chunk()?;
            let time = u64::from_be_bytes(time.try_into().ok()?);
            (log, bytes, Some(MessageId(u128::from_be_bytes(*id)).check(time)))
        }
        _ => return None,
    };
    Some((Some(epoch(log)?), bytes, previous))
}

fn bulk(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
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
        assert_eq!(entry(Partition(3), &value), Some(read.clone()));
        let tail = [&7_u128.to_be_bytes()[..], &9_u64.to_be_bytes()[..]].concat();
        let fields = list([text("00000000000000ff"), text("bytes"), text("before"), Value::BulkString(tail)]);
        let read = Entry { previous: Some(MessageId(7).check(9)), ..read };
        assert_eq!(entry(Partition(3), &list([text("12-0"), fields])), Some(read));
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
            let value = list([text(id), fields]);
            let entry = entry(Partition(0), &value).expect("it has a place");
            assert_eq!((entry.epoch, entry.offset, entry.bytes), (None, Offset(7), Bytes::new()));
        }
        for id in ["7", "x-0", "-0", "99999999999999999999-0"] {
            assert_eq!(entry(Partition(0), &list([text(id), ours()])), None, "{id}");
        }
    }
}
