//! What a connection reads from and writes to.
//!
//! Moves bytes, decides nothing. A socket of the kernel, and in simulations a pipe in memory.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

#[cfg(test)]
use crate::simulation::pipe::End;

/// One end of a connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(test)]
    Pipe(End),
}

impl Stream {
    /// Bytes read into `buffer`; `None` at the end of the stream, however it came.
    pub(super) fn poll_read(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let stream = match self {
            Self::Tcp(stream) => stream,
            #[cfg(test)]
            Self::Pipe(end) => {
                return end.poll_read(buffer, cx).map(|length| Some(length).filter(|length| *length > 0));
            }
        };
        let mut into = ReadBuf::new(buffer);
        match Pin::new(stream).poll_read(cx, &mut into) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !into.filled().is_empty() => Poll::Ready(Some(into.filled().len())),
            Poll::Ready(_) => Poll::Ready(None),
        }
    }

    /// Ready once a write that would have blocked may be tried again.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx).map(drop),
            #[cfg(test)]
            Self::Pipe(end) => end.poll_write_ready(cx),
        }
    }

    /// Writes as much as fits; [`io::ErrorKind::WouldBlock`] if nothing does.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            #[cfg(test)]
            Self::Pipe(end) => end.try_write(bytes),
        }
    }

    /// The same for several pieces in a row.
    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            #[cfg(test)]
            Self::Pipe(end) => {
                end.try_write(&slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>())
            }
        }
    }

    /// Says that no more will be written.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            #[cfg(test)]
            Self::Pipe(end) => end.shutdown(),
        }
    }

    /// Has the kernel forget the connection when it is dropped, with all that it holds for it.
    pub(super) fn reset(&self) {
        match self {
            // Fails only on a socket that is gone already.
            Self::Tcp(stream) => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
            #[cfg(test)]
            Self::Pipe(end) => end.reset(),
        }
    }
}
