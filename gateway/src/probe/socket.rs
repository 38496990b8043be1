//! An open WebSocket on the client's side.
//!
//! Owns the stream. Answers nothing by itself: what a ping gets is for the step that holds the socket to say.

use std::io::{self, ErrorKind};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{self, CloseFrame, Decoder, Event, Extensions, Limits, Opcode};

/// What a socket runs over: TCP, or TLS on it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// The least room for one read, in bytes.
const READ: usize = 4 << 10;
/// The longest message that is read, in bytes.
const LONGEST: usize = 1 << 20;

/// An open WebSocket.
pub(super) struct Socket {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    limits: Limits,
    input: Vec<u8>,
    /// When the 101 had come.
    pub(super) opened: tokio::time::Instant,
    /// The node it is on, where that is known.
    pub(super) node: Option<String>,
    /// It speaks the native protocol.
    pub(super) native: bool,
}

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong,
}

/// How a connection ended, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// With a close frame.
    Close(Option<CloseFrame>),
    /// With the end of the stream and no close frame.
    Fin,
    /// With a reset.
    Reset,
    /// With an error of this machine, such as a time-out of TCP.
    Broken(String),
    /// By us: what came is against RFC 6455.
    Nonsense(String),
}

impl End {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            // rustls: the stream ended without a close_notify.
            ErrorKind::UnexpectedEof => Self::Fin,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Self::Reset,
            _ => Self::Broken(error.to_string()),
        }
    }

    /// In a few words that follow "closed" or "ended".
    pub(super) fn words(&self) -> String {
        match self {
            Self::Close(None) => "by a close frame without a code".to_owned(),
            Self::Close(Some(frame)) => {
                let reason = super::step::tame(&frame.reason);
                let reason = if reason.is_empty() { reason } else { format!(" ({reason})") };
                format!("by a close frame, {}{reason}", frame.code)
            }
            Self::Fin => "by FIN without a close frame".to_owned(),
            Self::Reset => "by a reset (RST)".to_owned(),
            Self::Broken(why) => format!("by an error: {why}"),
            Self::Nonsense(why) => format!("by us: {why}"),
        }
    }
}

impl Socket {
    /// A stream after its 101; `input` is what came behind that.
    pub(super) fn new(stream: Box<dyn Stream>, input: Vec<u8>) -> Self {
        let limits = Limits { message: LONGEST, ..Limits::default() };
        let decoder = Decoder::of_client(Extensions::none());
        let opened = tokio::time::Instant::now();
        Self { stream, decoder, limits, input, opened, node: None, native: false }
    }

    /// The next thing that comes. May be dropped while it waits, and loses nothing by that.
    pub(super) async fn next(&mut self) -> Result<Heard, End> {
        loop {
            if let Some(heard) = self.decode()? {
                return Ok(heard);
            }
            self.input.reserve(READ);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(End::Fin),
                Ok(_) => {}
                Err(error) => return Err(End::of(&error)),
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Heard>, End> {
        let length = self.input.len();
        let mut rest = &mut self.input[..];
        let heard = match self.decoder.next(&mut rest, &self.limits, Instant::now()) {
            Ok(None) => None,
            Ok(Some(Event::Text(text))) => Some(Heard::Text(text.into_owned())),
            Ok(Some(Event::Binary(_))) => Some(Heard::Binary),
            Ok(Some(Event::Ping(payload))) => Some(Heard::Ping(payload.into_owned())),
            Ok(Some(Event::Pong(_))) => Some(Heard::Pong),
            Ok(Some(Event::Close(frame))) => return Err(End::Close(frame)),
            Err(violation) => return Err(End::Nonsense(violation.to_string())),
        };
        let used = length - rest.len();
        self.input.drain(..used);
        Ok(heard)
    }

    /// Sends one frame.
    pub(super) async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
        let frame = codec::masked(opcode, payload, fastrand::u32(..).to_ne_bytes());
        let sent = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| End::of(&error))
    }

    /// The next text; pings are answered.
    pub(super) async fn text(&mut self) -> Result<String, End> {
        loop {
            match self.next().await? {
                Heard::Text(text) => return Ok(text),
                Heard::Ping(payload) => self.send(Opcode::Pong, &payload).await?,
                Heard::Binary | Heard::Pong => {}
            }
        }
    }

    /// Says good-bye, and does not wait for an answer.
    pub(super) async fn leave(mut self) {
        // Whoever has gone already needs no good-bye.
        let _ = self.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_whole_and_the_end_says_how() {
        let (client, mut server) = tokio::io::duplex(64);
        let mut socket = Socket::new(Box::new(client), b"\x81".to_vec());
        server.write_all(b"\x02hi\x89\x01?").await.expect("it is open");
        assert_eq!(socket.next().await, Ok(Heard::Text("hi".into())));
        assert_eq!(socket.next().await, Ok(Heard::Ping(b"?".to_vec())));
        server.write_all(b"\x88\x06\x03\xF4gone").await.expect("it is open");
        let end = socket.next().await.expect_err("closed");
        assert_eq!(end.words(), "by a close frame, 1012 (gone)");
    }

    #[tokio::test]
    async fn a_server_that_masks_is_found_out() {
        let (client, mut server) = tokio::io::duplex(64);
        let mut socket = Socket::new(Box::new(client), Vec::new());
        server.write_all(b"\x81\x82\x00\x00\x00\x00hi").await.expect("it is open");
        assert_eq!(socket.next().await, Err(End::Nonsense("a server frame is masked".into())));
        drop(server);
        let mut socket = Socket::new(Box::new(tokio::io::duplex(1).0), Vec::new());
        assert_eq!(socket.next().await, Err(End::Fin));
    }
}
