//! The decoder's rules, one by one.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::client::{owned, sent};
use super::*;
use crate::codec::CloseFrame;

/// Decodes `wire` in pieces of `piece` bytes. Returns all events, and the violation that ended the decoding, if any.
fn decode(wire: &[u8], piece: usize, limits: &Limits) -> (Vec<Event<'static>>, Result<(), Violation>) {
    let mut decoder = Decoder::new(Extensions::none());
    let now = Instant::now();
    let mut events = Vec::new();
    for piece in wire.to_vec().chunks_mut(piece) {
        let mut input = piece;
        loop {
            match decoder.next(&mut input, limits, now) {
                Ok(Some(event)) => events.push(owned(event)),
                Ok(None) => break,
                Err(violation) => return (events, Err(violation)),
            }
        }
    }
    (events, Ok(()))
}

/// Asserts that decoding ends in the same way for the whole input and byte by byte.
fn assert_ends(name: &str, wire: &[u8], limits: &Limits, expected: Result<(), Violation>) {
    for piece in [wire.len(), 1] {
        assert_eq!(decode(wire, piece, limits).1, expected, "{name}, {piece} bytes at a time");
    }
}

fn text(text: &str) -> Event<'static> {
    Event::Text(Cow::Owned(text.to_owned()))
}

fn binary(bytes: &[u8]) -> Event<'static> {
    Event::Binary(Cow::Owned(bytes.to_vec()))
}

fn ping(bytes: &[u8]) -> Event<'static> {
    Event::Ping(Cow::Owned(bytes.to_vec()))
}

#[test]
fn each_broken_rule_has_its_violation() {
    use Violation::*;
    let cases: &[(&str, Vec<u8>, Violation)] = &[
        ("unmasked", b"\x81\x05Hello".to_vec(), Unmasked),
        ("rsv1", sent(0xC1, b"x"), ReservedBit),
        ("rsv2", sent(0xA1, b"x"), ReservedBit),
        ("rsv3", sent(0x91, b"x"), ReservedBit),
        ("rsv on a control frame", sent(0xC9, b""), ReservedBit),
        ("rsv on a continuation", [sent(0x01, b"a"), sent(0xC0, b"b")].concat(), ReservedBit),
        ("long ping", sent(0x89, &[0; 126]), ControlTooLong),
        ("long close", sent(0x88, &[0; 0x1_0000]), ControlTooLong),
        ("fragmented ping", sent(0x09, b""), ControlFragmented),
        ("fragmented close", sent(0x08, b""), ControlFragmented),
        ("stray continuation", sent(0x80, b"x"), StrayContinuation),
        ("stray first fragment", sent(0x00, b"x"), StrayContinuation),
        ("continuation after the end", [sent(1, b"a"), sent(0x80, b"b"), sent(0x80, b"c")].concat(), StrayContinuation),
        ("text inside a text", [sent(0x01, b"a"), sent(0x81, b"b")].concat(), Interleaved),
        ("binary inside a text", [sent(0x01, b"a"), sent(0x02, b"b")].concat(), Interleaved),
        ("top bit of the length", b"\x82\xFF\x80\0\0\0\0\0\0\0".to_vec(), LengthTopBit),
        ("125 bytes in 16 bits", b"\x82\xFE\0\x7D".to_vec(), LengthNotMinimal),
        ("65535 bytes in 64 bits", b"\x82\xFF\0\0\0\0\0\0\xFF\xFF".to_vec(), LengthNotMinimal),
        ("half a close code", sent(0x88, b"\x03"), CloseTruncated),
        ("close reason", sent(0x88, b"\x03\xE8\xFF"), BadUtf8),
        ("text in one frame", sent(0x81, b"a\xFF"), BadUtf8),
        ("text in two frames", [sent(0x01, b"\xE2"), sent(0x80, b"\x28")].concat(), BadUtf8),
        ("text cut in a character", sent(0x81, b"\xE2\x82"), BadUtf8),
        ("fragmented text cut in a character", [sent(0x01, b"\xE2\x82"), sent(0x80, b"")].concat(), BadUtf8),
        ("message in one frame", sent(0x82, &[0; 0x1_0001]), MessageTooBig),
        ("message in two frames", [sent(0x02, &[0; 0x1_0000]), sent(0x80, b"x")].concat(), MessageTooBig),
        ("2^63 - 1 bytes", b"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0".to_vec(), MessageTooBig),
    ];
    for (name, wire, violation) in cases {
        assert_ends(name, wire, &Limits::default(), Err(*violation));
    }
    for bits in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_ends("opcode", &sent(0x80 | bits, b""), &Limits::default(), Err(ReservedOpcode(bits)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535_u16] {
        assert_ends("code", &sent(0x88, &code.to_be_bytes()), &Limits::default(), Err(CloseCode(code)));
    }
}

#[test]
fn an_incomplete_header_is_checked_by_the_bytes_that_arrived() {
    let limits = Limits::default();
    for (wire, violation) in [
        (&b"\x83"[..], Violation::ReservedOpcode(3)),
        (b"\xC1", Violation::ReservedBit),
        (b"\x09", Violation::ControlFragmented),
        (b"\x81\x05", Violation::Unmasked),
        (b"\x89\xFE", Violation::ControlTooLong),
        (b"\x82\xFE\x00\x10", Violation::LengthNotMinimal),
        (b"\x82\xFF\0\0\0\0\0\x01\0\x01\0\0\0\0", Violation::MessageTooBig), // no byte of the payload
    ] {
        assert_ends("header only", wire, &limits, Err(violation));
    }
}

#[test]
fn messages_up_to_the_limits_are_decoded_whole() {
    let limits = Limits { message: 70_000, ..Limits::default() };
    for length in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 70_000] {
        let payload = vec![0x5A; length];
        let fragments = [sent(0x02, &payload[..length / 3]), sent(0x80, &payload[length / 3..])].concat();
        for piece in [1, 13, 4096, usize::MAX] {
            assert_eq!(decode(&sent(0x82, &payload), piece, &limits), (vec![binary(&payload)], Ok(())), "{length}");
            assert_eq!(decode(&fragments, piece, &limits), (vec![binary(&payload)], Ok(())), "{length}");
        }
    }
}

#[test]
fn control_frames_come_between_fragments_and_messages_in_order() {
    let wire = [
        sent(0x01, "é".as_bytes().split_at(1).0),
        sent(0x89, b"1"),
        sent(0x00, b""),
        sent(0x8A, b"2"),
        sent(0x80, "é".as_bytes().split_at(1).1),
        sent(0x89, &[3; 125]),
        sent(0x82, b"b"),
        sent(0x88, b"\x0B\xB8bye"),
    ]
    .concat();
    let expected = vec![
        ping(b"1"),
        Event::Pong(Cow::Owned(b"2".to_vec())),
        text("é"),
        ping(&[3; 125]),
        binary(b"b"),
        Event::Close(Some(CloseFrame { code: 3000, reason: "bye".to_owned() })),
    ];
    for piece in 1..=wire.len() {
        assert_eq!(decode(&wire, piece, &Limits::default()), (expected.clone(), Ok(())), "{piece} bytes at a time");
    }
    assert_eq!(decode(&sent(0x88, b""), 1, &Limits::default()), (vec![Event::Close(None)], Ok(())));
}

#[test]
fn bad_text_fails_at_the_byte_that_breaks_it() {
    // Autobahn 6.4.3 and 6.4.4: the frame is not complete, and neither is the message.
    let wire = sent(0x01, b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80edited");
    let header = 6;
    let bad = header + 12;
    assert_ends("before", &wire[..bad], &Limits::default(), Ok(()));
    assert_ends("at", &wire[..=bad], &Limits::default(), Err(Violation::BadUtf8));
}

#[test]
fn empty_fragments_are_counted_too() {
    let limits = Limits { fragments: 3, ..Limits::default() };
    let four = [sent(0x02, b""), sent(0x00, b""), sent(0x89, b""), sent(0x00, b""), sent(0x80, b"")].concat();
    let three = [sent(0x02, b""), sent(0x00, b""), sent(0x89, b""), sent(0x80, b"")].concat();
    assert_ends("four", &four, &limits, Err(Violation::TooManyFragments));
    assert_eq!(decode(&[three.clone(), three].concat(), 1, &limits).0.len(), 4);
    let many = [sent(0x02, b""), sent(0x00, b"").repeat(16_383)].concat();
    assert_ends("16,384", &many, &Limits::default(), Ok(()));
    assert_ends("16,385", &[many, sent(0x80, b"")].concat(), &Limits::default(), Err(Violation::TooManyFragments));
}

#[test]
fn the_time_of_a_message_counts_from_its_first_byte() {
    let limits = Limits::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut decoder = Decoder::new(Extensions::none());
    let mut wire = [sent(0x01, b"a"), sent(0x89, b""), sent(0x80, b"b")].concat();
    let (first, rest) = wire.split_at_mut(1);
    let (mut first, mut rest) = (first, rest);
    assert_eq!(decoder.next(&mut first, &limits, at(0)), Ok(None));
    assert!(!decoder.overdue(&limits, at(30)));
    assert!(decoder.overdue(&limits, at(31)));
    // A ping does not restart the time.
    assert_eq!(decoder.next(&mut rest, &limits, at(30)), Ok(Some(ping(b""))));
    assert_eq!(decoder.next(&mut rest, &limits, at(31)), Err(Violation::MessageTooSlow));

    let mut decoder = Decoder::new(Extensions::none());
    let mut wire = sent(0x81, b"held up");
    let (mut first, mut rest) = wire.split_at_mut(3);
    assert_eq!(decoder.next(&mut first, &limits, at(0)), Ok(None));
    decoder.excuse(at(60));
    assert_eq!(
        decoder.next(&mut rest, &limits, at(90)),
        Ok(Some(text("held up"))),
        "the delay was the node's, so the time restarted"
    );

    let mut decoder = Decoder::new(Extensions::none());
    for minute in 0..3 {
        let (mut head, mut tail) = (sent(0x81, b"whole"), sent(0x81, b"whole"));
        let (mut head, mut tail) = (&mut head[..3], &mut tail[3..]);
        assert_eq!(decoder.next(&mut head, &limits, at(60 * minute)), Ok(None));
        assert_eq!(decoder.next(&mut tail, &limits, at(60 * minute + 30)), Ok(Some(text("whole"))));
        assert!(!decoder.overdue(&limits, at(60 * minute + 59)), "an idle decoder is never overdue");
    }
}

#[test]
fn a_complete_frame_is_borrowed_and_leaves_the_decoder_idle() {
    let mut decoder = Decoder::new(Extensions::none());
    let mut wire = [sent(0x81, b"text"), sent(0x82, b"bin"), sent(0x89, b"?"), sent(0x8A, b"!")].concat();
    let mut input = &mut wire[..];
    for _ in 0..4 {
        let event = decoder.next(&mut input, &Limits::default(), Instant::now()).unwrap().unwrap();
        assert!(decoder.is_idle());
        let borrowed = match event {
            Event::Text(text) => matches!(text, Cow::Borrowed(_)),
            Event::Binary(bytes) | Event::Ping(bytes) | Event::Pong(bytes) => matches!(bytes, Cow::Borrowed(_)),
            Event::Close(_) => false,
        };
        assert!(borrowed);
    }
}

#[test]
fn an_idle_decoder_is_small_and_an_announced_length_costs_nothing() {
    assert!(size_of::<Decoder>() <= 16, "{}", size_of::<Decoder>());
    assert!(size_of::<Partial>() <= 192, "{}", size_of::<Partial>());
    let mut decoder = Decoder::new(Extensions::none());
    let mut wire = sent(0x82, &[0; 0x1_0000]);
    let mut input = &mut wire[..15];
    assert_eq!(decoder.next(&mut input, &Limits::default(), Instant::now()), Ok(None));
    assert!(!decoder.is_idle());
    let message = decoder.partial.as_ref().and_then(|partial| partial.message.as_ref()).unwrap();
    let Body::Binary(bytes) = &message.body else { panic!("a text from a binary frame") };
    assert_eq!(bytes.len(), 1);
    assert!(bytes.capacity() < 64, "{}", bytes.capacity());
}
