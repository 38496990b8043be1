//! Properties that hold for every sequence of messages, every fragmentation and every split of the bytes.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::client::{masked, owned};
use super::*;
use crate::codec::CloseFrame;

#[derive(Debug, Clone)]
struct Sent {
    message: Event<'static>,
    /// Where the message is cut into fragments. Repeated positions give empty fragments.
    cuts: Vec<Index>,
    /// Control frames, each before the fragment it names (modulo how many there are).
    controls: Vec<(Index, Event<'static>)>,
    mask: [u8; 4],
}

fn messages() -> impl Strategy<Value = Vec<Sent>> {
    let bytes = || vec(any::<u8>(), 0..=125);
    let message = prop_oneof![
        any::<String>().prop_map(|text| Event::Text(text.into())),
        // Characters of each width side by side.
        vec(prop::sample::select(vec!["a", "é", "€", "😀"]), 0..200)
            .prop_map(|characters| Event::Text(characters.concat().into())),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Event::Binary(bytes.into())),
        (0_usize..70_000, any::<u8>()).prop_map(|(length, byte)| Event::Binary(vec![byte; length].into())),
    ];
    let control = prop_oneof![
        bytes().prop_map(|bytes| Event::Ping(bytes.into())),
        bytes().prop_map(|bytes| Event::Pong(bytes.into())),
    ];
    let controls = vec((any::<Index>(), control), 0..3);
    let sent = (message, vec(any::<Index>(), 0..6), controls, any::<[u8; 4]>())
        .prop_map(|(message, cuts, controls, mask)| Sent { message, cuts, controls, mask });
    vec(sent, 0..5)
}

fn close() -> impl Strategy<Value = Option<CloseFrame>> {
    let code = prop_oneof![1000_u16..=1003, 1007_u16..=1014, 3000_u16..=4999];
    prop::option::of((code, "[a-zé€]{0,40}").prop_map(|(code, reason)| CloseFrame { code, reason }))
}

/// The bytes of all messages and of the close frame at the end, and the expected events.
fn wire(messages: &[Sent], close: &Option<CloseFrame>) -> (Vec<u8>, Vec<Event<'static>>) {
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    for Sent { message, cuts, controls, mask } in messages {
        let (opcode, payload) = match message {
            Event::Text(text) => (1, text.as_bytes()),
            Event::Binary(bytes) => (2, &bytes[..]),
            other => unreachable!("not a message: {other:?}"),
        };
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(payload.len());
        let mut from = 0;
        for (at, &to) in ends.iter().enumerate() {
            for (_, control) in controls.iter().filter(|(before, _)| before.index(ends.len()) == at) {
                let (first, payload) = match control {
                    Event::Ping(payload) => (0x89, payload),
                    Event::Pong(payload) => (0x8A, payload),
                    other => unreachable!("not a control frame: {other:?}"),
                };
                bytes.extend(masked(first, *mask, payload));
                events.push(control.clone());
            }
            let fin = if at + 1 == ends.len() { 0x80 } else { 0 };
            let opcode = if at == 0 { opcode } else { 0 };
            bytes.extend(masked(fin | opcode, *mask, &payload[from..to]));
            from = to;
        }
        events.push(message.clone());
    }
    let payload = close.as_ref().map(|CloseFrame { code, reason }| [&code.to_be_bytes(), reason.as_bytes()].concat());
    bytes.extend(masked(0x88, [1, 2, 3, 4], &payload.unwrap_or_default()));
    events.push(Event::Close(close.clone()));
    (bytes, events)
}

/// Decodes `bytes`, split at `splits`. Returns the events, and whether the decoder is idle at the end, or the
/// violation.
fn decode(bytes: &[u8], splits: &[Index]) -> (Vec<Event<'static>>, Result<bool, Violation>) {
    let limits = Limits { message: 70_000, ..Limits::default() };
    let now = Instant::now();
    let mut decoder = Decoder::new(Extensions::none());
    let mut events = Vec::new();
    let mut bytes = bytes.to_vec();
    let mut ends: Vec<usize> = splits.iter().map(|split| split.index(bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let (mut rest, mut from) = (&mut bytes[..], 0);
    for to in ends {
        let mut input = take(&mut rest, to - from);
        from = to;
        loop {
            match decoder.next(&mut input, &limits, now) {
                Ok(Some(event)) => events.push(owned(event)),
                Ok(None) => break,
                Err(violation) => return (events, Err(violation)),
            }
        }
        assert!(input.is_empty());
    }
    (events, Ok(decoder.is_idle()))
}

/// Up to 39 split points.
fn splits() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..40)
}

proptest! {
    #[test]
    fn all_sent_messages_are_decoded_in_order(messages in messages(), close in close(), splits in splits()) {
        let (bytes, events) = wire(&messages, &close);
        let (decoded, end) = decode(&bytes, &splits);
        prop_assert_eq!(decoded, events);
        prop_assert_eq!(end, Ok(true), "all memory is freed");
    }

    #[test]
    fn random_bytes_never_panic_and_splits_never_matter(
        bytes in vec(any::<u8>(), 0..300),
        splits in splits(),
    ) {
        prop_assert_eq!(decode(&bytes, &splits), decode(&bytes, &[]));
    }

    #[test]
    fn damaged_messages_never_panic_and_splits_never_matter(
        messages in messages(),
        close in close(),
        damage in vec((any::<Index>(), any::<u8>()), 1..3),
        splits in splits(),
    ) {
        let (mut bytes, _) = wire(&messages, &close);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(decode(&bytes, &splits), decode(&bytes, &[]));
    }
}
