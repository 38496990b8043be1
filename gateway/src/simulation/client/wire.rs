//! A client's side of the WebSocket framing.

use std::collections::VecDeque;

/// A text frame with an all-zero mask.
pub(in crate::simulation) fn masked(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![0x81, 0x80 | 126];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    if length < 126 {
        bytes.splice(1..4, [0x80 | text.len() as u8]);
    }
    bytes
}

/// Takes the next whole frame from `input`: its opcode and payload.
pub(in crate::simulation) fn frame(input: &mut VecDeque<u8>) -> Option<(u8, Vec<u8>)> {
    let (first, short) = (*input.front()?, usize::from(*input.get(1)?));
    let wide = match short {
        127 => 8,
        126 => 2,
        _ => 0,
    };
    if input.len() < 2 + wide {
        return None;
    }
    let length = match wide {
        0 => short,
        _ => input.range(2..2 + wide).fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    if input.len() < 2 + wide + length {
        return None;
    }
    input.drain(..2 + wide);
    Some((first & 0x0F, input.drain(..length).collect()))
}
