//! The byte stream of a connection: a TCP socket, with or without TLS, or a pipe in memory in simulations.
//!
//! Moves bytes and decides nothing. It is an enum, not a trait object, so that a write to a plain socket costs no dynamic
//! dispatch.

mod encrypted;
mod http;

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

#[cfg(test)]
use crate::simulation::pipe::End;

/// The node's end of a connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// After the handshake. Boxed, so that it does not enlarge plain connections.
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    Pipe(End),
}

impl Stream {
    /// A stream over TLS, after the handshake.
    pub(crate) fn encrypted(mut tls: TlsStream<TcpStream>) -> Self {
        encrypted::bound(&mut tls);
        Self::Tls(Box::new(tls))
    }

    /// Reads into `buffer` and returns the number of bytes; `None` at the end of the stream or after an error.
    pub(crate) fn poll_read(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let mut into = ReadBuf::new(buffer);
        let read = match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, &mut into),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, &mut into),
            #[cfg(test)]
            Self::Pipe(end) => {
                return end.poll_read(buffer, cx).map(|length| Some(length).filter(|length| *length > 0));
            }
        };
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if !into.filled().is_empty() => Poll::Ready(Some(into.filled().len())),
            Poll::Ready(_) => Poll::Ready(None),
        }
    }

    /// Ready when a write that would have blocked can be tried again.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_ready(cx).map(drop),
            Self::Tls(tls) => tls.get_ref().0.poll_write_ready(cx).map(drop),
            #[cfg(test)]
            Self::Pipe(end) => end.poll_write_ready(cx),
        }
    }

    /// Writes as many bytes as fit; [`io::ErrorKind::WouldBlock`] if none do.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => encrypted::write(tls, |session| session.writer().write(bytes)),
            #[cfg(test)]
            Self::Pipe(end) => end.try_write(bytes),
        }
    }

    /// Writes several slices as [`try_write`](Self::try_write) writes one.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write_vectored(slices),
            Self::Tls(tls) => encrypted::write(tls, |session| session.writer().write_vectored(slices)),
            #[cfg(test)]
            Self::Pipe(end) => {
                end.try_write(&slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>())
            }
        }
    }

    /// Passes buffered TLS records to the kernel; [`io::ErrorKind::WouldBlock`] if some are left.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) => encrypted::flush(tls),
            _ => Ok(()),
        }
    }

    /// Closes the write side.
    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => SockRef::from(&*tcp).shutdown(Shutdown::Write),
            Self::Tls(tls) => encrypted::shutdown(tls),
            #[cfg(test)]
            Self::Pipe(end) => end.shutdown(),
        }
    }

    /// Makes the drop of this stream a reset: the kernel discards the unsent bytes.
    pub(crate) fn reset(&self) {
        match self {
            #[cfg(test)]
            Self::Pipe(end) => end.reset(),
            // Fails only if the socket is closed already.
            _ => drop(self.tcp().map(|tcp| SockRef::from(tcp).set_linger(Some(Duration::ZERO)))),
        }
    }

    /// Sets how long the client may accept no bytes before the kernel ends the connection (`TCP_USER_TIMEOUT`); `None`
    /// removes this limit.
    pub(crate) fn set_unread(&self, most: Option<Duration>) {
        // Fails only if the socket is closed already.
        let _ = self.tcp().map(|tcp| SockRef::from(tcp).set_tcp_user_timeout(most));
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0),
            #[cfg(test)]
            Self::Pipe(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_does_not_enlarge_a_plain_connection() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }
}
