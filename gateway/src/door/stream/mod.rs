//! What a connection reads from and writes to.
//!
//! Moves bytes, decides nothing. A socket of the kernel, as it is or with TLS over it, and in simulations a pipe in memory.
//! An enum and not a trait object: writing to a plain socket is a match away from the kernel.

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

/// One end of a connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// After its handshake. Boxed: a plain connection must not pay for its size.
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    Pipe(End),
}

impl Stream {
    /// Over TLS, once its handshake is done.
    pub(crate) fn encrypted(mut tls: TlsStream<TcpStream>) -> Self {
        encrypted::bound(&mut tls);
        Self::Tls(Box::new(tls))
    }

    /// Bytes read into `buffer`; `None` at the end of the stream, however it came.
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

    /// Ready once a write that would have blocked may be tried again.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_ready(cx).map(drop),
            Self::Tls(tls) => tls.get_ref().0.poll_write_ready(cx).map(drop),
            #[cfg(test)]
            Self::Pipe(end) => end.poll_write_ready(cx),
        }
    }

    /// Writes as much as fits; [`io::ErrorKind::WouldBlock`] if nothing does.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => encrypted::write(tls, |session| session.writer().write(bytes)),
            #[cfg(test)]
            Self::Pipe(end) => end.try_write(bytes),
        }
    }

    /// The same for several pieces in a row.
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

    /// Hands on to the kernel what was written and is still here; [`io::ErrorKind::WouldBlock`] if some is left.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) => encrypted::flush(tls),
            _ => Ok(()),
        }
    }

    /// Says that no more will be written.
    pub(crate) fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => SockRef::from(&*tcp).shutdown(Shutdown::Write),
            Self::Tls(tls) => encrypted::shutdown(tls),
            #[cfg(test)]
            Self::Pipe(end) => end.shutdown(),
        }
    }

    /// Has the kernel forget the connection when it is dropped, with all that it holds for it.
    pub(crate) fn reset(&self) {
        match self {
            #[cfg(test)]
            Self::Pipe(end) => end.reset(),
            // Fails only on a socket that is gone already.
            _ => drop(self.tcp().map(|tcp| SockRef::from(tcp).set_linger(Some(Duration::ZERO)))),
        }
    }

    /// Has the kernel give up on who takes nothing for so long; `None`: never.
    pub(crate) fn set_unread(&self, most: Option<Duration>) {
        // Fails only on a socket that is gone already.
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
    fn a_plain_connection_does_not_pay_for_tls() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }
}
