//! A client's frames for tests, legal or not.

use crate::codec::Event;

/// A complete frame: `first` is FIN, RSV and opcode as on the wire; the length is minimal.
pub(super) fn masked(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A complete frame, with a mask that changes every byte.
pub(super) fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, [0x37, 0xFA, 0x21, 0x3D], payload)
}

/// The same event with owned content.
pub(super) fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Text(text) => Event::Text(text.into_owned().into()),
        Event::Binary(bytes) => Event::Binary(bytes.into_owned().into()),
        Event::Ping(bytes) => Event::Ping(bytes.into_owned().into()),
        Event::Pong(bytes) => Event::Pong(bytes.into_owned().into()),
        Event::Close(frame) => Event::Close(frame),
    }
}
