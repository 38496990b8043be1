//! Accepts sockets and spreads them over the workers.
//!
//! Owns the listening socket and the count of open connections. A node that is full, short of descriptors, or taking
//! connections as fast as it may, answers 503 with `Retry-After` before it spends anything on the client. Loses: nothing
//! but what it refuses.

mod parting;
mod trouble;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::mpsc;

use self::parting::Parting;
pub(crate) use self::trouble::{SAID, endure};
use crate::door::BACKLOG;
use crate::door::ingress::{Ingress, Place};
use crate::node::descriptors::Descriptors;
use crate::node::metrics::{Metrics, Refused};
use crate::sparingly::Sparingly;

/// Unsent bytes that the kernel holds for one socket before it makes us wait (`TCP_NOTSENT_LOWAT`): without
/// it, megabytes hide there, and a client that does not read is noticed late.
const UNSENT: u32 = 64 << 10;

/// A socket with its address and its place in the count.
pub(crate) type Accepted = (TcpStream, SocketAddr, Admission);

/// A connection's place in the counts of the node, of its worker and of its client's address; given back when dropped.
pub(crate) struct Admission {
    counts: Arc<Counts>,
    worker: usize,
    /// None before the address is known, and for those that are not counted.
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

    /// Whether there is room for no more.
    pub(crate) fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.most
    }
}

impl Admission {
    /// A place in the least busy worker, unless the node is full.
    fn take(counts: &Arc<Counts>) -> Option<Self> {
        if counts.is_full() {
            return None;
        }
        let (worker, load) = counts.workers.iter().enumerate().min_by_key(|(_, load)| load.load(Ordering::Relaxed))?;
        counts.open.fetch_add(1, Ordering::Relaxed);
        load.fetch_add(1, Ordering::Relaxed);
        Some(Self { counts: Arc::clone(counts), worker, place: None })
    }
}

#[cfg(test)]
impl Admission {
    /// A place in a worker that no listener leads to.
    pub(crate) fn unlisted() -> Self {
        let counts = Counts { most: 1, open: AtomicUsize::new(1), workers: Box::new([AtomicUsize::new(1)]) };
        Self { counts: Arc::new(counts), worker: 0, place: None }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        self.counts.workers[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a listener needs to refuse sockets.
pub(crate) struct Refusing {
    pub(crate) ingress: Arc<Ingress>,
    pub(crate) metrics: Arc<Metrics>,
    /// The connections that the operator allows.
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

    /// Accepts until the socket or the workers are gone.
    pub(crate) async fn run(
        self,
        workers: Vec<mpsc::Sender<Accepted>>,
        counts: Arc<Counts>,
        files: Descriptors,
        refusing: Refusing,
    ) {
        let (mut parting, lines) = (Parting::default(), Sparingly::per(SAID));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = parting.let_go() => continue,
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
                            "clients are refused: the descriptors left are the node's own; \
                            raise the limit of open files (ulimit -n; systemd: LimitNOFILE)"
                        );
                    }
                    if reserved {
                        // At once: to keep it for a moment would take a descriptor that the node may need.
                        parting::dismiss(&stream);
                    } else {
                        parting.refuse(stream);
                    }
                    continue;
                }
            };
            let worker = admission.worker;
            if prepare(&stream).is_ok() && workers[worker].send((stream, peer, admission)).await.is_err() {
                return;
            }
        }
    }

    async fn accept(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        // The worker's own runtime will watch it.
        Ok((stream.into_std()?, peer))
    }
}

/// A socket that listens, also where one that did before still has connections. `[::]` is every address of the machine:
/// IPv4 as well, whatever `net.ipv6.bindv6only` says, and IPv4 alone where the kernel has no IPv6.
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
