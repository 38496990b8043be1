//! WebSocket frames (RFC 6455 §5.2) as far as a load test needs them: whole messages, no extensions.
//!
//! Pure: bytes in, frames out. Never copies a payload.

use std::fmt;

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Our masking key: constant, because nothing between us and a loopback server needs protection (RFC 6455 §10.3).
const KEY: [u8; 4] = [0x5a, 0x17, 0xc3, 0x9e];

/// What stands before a payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) opcode: u8,
    pub(crate) key: Option<[u8; 4]>,
    /// Bytes of the head itself.
    pub(crate) size: usize,
    /// Bytes of the payload.
    pub(crate) payload: usize,
}

impl Head {
    /// Bytes of the whole frame.
    pub(crate) fn end(&self) -> usize {
        self.size + self.payload
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Extension(u8),
    Fragment,
    Opcode(u8),
    LongControl(u64),
    TooLong(u64),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension(bits) => write!(f, "a frame with reserved bits {bits:#x}, but no extension was agreed"),
            Self::Fragment => write!(f, "a fragmented message, which no benchmark message needs"),
            Self::Opcode(opcode) => write!(f, "a frame of unknown kind {opcode:#x}"),
            Self::LongControl(size) => write!(f, "a control frame of {size} bytes, more than 125"),
            Self::TooLong(size) => write!(f, "a frame of {size} bytes, more than the limit"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads the head at the start of `bytes`; `None` when it is not complete.
///
/// # Errors
/// When the frame is none that a server or client of this test may send, or longer than `limit` bytes.
pub(crate) fn head(bytes: &[u8], limit: usize) -> Result<Option<Head>, Malformed> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (opcode, short) = (first & 0x0f, u64::from(second & 0x7f));
    if first & 0x70 != 0 {
        return Err(Malformed::Extension(first & 0x70));
    }
    if !matches!(opcode, 0..=2 | 8..=10) {
        return Err(Malformed::Opcode(opcode));
    }
    if first & 0x80 == 0 || opcode == 0 {
        return Err(Malformed::Fragment);
    }
    if opcode >= 8 && short > 125 {
        return Err(Malformed::LongControl(short));
    }
    let (length, at) = match short {
        126 => match bytes.get(2..4) {
            Some(field) => (field.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(field) => (field.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 10),
            None => return Ok(None),
        },
        short => (short, 2),
    };
    if length > limit as u64 {
        return Err(Malformed::TooLong(length));
    }
    let payload = length as usize;
    if second & 0x80 == 0 {
        return Ok(Some(Head { opcode, key: None, size: at, payload }));
    }
    Ok(bytes.get(at..at + 4).map(|field| {
        let key = [field[0], field[1], field[2], field[3]];
        Head { opcode, key: Some(key), size: at + 4, payload }
    }))
}

/// Undoes or applies a mask.
pub(crate) fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[index & 3];
    }
}

/// Appends a frame as servers send it.
pub(crate) fn append_plain(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    append_head(out, opcode, 0, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a frame as clients send it.
pub(crate) fn append_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    append_head(out, opcode, 0x80, payload.len());
    out.extend_from_slice(&KEY);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], KEY);
}

fn append_head(out: &mut Vec<u8>, opcode: u8, masked: u8, length: usize) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// What a close frame says; 1005 (RFC 6455 §7.4.1) when it carries no code.
pub(crate) fn close_code(payload: &[u8]) -> (u16, String) {
    match payload {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned()),
        _ => (1005, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    #[test]
    fn frames_of_every_length_form_survive_a_round_trip_and_no_prefix_is_taken_for_a_whole_head() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, LIMIT] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            for masked in [false, true] {
                let mut bytes = Vec::new();
                match masked {
                    true => append_masked(&mut bytes, TEXT, &payload),
                    false => append_plain(&mut bytes, TEXT, &payload),
                }
                let got = head(&bytes, LIMIT).unwrap().unwrap();
                assert_eq!((got.opcode, got.payload, got.end()), (TEXT, length, bytes.len()));
                (0..got.size).for_each(|cut| assert_eq!(head(&bytes[..cut], LIMIT), Ok(None)));
                let mut body = bytes[got.size..].to_vec();
                if let Some(key) = got.key {
                    mask(&mut body, key);
                }
                assert_eq!((got.key.is_some(), body), (masked, payload.clone()));
            }
        }
    }

    #[test]
    fn what_no_server_of_this_test_may_send_is_refused() {
        for (bytes, error) in [
            (&[0xc1, 0x00][..], Malformed::Extension(0x40)),
            (&[0x01, 0x00], Malformed::Fragment),
            (&[0x80, 0x00], Malformed::Fragment),
            (&[0x83, 0x00], Malformed::Opcode(3)),
            (&[0x8b, 0x00], Malformed::Opcode(11)),
            (&[0x89, 126, 0, 126], Malformed::LongControl(126)),
            (&[0x81, 126, 0x01, 0x01], Malformed::TooLong(257)),
            (&[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], Malformed::TooLong(0xff << 56)),
        ] {
            assert_eq!(head(bytes, 256), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn a_close_frame_gives_its_code_and_reason() {
        assert_eq!(close_code(&[]), (1005, String::new()));
        assert_eq!(close_code(&[0x11]), (1005, String::new()));
        assert_eq!(close_code(b"\x11\x3atoo slow"), (4410, "too slow".to_owned()));
    }
}
