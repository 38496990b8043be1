//! Frames: a client's, which the rows of a table may bend, and a server's, which are read strictly.

use anyhow::{Result, ensure};

/// A continuation frame's opcode.
pub const CONTINUATION: u8 = 0x0;
/// A text frame's opcode.
pub const TEXT: u8 = 0x1;
/// A binary frame's opcode.
pub const BINARY: u8 = 0x2;
/// A close frame's opcode.
pub const CLOSE: u8 = 0x8;
/// A ping's opcode.
pub const PING: u8 = 0x9;
/// A pong's opcode.
pub const PONG: u8 = 0xA;

/// A frame as a client sends it: lawful until it is bent.
#[derive(Debug, Clone)]
pub struct Frame {
    first: u8,
    mask: Option<[u8; 4]>,
    length: Option<Length>,
    payload: Vec<u8>,
}

/// How a frame writes its length, which need not be that of its payload.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    /// In the 7 bits of the second byte.
    Short(u8),
    /// In 16 bits.
    Medium(u16),
    /// In 64 bits.
    Long(u64),
}

impl Frame {
    /// A final, masked frame.
    #[must_use]
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            first: 0x80 | opcode,
            mask: Some([0x37, 0xFA, 0x21, 0x3D]),
            length: None,
            payload: payload.as_ref().into(),
        }
    }

    /// A text message.
    #[must_use]
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self::new(TEXT, text)
    }

    /// A close frame with a code.
    #[must_use]
    pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
    }

    /// With more fragments to follow.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.first &= 0x7F;
        self
    }

    /// With bits of the first byte set: RSV1 is 0x40, RSV2 0x20, RSV3 0x10.
    #[must_use]
    pub fn bits(mut self, bits: u8) -> Self {
        self.first |= bits;
        self
    }

    /// As only a server may send it.
    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// With a length of its own, in a form of its own.
    #[must_use]
    pub fn announcing(mut self, length: Length) -> Self {
        self.length = Some(length);
        self
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or(match self.payload.len() {
            short @ ..126 => Length::Short(short as u8),
            medium @ 126..0x1_0000 => Length::Medium(medium as u16),
            long => Length::Long(long as u64),
        });
        let masked = u8::from(self.mask.is_some()) << 7;
        let mut bytes = vec![self.first];
        match length {
            Length::Short(length) => bytes.push(masked | length),
            Length::Medium(length) => bytes.extend([&[masked | 126][..], &length.to_be_bytes()].concat()),
            Length::Long(length) => bytes.extend([&[masked | 127][..], &length.to_be_bytes()].concat()),
        }
        bytes.extend(self.mask.into_iter().flatten());
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

/// One frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What kind it is.
    pub opcode: u8,
    /// What it holds.
    pub payload: Vec<u8>,
}

impl Received {
    /// The payload as text; invalid UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// The first frame in `bytes` and its length there; `None` while it is incomplete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Received, usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    ensure!(first & 0x70 == 0 && first & 0x80 != 0 && second & 0x80 == 0, "not a server's frame: {first:x} {second:x}");
    let (length, rest) = match (second, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest),
        (126 | 127, _) => return Ok(None),
        (short, rest) => (u64::from(*short), rest),
    };
    let length = usize::try_from(length)?;
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let received = Received { opcode: first & 0x0F, payload: payload.into() };
    Ok(Some((received, bytes.len() - rest.len() + length)))
}
