//! One connection to Redis on which each request waits for the replies of the one before.
//!
//! Reads each reply as a whole into one buffer, where it stays until the next is asked for. Dropping a future loses nothing:
//! the request goes on, and its reply is still to come.

use std::io;

use bytes::{Buf, BytesMut};
use redis::{Cmd, Pipeline, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::reply::Extent;

/// The room that a read has at least.
const ROOM: usize = 16 << 10;
/// The room that is kept after a large reply.
const KEPT: usize = 1 << 20;

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A connection. Dropping it closes it.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    /// What is to be sent.
    out: BytesMut,
    buffer: Vec<u8>,
    /// The length of the reply that was given last, at the beginning of `buffer`.
    given: usize,
    extent: Extent,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, out: BytesMut::new(), buffer: Vec::new(), given: 0, extent: Extent::default() }
    }

    /// The connection itself. No reply is under way.
    pub(super) fn into_stream(self) -> Box<dyn Stream> {
        self.stream
    }

    /// Sends commands and waits for one answer to each. An answer may be an error of the server.
    pub(super) async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, String> {
        self.out.extend_from_slice(&pipeline.get_packed_pipeline());
        let mut answers = Vec::with_capacity(pipeline.len());
        for _ in 0..pipeline.len() {
            let reply = self.reply().await.map_err(|error| error.to_string())?;
            answers.push(redis::parse_redis_value(reply).map_err(|error| error.to_string())?);
        }
        Ok(answers)
    }

    /// Sends a command with the next wait for its reply.
    pub(super) fn send(&mut self, command: &Cmd) {
        self.out.extend_from_slice(&command.get_packed_command());
    }

    /// The next reply, as its bytes stand on the wire.
    pub(super) async fn reply(&mut self) -> io::Result<&[u8]> {
        self.buffer.drain(..std::mem::take(&mut self.given));
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT);
        }
        while self.out.has_remaining() {
            self.stream.write_buf(&mut self.out).await?;
        }
        self.stream.flush().await?;
        loop {
            let end =
                self.extent.find(&self.buffer).map_err(|wrong| io::Error::new(io::ErrorKind::InvalidData, wrong))?;
            if let Some(end) = end {
                (self.given, self.extent) = (end, Extent::default());
                return Ok(&self.buffer[..end]);
            }
            self.buffer.reserve(ROOM);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "Redis closed the connection"));
            }
        }
    }
}
