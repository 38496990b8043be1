//! A TCP proxy between a node and its broker that can be cut, stalled, and led elsewhere.
//!
//! Cut: connections end with a reset, and so does every new one. Stalled: bytes of a direction vanish, without
//! a reset, for as long as the connection lives, even after the wire is mended.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::home::home;

/// A direction of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What nodes say.
    ToBroker,
    /// What they hear.
    FromBroker,
}

/// How the wire treats its connections.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    cut: bool,
    /// How often it was cut: a connection ends when this changes.
    cuts: u64,
    /// Which directions are dead.
    dead: [bool; 2],
    /// How many connections there are.
    live: usize,
    /// Where new connections go, if not to the broker that it was made for.
    elsewhere: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when a connection has ended.
    ended: Condvar,
    /// The same as `state`, for the connections that are made already.
    orders: watch::Sender<State>,
    /// Bytes, by direction.
    carried: [AtomicU64; 2],
}

/// A running proxy.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Wire {
    /// A wire to `broker` with a port of its own.
    pub(crate) fn to(broker: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let accepting = home().spawn(accept(listener, broker, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting: accepting.abort_handle() })
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes it has carried so far.
    #[must_use]
    pub fn carried(&self, direction: Direction) -> u64 {
        self.shared.carried[direction as usize].load(Ordering::Relaxed)
    }

    /// Resets all connections, now and until mended; its user then finds that it has ended.
    pub fn cut(&self) {
        let mut state = self.order_cut();
        while state.live > 0 {
            state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes directions dead.
    pub fn stall(&self, directions: &[Direction]) {
        let dead = [Direction::ToBroker, Direction::FromBroker].map(|direction| directions.contains(&direction));
        drop(self.shared.set(|state| state.dead = dead));
    }

    /// New connections are whole.
    pub fn mend(&self) {
        drop(self.shared.set(|state| (state.cut, state.dead) = (false, [false; 2])));
    }

    /// New connections go to another broker, as after a failover; those that are made stay where they are.
    pub fn lead_to(&self, broker: SocketAddr) {
        drop(self.shared.set(|state| state.elsewhere = Some(broker)));
    }

    fn order_cut(&self) -> MutexGuard<'_, State> {
        self.shared.set(|state| *state = State { cut: true, cuts: state.cuts + 1, dead: [false; 2], ..*state })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        drop(self.order_cut());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        change(&mut state);
        self.orders.send_replace(*state);
        state
    }
}

/// A connection that counts as long as it lasts.
struct Live(Arc<Shared>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.lock().live -= 1;
        self.0.ended.notify_all();
    }
}

async fn accept(
    listener: std::net::TcpListener,
    broker: SocketAddr,
    shared: Arc<Shared>,
) -> std::io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        let mut state = shared.lock();
        if state.cut {
            let _ = client.set_zero_linger();
        } else {
            state.live += 1;
            let broker = state.elsewhere.unwrap_or(broker);
            tokio::spawn(connection(Live(Arc::clone(&shared)), client, broker, *state, shared.orders.subscribe()));
        }
    }
}

async fn connection(
    live: Live,
    client: TcpStream,
    broker: SocketAddr,
    state: State,
    mut orders: watch::Receiver<State>,
) {
    let relay = relay(&client, broker, &live.0.carried, state, orders.clone());
    let has_ended = tokio::select! {
        ended = relay => ended.is_ok(),
        _ = orders.wait_for(|now| now.cuts != state.cuts) => false,
    };
    if !has_ended {
        let _ = client.set_zero_linger();
    }
    drop(client);
    drop(live);
}

/// Goes on until one side ends its stream, or fails.
async fn relay(
    client: &TcpStream,
    broker: SocketAddr,
    carried: &[AtomicU64; 2],
    state: State,
    orders: watch::Receiver<State>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(broker).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::select! {
        ended = pump(client, &server, &carried[0], state.dead[0], 0, orders.clone()) => ended,
        ended = pump(&server, client, &carried[1], state.dead[1], 1, orders) => ended,
    }
}

/// Copies one way until the end of the stream; drops what it reads once the direction is dead.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    bytes: &AtomicU64,
    mut dead: bool,
    direction: usize,
    mut orders: watch::Receiver<State>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        tokio::select! {
            biased;
            changed = orders.changed() => match changed {
                Ok(()) => dead |= orders.borrow_and_update().dead[direction],
                Err(_) => return Ok(()),
            },
            readable = from.readable() => {
                readable?;
                let read = from.try_read(&mut buffer);
                bytes.fetch_add(*read.as_ref().unwrap_or(&0) as u64, Ordering::Relaxed);
                match read {
                    Ok(0) => return Ok(()),
                    Ok(_) if dead => {}
                    Ok(read) => write_all(to, &buffer[..read]).await?,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
