//! Non-blocking writes to a socket over TLS.
//!
//! At most one record waits here for the kernel. The rest stays in the outbox, which has a limit.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::server::TlsStream;

/// The most bytes to encrypt ahead of the kernel: the content of one TLS record.
const RECORD: usize = 16 << 10;

/// Limits the bytes that wait here to one record.
pub(super) fn bound(tls: &mut TlsStream<TcpStream>) {
    tls.get_mut().1.set_buffer_limit(Some(RECORD));
}

/// Encrypts and writes bytes, but only after the kernel has taken all bytes that were encrypted before.
pub(super) fn write(
    tls: &mut TlsStream<TcpStream>,
    write: impl FnOnce(&mut ServerConnection) -> io::Result<usize>,
) -> io::Result<usize> {
    flush(tls)?;
    let written = write(tls.get_mut().1)?;
    match flush(tls) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(written),
    }
}

/// Passes encrypted bytes to the kernel; [`ErrorKind::WouldBlock`] if some are left.
pub(super) fn flush(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let (tcp, session) = tls.get_mut();
    while session.wants_write() {
        session.write_tls(&mut Now(tcp))?;
    }
    Ok(())
}

/// Closes the write side. Sends TLS's `close_notify` first (RFC 8446 §6.1), if the socket has room for it.
pub(super) fn shutdown(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    tls.get_mut().1.send_close_notify();
    let _ = flush(tls);
    SockRef::from(tls.get_ref().0).shutdown(Shutdown::Write)
}

/// A writer that never waits: it writes what the kernel takes now.
struct Now<'a>(&'a TcpStream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
