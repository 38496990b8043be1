//! Accepts sockets and distributes them over the workers.
//!
//! Owns the listening socket and the count of open connections. It answers 503 with `Retry-After` if the node is full, has
//! too few descriptors, or has reached its accept rate. A refusal happens before any other work for the client.

mod lingering;
mod trouble;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::mpsc;

use self::lingering::Lingering;
pub(crate) use self::trouble::{WARNING_INTERVAL, endure};
use crate::door::BACKLOG;
use crate::door::ingress::{Ingress, Place};
use crate::node::descriptors::Descriptors;
use crate::node::metrics::{Metrics, Refused};
use crate::sparingly::Sparingly;

/// The most unsent bytes that the kernel holds for one socket before writes wait (`TCP_NOTSENT_LOWAT`). Without this limit
/// the kernel buffers megabytes, and the node notices late that a client does not read.
const UNSENT: u32 = 64 << 10;

/// A socket with its peer's address and its place in the counts.
pub(crate) type Accepted = (TcpStream, SocketAddr, Admission);

/// A connection's place in the counts of the node, its worker and its client's address. Dropping it frees the place.
pub(crate) struct Admission {
    counts: Arc<Counts>,
    worker: u32,
    /// `None` until the client's address is known, and for addresses that are not counted.
    pub(crate) place: Option<Place>,
}

/// The open connections of the node and of each worker.
pub(crate) struct Counts {
    most: usize,
    open: AtomicUsize,
    workers: Box<[AtomicUsize]>,
}

impl Counts {
    pub(crate) fn new(workers: usize, most: usize) -> Self {
        let workers = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self { most, open: AtomicUsize::new(0), workers }
    }

    /// Whether the node has as many connections as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.most
    }
}

impl Admission {
    /// Takes a place in the least busy worker; `None` if the node is full.
    fn take(counts: &Arc<Counts>) -> Option<Self> {
        if counts.is_full() {
            return None;
        }
        let (worker, load) = counts.workers.iter().enumerate().min_by_key(|(_, load)| load.load(Ordering::Relaxed))?;
        let worker = u32::try_from(worker).ok()?;
        counts.open.fetch_add(1, Ordering::Relaxed);
        load.fetch_add(1, Ordering::Relaxed);
        Some(Self { counts: Arc::clone(counts), worker, place: None })
    }
}

#[cfg(test)]
impl Admission {
    /// A place that belongs to no listener.
    pub(crate) fn unlisted() -> Self {
        let counts = Counts { most: 1, open: AtomicUsize::new(1), workers: Box::new([AtomicUsize::new(1)]) };
        Self { counts: Arc::new(counts), worker: 0, place: None }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        self.counts.workers[self.worker as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a listener needs to decide on refusals and to count them.
pub(crate) struct Refusing {
    pub(crate) ingress: Arc<Ingress>,
    pub(crate) metrics: Arc<Metrics>,
    /// The limit that the operator configured (`http.max_connections`).
    pub(crate) most: usize,
}

/// A bound listening socket.
pub(crate) struct Listener {
    socket: tokio::net::TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = bind(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Accepts connections until the socket is broken or the workers are gone.
    pub(crate) async fn run(
        self,
        workers: Vec<mpsc::Sender<Accepted>>,
        counts: Arc<Counts>,
        files: Descriptors,
        refusing: Refusing,
    ) {
        let (mut lingering, lines) = (Lingering::default(), Sparingly::per(WARNING_INTERVAL));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = lingering.expire() => continue,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if endure(&error, "the listener", &lines).await => continue,
                Err(_) => return,
            };
            let reserved = files.is_reserved(stream.as_raw_fd());
            let admission = match Admission::take(&counts) {
                _ if reserved => Err(Refused::Descriptors),
                None if counts.most < refusing.most => Err(Refused::Descriptors),
                None => Err(Refused::Full),
                Some(_) if !refusing.ingress.lets_in(peer) => Err(Refused::Rate),
                Some(admission) => Ok(admission),
            };
            let admission = match admission {
                Ok(admission) => admission,
                Err(why) => {
                    refusing.metrics.refused(why);
                    if why == Refused::Descriptors
                        && let Some(clients) = lines.due(Instant::now())
                    {
                        tracing::warn!(
                            clients,
                            "clients are refused: the descriptors left are reserved for the node; \
                            raise the limit of open files (ulimit -n; systemd: LimitNOFILE)"
                        );
                    }
                    if reserved {
                        // Drop it at once: keeping it open would use a descriptor that the node may need.
                        lingering::dismiss(&stream);
                    } else {
                        lingering.refuse(stream);
                    }
                    continue;
                }
            };
            let worker = admission.worker as usize;
            if prepare(&stream).is_ok() && workers[worker].send((stream, peer, admission)).await.is_err() {
                return;
            }
        }
    }

    async fn accept(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        // Detach it from this runtime: the worker's runtime polls it.
        Ok((stream.into_std()?, peer))
    }
}

/// Binds a listening socket, even if connections of an earlier listener are still open. `[::]` means all addresses of the
/// machine, also IPv4, regardless of `net.ipv6.bindv6only`. If the kernel has no IPv6, `[::]` means all IPv4 addresses.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    let every = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port()) == address;
    let socket = match Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)) {
        Err(_) if every => return bind((Ipv4Addr::UNSPECIFIED, address.port()).into()),
        made => made?,
    };
    if every {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}
