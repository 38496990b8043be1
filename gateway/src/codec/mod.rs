//! The WebSocket wire format (RFC 6455): decodes bytes to events and encodes payloads to frames, for the server and, in
//! `fanfare probe`, for a client.
//!
//! Pure state: no sockets, no clock of its own, no tasks. Strict: everything that RFC 6455 forbids is a [`Violation`],
//! found as soon as the byte that breaks the rule arrives. Owns memory only while a frame or a message is incomplete,
//! and never more than the bytes received so far need.

mod decode;
mod encode;
mod frame;
mod utf8;

use std::borrow::Cow;
use std::time::Duration;

pub use decode::Decoder;
pub use encode::{Header, close, frame, header, masked, ping, pong};
pub use frame::Opcode;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const CONTROL_MAX: usize = 125;

/// Limits for the messages of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes of payload, over all its fragments.
    pub message: usize,
    /// The most data frames in one message; empty ones count.
    pub fragments: u32,
    /// The longest time from the first byte of a message, or of a control frame, to its last.
    pub message_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 64 * 1024, fragments: 16_384, message_time: Duration::from_secs(30) }
    }
}

/// The extensions that the handshake agreed on. They change which frames are legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions {
    /// The RSV bits (mask 0x70 of a frame's first byte) that have a meaning.
    reserved_bits: u8,
}

impl Extensions {
    /// No extension: every RSV bit is a protocol error.
    pub const fn none() -> Self {
        Self { reserved_bits: 0 }
    }
}

/// A complete message or control frame from the other side. Borrowed if it was a single frame that was contiguous in
/// the input, otherwise owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'b> {
    /// A text message: valid UTF-8, checked once, when its bytes arrived.
    Text(Cow<'b, str>),
    /// A binary message.
    Binary(Cow<'b, [u8]>),
    /// A ping of at most [`CONTROL_MAX`] bytes: answer with a [`pong()`] of the same payload.
    Ping(Cow<'b, [u8]>),
    /// A pong of at most [`CONTROL_MAX`] bytes, asked for or not.
    Pong(Cow<'b, [u8]>),
    /// The other side closes; `None` if it gave no code. Bytes after it must be ignored (RFC 6455 §5.5.1).
    Close(Option<CloseFrame>),
}

/// The code and reason of the other side's close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// A code that is allowed on the wire (RFC 6455 §7.4), so it may be echoed.
    pub code: u16,
    /// At most 123 bytes, often empty. Not trusted.
    pub reason: String,
}

/// How the other side broke the protocol or exceeded a limit. The connection must end: the decoder cannot be used
/// afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455 §5.1: a client masks every frame.
    #[error("a client frame is not masked")]
    Unmasked,
    /// RFC 6455 §5.1: a server masks no frame.
    #[error("a server frame is masked")]
    Masked,
    /// RFC 6455 §5.2: no agreed extension gives this RSV bit a meaning.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// RFC 6455 §5.2: opcodes 3-7 and 11-15.
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// RFC 6455 §5.5: control frames hold at most 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// RFC 6455 §5.5: control frames are never fragmented.
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// RFC 6455 §5.4: a continuation frame without a message to continue.
    #[error("a continuation frame continues nothing")]
    StrayContinuation,
    /// RFC 6455 §5.4: a new text or binary frame before the last fragment of a message.
    #[error("a new message begins inside a fragmented one")]
    Interleaved,
    /// RFC 6455 §5.2: the top bit of a 64-bit length is 0.
    #[error("a frame length has its top bit set")]
    LengthTopBit,
    /// RFC 6455 §5.2: the shortest encoding of a length must be used.
    #[error("a frame length is not minimally encoded")]
    LengthNotMinimal,
    /// RFC 6455 §5.5.1: a close payload is empty or begins with a 2-byte code.
    #[error("a close frame holds half a code")]
    CloseTruncated,
    /// RFC 6455 §7.4: the code is reserved, unassigned or out of range.
    #[error("close code {0} is not allowed on the wire")]
    CloseCode(u16),
    /// RFC 6455 §8.1: a text message or a close reason that is not UTF-8.
    #[error("text is not valid UTF-8")]
    BadUtf8,
    /// Longer than [`Limits::message`], in one frame or in many. Found before the payload is buffered.
    #[error("a message is too big")]
    MessageTooBig,
    /// More frames than [`Limits::fragments`].
    #[error("a message has too many fragments")]
    TooManyFragments,
    /// Not complete within [`Limits::message_time`].
    #[error("a message took too long to arrive")]
    MessageTooSlow,
}
