//! The socket under a connection: opened here, plain or with TLS, and closed here even if the client library still runs.

use std::future::ready;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream as Socket};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_rs::Tokio;
use async_rs::traits::Reactor;
use futures_io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::url::Address;
use super::words::{IS_TLS, NO_AMQP};
use crate::broker::LinkError;

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// A connected socket. The client library goes on for as long as it lives.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    /// Nothing was read yet.
    fresh: bool,
    _hangup: Hangup,
}

/// Ends the socket when dropped, even if the client library still holds it.
pub(super) struct Hangup(Arc<Socket>);

impl Drop for Hangup {
    fn drop(&mut self) {
        // It may be closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

pub(super) async fn connect(address: &Address) -> Result<(Wire, Hangup), LinkError> {
    let Address { host, port, tls, .. } = address;
    let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(LinkError::new)?;
    socket.set_nodelay(true).map_err(LinkError::new)?;
    let same = Arc::new(Socket::from(socket.as_fd().try_clone_to_owned().map_err(LinkError::new)?));
    let [ours, theirs] = [Arc::clone(&same), same].map(Hangup);
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(socket),
        Some(tls) => {
            let connected = tls.connector.connect(tls.name.clone(), socket).await;
            Box::new(connected.map_err(|error| no_tls(&error))?)
        }
    };
    Ok((Wire { stream, fresh: true, _hangup: theirs }, ours))
}

/// Why TLS failed. RabbitMQ's plain port answers a greeting it does not understand with its own, which is no TLS.
fn no_tls(error: &io::Error) -> LinkError {
    let said = format!("TLS failed: {error}");
    let advice = "if this port speaks no TLS, the URL begins with amqp://";
    match error.kind() {
        // A RabbitMQ that stops ends a connection in the same way.
        io::ErrorKind::UnexpectedEof => LinkError::new(format!("{said}; {advice}")),
        _ if said.contains("InvalidContentType") => LinkError::set_up(format!("{said}; {advice}")),
        io::ErrorKind::InvalidData => LinkError::set_up(said),
        _ => LinkError::new(said),
    }
}

/// What answers instead of RabbitMQ, by the first bytes that it sends.
fn no_amqp(first: &[u8]) -> Option<&'static str> {
    match first.first()? {
        // A method's frame, or the greeting of another version.
        1 | b'A' => None,
        // An alert.
        0x15 => Some(IS_TLS),
        _ => Some(NO_AMQP),
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        if std::mem::take(&mut self.fresh)
            && let Some(why) = no_amqp(buffer.filled())
        {
            return Poll::Ready(Err(io::Error::other(why)));
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Makes [`Wire`] the client library's type of socket. The library opens none itself.
#[derive(Debug, Clone)]
pub(super) struct Wires(pub(super) Tokio);

impl Reactor for Wires {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Send + 'static>(&self, _: H) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Wire, _>(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl futures_util::Stream<Item = std::time::Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        ready(Err(io::Error::from(io::ErrorKind::Unsupported)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_protocol_is_known_by_its_first_byte() {
        assert_eq!(no_amqp(&[1, 0, 0]), None);
        assert_eq!(no_amqp(b"AMQP"), None);
        assert!(no_amqp(&[0x15, 3, 3]).is_some_and(|why| why.contains("amqps://")));
        assert!(no_amqp(b"HTTP/1.1 400").is_some_and(|why| why.contains("5672")));
    }
}
