//! An open WebSocket, as the client.
//!
//! Owns the stream. [`Socket::next`] answers nothing: the step that holds the socket decides whether to answer a ping.

use std::io::{self, ErrorKind};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{self, CloseFrame, Decoder, Event, Extensions, Limits, Opcode};

/// The stream under a socket: TCP, or TLS over TCP.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Bytes of buffer reserved for each read.
const READ: usize = 4 << 10;
/// The longest message that is accepted, in bytes.
const LONGEST: usize = 16 << 20;

/// An open WebSocket.
pub(crate) struct Socket {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    limits: Limits,
    input: Vec<u8>,
    /// When the 101 arrived.
    pub(crate) opened: tokio::time::Instant,
    /// Its node, if known.
    pub(crate) node: Option<String>,
    /// Whether it speaks the native protocol.
    pub(crate) native: bool,
}

/// A message or control frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong,
}

/// How a connection ended, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With a close frame.
    Close(Option<CloseFrame>),
    /// With a FIN but no close frame.
    Fin,
    /// With a reset.
    Reset,
    /// With another I/O error, such as a TCP time-out.
    Broken(String),
    /// This side closed it, because the server violated RFC 6455.
    Violation(String),
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

    /// A few words to follow "closed" or "ended".
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Close(None) => "by a close frame without a code".to_owned(),
            Self::Close(Some(frame)) => {
                let reason = super::trouble::tame(&frame.reason);
                let reason = if reason.is_empty() { reason } else { format!(" ({reason})") };
                format!("by a close frame, {}{reason}", frame.code)
            }
            Self::Fin => "by FIN without a close frame".to_owned(),
            Self::Reset => "by a reset (RST)".to_owned(),
            Self::Broken(why) => format!("by an error: {why}"),
            Self::Violation(why) => format!("by us: {why}"),
        }
    }
}

impl Socket {
    /// Wraps a stream after its 101; `input` holds the bytes received after it.
    pub(crate) fn new(stream: Box<dyn Stream>, input: Vec<u8>) -> Self {
        let limits = Limits { message: LONGEST, ..Limits::default() };
        let decoder = Decoder::of_client(Extensions::none());
        let opened = tokio::time::Instant::now();
        Self { stream, decoder, limits, input, opened, node: None, native: false }
    }

    /// Waits for the next message or control frame. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Incoming, End> {
        loop {
            if let Some(incoming) = self.decode()? {
                return Ok(incoming);
            }
            self.input.reserve(READ);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(End::Fin),
                Ok(_) => {}
                Err(error) => return Err(End::of(&error)),
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Incoming>, End> {
        let length = self.input.len();
        let mut rest = &mut self.input[..];
        let incoming = match self.decoder.next(&mut rest, &self.limits, Instant::now()) {
            Ok(None) => None,
            Ok(Some(Event::Text(text))) => Some(Incoming::Text(text.into_owned())),
            Ok(Some(Event::Binary(_))) => Some(Incoming::Binary),
            Ok(Some(Event::Ping(payload))) => Some(Incoming::Ping(payload.into_owned())),
            Ok(Some(Event::Pong(_))) => Some(Incoming::Pong),
            Ok(Some(Event::Close(frame))) => return Err(End::Close(frame)),
            Err(violation) => return Err(End::Violation(violation.to_string())),
        };
        let used = length - rest.len();
        self.input.drain(..used);
        Ok(incoming)
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
        let frame = codec::masked(opcode, payload, fastrand::u32(..).to_ne_bytes());
        let sent = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| End::of(&error))
    }

    /// Waits for the next text, and answers pings meanwhile.
    pub(crate) async fn text(&mut self) -> Result<String, End> {
        loop {
            match self.next().await? {
                Incoming::Text(text) => return Ok(text),
                Incoming::Ping(payload) => self.send(Opcode::Pong, &payload).await?,
                Incoming::Binary | Incoming::Pong => {}
            }
        }
    }

    /// Sends a close frame and drops the connection without waiting for the reply.
    pub(crate) async fn leave(mut self) {
        // Fails if the server has closed the connection already.
        let _ = self.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_decoded_across_reads_and_a_close_frame_is_named() {
        let (client, mut server) = tokio::io::duplex(64);
        let mut socket = Socket::new(Box::new(client), b"\x81".to_vec());
        server.write_all(b"\x02hi\x89\x01?").await.expect("it is open");
        assert_eq!(socket.next().await, Ok(Incoming::Text("hi".into())));
        assert_eq!(socket.next().await, Ok(Incoming::Ping(b"?".to_vec())));
        server.write_all(b"\x88\x06\x03\xF4gone").await.expect("it is open");
        let end = socket.next().await.expect_err("closed");
        assert_eq!(end.words(), "by a close frame, 1012 (gone)");
    }

    #[tokio::test]
    async fn a_masked_frame_from_a_server_is_a_violation() {
        let (client, mut server) = tokio::io::duplex(64);
        let mut socket = Socket::new(Box::new(client), Vec::new());
        server.write_all(b"\x81\x82\x00\x00\x00\x00hi").await.expect("it is open");
        assert_eq!(socket.next().await, Err(End::Violation("a server frame is masked".into())));
        drop(server);
        let mut socket = Socket::new(Box::new(tokio::io::duplex(1).0), Vec::new());
        assert_eq!(socket.next().await, Err(End::Fin));
    }
}
