//! The stored bytes of each kind, flag and extension, against `tests/stored-format.txt`.
//!
//! Logs outlive releases: all later releases must read the records in that file. New kinds, flags and extensions add lines.
//! A changed line is a change of the format and belongs into CHANGELOG.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use super::envelope::{Content, Envelope, Unreadable, heartbeat, message, read};
use super::extensions::{Extension, Extensions};
use super::position::{Check, Offset, Partition, Position};
use super::record::{MessageId, NewRecord, Payload};

const GOLDEN: &str = include_str!("../../tests/stored-format.txt");
const ID: MessageId = MessageId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const TIME: u64 = 0x0102_0304_0506;

/// The lines of the file: names and bytes.
fn golden() -> BTreeMap<&'static str, Bytes> {
    let lines = GOLDEN.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let named = lines.map(|line| {
        let (name, hex) = line.split_once(':').expect("`name: bytes in hex`");
        let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("two hex digits");
        (name, digits.chunks(2).map(byte).collect())
    });
    named.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn extended(list: &[(Extension, &str)]) -> Extensions {
    list.iter().fold(Extensions::default(), |list, (tag, text)| list.with(*tag, text).expect("short enough"))
}

fn text(extensions: Extensions) -> NewRecord {
    NewRecord { extensions, ..NewRecord::new(ID, "room".into(), Payload::Text("hello".into())) }
}

/// What this release writes, by name.
fn written() -> Vec<(&'static str, Bytes, Content)> {
    let beat = |name, seen| (name, heartbeat(ID, TIME, seen), Content::Heartbeat { seen });
    let sent = |name, record: NewRecord| {
        let bytes = message(&record, TIME);
        let NewRecord { channel, payload, extensions, .. } = record;
        (name, bytes, Content::Message { channel: channel.into(), payload, extensions })
    };
    let of = |payload| NewRecord::new(ID, "room".into(), payload);
    let control = NewRecord::control(ID, "{cluster}", "{\"a\":1}".into());
    let for_nodes = Content::Control { channel: "{cluster}".into(), payload: control.payload.clone() };
    let trace = (Extension::TraceParent, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let [user, client, excluded] = [(Extension::User, "u1"), (Extension::Client, "c7"), (Extension::Excluded, "c8")];
    vec![
        beat("heartbeat", None),
        beat(
            "heartbeat with a position",
            Some(Position { partition: Partition(3), offset: Offset(258), check: Check(77) }),
        ),
        sent("JSON", of(Payload::Json("{\"a\":1}".into()))),
        sent("text", text(Extensions::default())),
        sent("binary", of(Payload::Binary(Bytes::from_static(&[0, 0xff])))),
        ("control", message(&control, TIME), for_nodes),
        sent("text with user", text(extended(&[user]))),
        sent("text with client", text(extended(&[client]))),
        sent("text with excluded client", text(extended(&[excluded]))),
        sent("text with traceparent", text(extended(&[trace]))),
        sent("text with all extensions", text(extended(&[trace, excluded, client, user]))),
    ]
}

/// What newer releases may write, and how this one reads it.
fn newer() -> Vec<(&'static str, Result<Content, Unreadable>)> {
    let (channel, payload) = (Bytes::from("room"), Payload::Text("hello".into()));
    let known = |extensions| Ok(Content::Message { channel: channel.clone(), payload: payload.clone(), extensions });
    vec![
        ("a kind to skip", Ok(Content::Skipped)),
        ("a version to skip", Ok(Content::Skipped)),
        ("a flag to skip", Ok(Content::Skipped)),
        ("a kind not to skip", Err(Unreadable::Newer { version: 1, kind: 4 })),
        ("a version not to skip", Err(Unreadable::Newer { version: 2, kind: 0 })),
        ("a flag not to skip", Err(Unreadable::Newer { version: 1, kind: 2 })),
        ("text that may be skipped", known(Extensions::default())),
        ("text with an empty list of extensions", known(Extensions::default())),
        ("extensions in a wrong order", Err(Unreadable::Malformed)),
        ("an extension that is too long", Err(Unreadable::Malformed)),
    ]
}

#[test]
fn stored_bytes_are_those_of_the_golden_file() {
    let mut golden = golden();
    for (name, bytes, content) in written() {
        let kept = golden.remove(name).unwrap_or_default();
        assert_eq!(hex(&kept), hex(&bytes), "`{name}` is written in another way than tests/stored-format.txt says");
        assert_eq!(read(&kept), Ok(Envelope { id: ID, time: TIME, content }), "`{name}`");
    }
    for (name, content) in newer() {
        let kept = golden.remove(name).unwrap_or_default();
        assert_eq!(read(&kept), content.map(|content| Envelope { id: ID, time: TIME, content }), "`{name}`");
    }
    let unknown = golden.remove("text with an unknown extension").unwrap_or_default();
    let Ok(Envelope { content: Content::Message { extensions, .. }, .. }) = read(&unknown) else {
        panic!("an unknown extension makes a record unreadable");
    };
    assert_eq!(extensions.get(Extension::User), Some("u1"));
    assert!(golden.is_empty(), "lines that are not tested: {:?}", golden.keys());
}
