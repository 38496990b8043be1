//! Decodes one frame: the rules of the header, the mask, and the payload of a close frame (RFC 6455 §5, §7.4).
//!
//! Stateless: knows nothing of messages, so nothing of continuation or limits.

use super::{CONTROL_MAX, CloseFrame, Extensions, Violation};

/// The kind of a frame (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0x0,
    /// The first fragment of a text message, or all of it.
    Text = 0x1,
    /// The first fragment of a binary message, or all of it.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// Asks whether the other side is alive.
    Ping = 0x9,
    /// The answer to a ping.
    Pong = 0xA,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            reserved => return Err(Violation::ReservedOpcode(reserved)),
        })
    }

    pub(super) fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A frame whose header is read and whose payload is not, or not completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    /// Payload bytes that are not read yet.
    pub(super) remaining: u64,
    /// The mask, rotated so that its first byte is for the next payload byte. Zeros in a frame without a mask.
    mask: [u8; 4],
}

impl Frame {
    /// The longest header, in bytes.
    pub(super) const HEADER_MAX: usize = 14;

    /// Reads a header from the front of `bytes`. Returns it with its length in bytes, or `None` if it is incomplete.
    /// The rules are checked on an incomplete header too. `masked`: the frames come from a client.
    pub(super) fn parse(
        bytes: &[u8],
        extensions: Extensions,
        masked: bool,
    ) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 & !extensions.reserved_bits != 0 {
            return Err(Violation::ReservedBit);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0F)?;
        if opcode.is_control() && !fin {
            return Err(Violation::ControlFragmented);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if (second & 0x80 != 0) != masked {
            return Err(if masked { Violation::Unmasked } else { Violation::Masked });
        }
        let short = second & 0x7F;
        if opcode.is_control() && usize::from(short) > CONTROL_MAX {
            return Err(Violation::ControlTooLong);
        }
        let Some((remaining, mask_at)) = length(short, &bytes[2..])? else { return Ok(None) };
        if !masked {
            return Ok(Some((Self { opcode, fin, remaining, mask: [0; 4] }, mask_at)));
        }
        let Some(&mask) = bytes[mask_at..].first_chunk() else { return Ok(None) };
        Ok(Some((Self { opcode, fin, remaining, mask }, mask_at + mask.len())))
    }

    /// Unmasks the next bytes of the payload in place, and subtracts them from `remaining`.
    pub(super) fn unmask(&mut self, payload: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, tail) = payload.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ mask).to_ne_bytes();
        }
        for (byte, mask) in tail.iter_mut().zip(self.mask.iter().cycle()) {
            *byte ^= mask;
        }
        self.mask.rotate_left(payload.len() % 4);
        self.remaining -= payload.len() as u64;
    }
}

/// The payload length, from its 7-bit form and the bytes after it, and the offset in the frame of the mask or, without
/// one, of the payload.
fn length(short: u8, after: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    let (length, minimum, mask_at) = match short {
        126 => match after.first_chunk() {
            Some(&bytes) => (u64::from(u16::from_be_bytes(bytes)), 126, 4),
            None => return Ok(None),
        },
        127 => match after.first_chunk() {
            Some(&bytes) => (u64::from_be_bytes(bytes), 0x1_0000, 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 0, 2),
    };
    if length >> 63 != 0 {
        return Err(Violation::LengthTopBit);
    }
    if length < minimum {
        return Err(Violation::LengthNotMinimal);
    }
    Ok(Some((length, mask_at)))
}

/// Decodes the payload of a close frame; `None` if it is empty.
pub(super) fn close_payload(payload: &[u8]) -> Result<Option<CloseFrame>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let Some((&code, reason)) = payload.split_first_chunk() else { return Err(Violation::CloseTruncated) };
    let code = u16::from_be_bytes(code);
    // 1007-1014 without 1015: IANA's registry. 1004 is reserved; 1005, 1006 and 1015 are for APIs, never for the wire.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode(code));
    }
    let reason = str::from_utf8(reason).map_err(|_| Violation::BadUtf8)?;
    Ok(Some(CloseFrame { code, reason: reason.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmasking_in_pieces_equals_the_rfc_loop() {
        let masked: Vec<u8> = (0..100_u8).map(|n| n.wrapping_mul(7)).collect();
        let mask = [0x37, 0xFA, 0x21, 0x3D];
        // RFC 6455 §5.3, literally.
        let expected: Vec<u8> = masked.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        for cut in 0..=masked.len() {
            let mut frame = Frame { opcode: Opcode::Binary, fin: true, remaining: 100, mask };
            let mut bytes = masked.clone();
            let (head, tail) = bytes.split_at_mut(cut);
            frame.unmask(head);
            frame.unmask(tail);
            assert_eq!((bytes, frame.remaining), (expected.clone(), 0), "cut at {cut}");
        }
    }

    #[test]
    fn registered_and_private_close_codes_are_allowed_on_the_wire() {
        for code in 0..=u16::MAX {
            let allowed = match code {
                1004..=1006 | 1015 => false,
                1000..=1014 | 3000..=4999 => true,
                _ => false,
            };
            let expected = match allowed {
                true => Ok(Some(CloseFrame { code, reason: "é".to_owned() })),
                false => Err(Violation::CloseCode(code)),
            };
            let payload = [&code.to_be_bytes()[..], "é".as_bytes()].concat();
            assert_eq!(close_payload(&payload), expected);
        }
    }

    #[test]
    fn a_close_payload_is_empty_or_has_a_code_and_utf8() {
        assert_eq!(close_payload(b""), Ok(None));
        assert_eq!(close_payload(b"\x03"), Err(Violation::CloseTruncated));
        assert_eq!(close_payload(b"\x03\xE8"), Ok(Some(CloseFrame { code: 1000, reason: String::new() })));
        assert_eq!(close_payload(b"\x03\xE8ab\xC3"), Err(Violation::BadUtf8));
    }
}
