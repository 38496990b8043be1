//! The listener of the API and its connections.
//!
//! Owns at most [`CONNECTIONS`] connections; further ones wait in the kernel. While the node drains, it serves as before, and
//! stops when the last client has left: requests under way get their answers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Api;
use crate::door::listener::{self, WARNING_INTERVAL, endure};
use crate::node::drain::Phase;
use crate::sparingly::Sparingly;

/// The most connections at a time.
pub(crate) const CONNECTIONS: usize = 256;

/// How long a connection may be idle, and how long the head of a request may take. Longer than the pools of usual clients keep
/// a connection, so that they do not send into one that is just being closed.
const IDLE: Duration = Duration::from_secs(75);

/// The most bytes and lines of a request's head.
const HEAD_BYTES: usize = 32 << 10;
const HEAD_LINES: usize = 64;

/// How long a client may leave an answer unread.
const UNREAD: Duration = Duration::from_secs(10);

/// How long requests may be under way when the node stops.
const LAST: Duration = Duration::from_secs(5);

/// A bound listener.
pub(crate) struct Listener {
    socket: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listener {
    /// Binds to an address, or if `anywhere`, to a free port of it when its own is in use.
    pub(crate) fn bind(address: SocketAddr, anywhere: bool) -> io::Result<Self> {
        let socket = listener::bind(address).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse if anywhere => listener::bind(SocketAddr::new(address.ip(), 0)),
            _ => Err(error),
        })?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Serves until the node's phase is over and all requests are answered, or until the listening socket fails.
    pub(crate) async fn run(self, api: Arc<Api>, mut phase: watch::Receiver<Phase>) {
        let (places, lines) = (Arc::new(Semaphore::new(CONNECTIONS)), Sparingly::per(WARNING_INTERVAL));
        let (mut connections, over) = (JoinSet::new(), phase.clone());
        let mut end = pin!(until_over(&mut phase));
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.socket.accept().await)
            };
            tokio::select! {
                (place, accepted) = accept => match accepted {
                    Ok((stream, peer)) => {
                        let serving = serve(Arc::clone(&api), stream, peer, over.clone());
                        connections.spawn(async move {
                            serving.await;
                            drop(place);
                        });
                    }
                    Err(error) if endure(&error, "the API", &lines).await => {}
                    Err(_) => return,
                },
                Some(_) = connections.join_next() => {}
                () = &mut end => break,
            }
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }
}

async fn until_over(phase: &mut watch::Receiver<Phase>) {
    // An error means that the node is gone, so it is over too.
    let _ = phase.wait_for(|phase| *phase == Phase::Over).await;
}

async fn serve(api: Arc<Api>, stream: TcpStream, peer: SocketAddr, mut phase: watch::Receiver<Phase>) {
    // These fail only if the socket is closed already.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD));
    let service = service_fn(|request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(HEAD_LINES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = until_over(&mut phase) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection to the API failed");
    }
}
