//! Writing to a socket with TLS over it, at once or not at all.
//!
//! No more than one record waits here for the kernel; the rest stays in the outbox, where it is counted.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::server::TlsStream;

/// Bytes of messages that are encrypted before the kernel took those before: the most that a TLS record holds.
const RECORD: usize = 16 << 10;

/// Lets no more wait here.
pub(super) fn bound(tls: &mut TlsStream<TcpStream>) {
    tls.get_mut().1.set_buffer_limit(Some(RECORD));
}

/// Encrypts more only when the kernel has what was encrypted before.
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

/// Hands on to the kernel what is encrypted; [`ErrorKind::WouldBlock`] if some is left.
pub(super) fn flush(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let (tcp, session) = tls.get_mut();
    while session.wants_write() {
        session.write_tls(&mut Now(tcp))?;
    }
    Ok(())
}

/// Says that nothing more will come. TLS has a word of its own for it (RFC 8446 §6.1); a client whose socket takes
/// nothing goes without.
pub(super) fn shutdown(tls: &mut TlsStream<TcpStream>) -> io::Result<()> {
    tls.get_mut().1.send_close_notify();
    let _ = flush(tls);
    SockRef::from(tls.get_ref().0).shutdown(Shutdown::Write)
}

/// Writes what the kernel takes at once.
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
