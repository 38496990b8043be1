//! Accepts sockets and spreads them over the workers.
//!
//! Owns the listening socket and the count of open connections. A full node answers 503 with `Retry-After`
//! before it spends anything on the client. Loses: nothing but what it refuses.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Connections that the kernel completes while we are busy.
const BACKLOG: i32 = 4096;

/// Unsent bytes that the kernel holds for one socket before it makes us wait (`TCP_NOTSENT_LOWAT`): without
/// it, megabytes hide there, and a client that does not read is noticed late.
const UNSENT: u32 = 64 << 10;

/// The answer of a full node.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 51\r\n\r\nThis node has no room for more connections: retry.\n";

/// A socket with its address and its place in the count.
pub(crate) type Accepted = (TcpStream, SocketAddr, Admission);

/// A connection's place in the node's count and in its worker's; given back when dropped.
pub(crate) struct Admission {
    counts: Arc<Counts>,
    worker: usize,
}

struct Counts {
    open: AtomicUsize,
    workers: Box<[AtomicUsize]>,
}

impl Admission {
    /// A place in the least busy worker, unless `most` are open already.
    fn take(counts: &Arc<Counts>, most: usize) -> Option<Self> {
        if counts.open.load(Ordering::Relaxed) >= most {
            return None;
        }
        let (worker, load) = counts.workers.iter().enumerate().min_by_key(|(_, load)| load.load(Ordering::Relaxed))?;
        counts.open.fetch_add(1, Ordering::Relaxed);
        load.fetch_add(1, Ordering::Relaxed);
        Some(Self { counts: Arc::clone(counts), worker })
    }
}

#[cfg(test)]
impl Admission {
    /// A place in a worker that no listener leads to.
    pub(crate) fn unlisted() -> Self {
        let counts = Counts { open: AtomicUsize::new(1), workers: Box::new([AtomicUsize::new(1)]) };
        Self { counts: Arc::new(counts), worker: 0 }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        self.counts.workers[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A bound listening socket.
pub(crate) struct Listener {
    socket: tokio::net::TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = tokio::net::TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Accepts for ever.
    pub(crate) async fn run(self, workers: Vec<mpsc::Sender<Accepted>>, most: usize, metrics: Arc<Metrics>) {
        let loads = workers.iter().map(|_| AtomicUsize::new(0)).collect();
        let counts = Arc::new(Counts { open: AtomicUsize::new(0), workers: loads });
        loop {
            let (stream, peer) = match self.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: those that wait are served when some are free again.
                    tracing::warn!(%error, "cannot accept connections; raise the limit of open files (ulimit -n)");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(admission) = Admission::take(&counts, most) else {
                metrics.refused();
                // A fresh socket takes so few bytes at once; if not, the client sees a plain close.
                let _ = (&stream).write(FULL);
                continue;
            };
            let worker = admission.worker;
            if prepare(&stream).is_ok() && workers[worker].send((stream, peer, admission)).await.is_err() {
                return;
            }
        }
    }

    async fn accept(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        loop {
            match self.socket.accept().await {
                // The worker's own runtime will watch it.
                Ok((stream, peer)) => return Ok((stream.into_std()?, peer)),
                Err(error) if is_about_the_client(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Errors of a connection that was gone before it was accepted.
fn is_about_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_full_node_has_the_length_it_says() {
        let text = std::str::from_utf8(FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
