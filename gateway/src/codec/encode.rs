//! Encodes frames. They are never fragmented (RFC 6455 §5.4). A server's frames have no mask, a client's have one
//! (§5.1).

use bytes::Bytes;

use super::CONTROL_MAX;
use super::frame::Opcode;

/// The header of one server frame: 2, 4 or 10 bytes, held inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; 10],
    length: u8,
}

impl Header {
    /// The bytes to send before the payload.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// The header of an unfragmented frame with `length` bytes of payload, for a vectored write of header and payload.
pub fn header(opcode: Opcode, length: usize) -> Header {
    const FIN: u8 = 0x80;
    let mut bytes = [0; 10];
    bytes[0] = FIN | opcode as u8;
    let end = match length {
        0..=125 => {
            bytes[1] = length as u8;
            2
        }
        126..=0xFFFF => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    Header { bytes, length: end }
}

/// A whole frame, in one allocation. Control frames have functions of their own, which keep them within
/// [`CONTROL_MAX`].
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    join(opcode, &[payload])
}

/// A close frame. `reason` is cut, between characters, to the 123 bytes that fit.
pub fn close(code: u16, reason: &str) -> Bytes {
    let fits = reason.floor_char_boundary(CONTROL_MAX - 2);
    join(Opcode::Close, &[&code.to_be_bytes(), &reason.as_bytes()[..fits]])
}

/// A ping frame. `payload` is cut to [`CONTROL_MAX`] bytes.
pub fn ping(payload: &[u8]) -> Bytes {
    frame(Opcode::Ping, &payload[..payload.len().min(CONTROL_MAX)])
}

/// A pong frame. `payload` is that of the ping it answers, cut to [`CONTROL_MAX`] bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(Opcode::Pong, &payload[..payload.len().min(CONTROL_MAX)])
}

/// A whole frame from a client. If the payload comes from others, the mask must be unpredictable (RFC 6455 §10.3).
pub fn masked(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Bytes {
    let header = header(opcode, payload.len());
    let mut bytes = Vec::with_capacity(header.as_slice().len() + mask.len() + payload.len());
    bytes.extend_from_slice(header.as_slice());
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Bytes::from(bytes)
}

fn join(opcode: Opcode, payload: &[&[u8]]) -> Bytes {
    let length = payload.iter().map(|part| part.len()).sum();
    let header = header(opcode, length);
    // Exact capacity: with spare capacity, `Bytes` would need a second allocation.
    let mut bytes = Vec::with_capacity(header.as_slice().len() + length);
    bytes.extend_from_slice(header.as_slice());
    for part in payload {
        bytes.extend_from_slice(part);
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_uses_the_shortest_length() {
        for (length, expected) in [
            (0, &b"\x81\x00"[..]),
            (1, b"\x81\x01"),
            (125, b"\x81\x7D"),
            (126, b"\x81\x7E\x00\x7E"),
            (0xFFFF, b"\x81\x7E\xFF\xFF"),
            (0x1_0000, b"\x81\x7F\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            assert_eq!(header(Opcode::Text, length).as_ref(), expected, "{length}");
        }
    }

    #[test]
    fn a_frame_is_its_header_and_its_payload() {
        assert_eq!(frame(Opcode::Text, b"Hello")[..], b"\x81\x05Hello"[..]); // RFC 6455 §5.7
        assert_eq!(frame(Opcode::Binary, b"")[..], b"\x82\x00"[..]);
        let long = frame(Opcode::Binary, &[7; 0x1_0000]);
        assert_eq!(long[..10], b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00"[..]);
        assert_eq!(long[10..], [7; 0x1_0000]);
    }

    #[test]
    fn a_client_masks_its_frames() {
        let hello = masked(Opcode::Text, b"Hello", [0x37, 0xFA, 0x21, 0x3D]);
        assert_eq!(hello[..], b"\x81\x85\x37\xFA\x21\x3D\x7F\x9F\x4D\x51\x58"[..]); // RFC 6455 §5.7
        assert_eq!(masked(Opcode::Binary, &[0; 126], [1, 2, 3, 4])[..9], b"\x82\xFE\x00\x7E\x01\x02\x03\x04\x01"[..]);
    }

    #[test]
    fn control_frames_stay_within_125_bytes() {
        assert_eq!(ping(b"x")[..], b"\x89\x01x"[..]);
        assert_eq!(pong(b"Hello")[..], b"\x8A\x05Hello"[..]);
        assert_eq!(ping(&[0; 126]).len(), 2 + CONTROL_MAX);
        assert_eq!(pong(&[0; 126]).len(), 2 + CONTROL_MAX);
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        assert_eq!(close(1000, "")[..], b"\x88\x02\x03\xE8"[..]);
        assert_eq!(close(1012, "drain")[..], b"\x88\x07\x03\xF4drain"[..]);
        assert_eq!(close(1000, &"x".repeat(124)).len(), 2 + 125);
        // 123 is inside the 62nd two-byte character.
        let cut = close(1000, &"é".repeat(100));
        assert_eq!(str::from_utf8(&cut[4..]), Ok("é".repeat(61).as_str()));
    }
}
