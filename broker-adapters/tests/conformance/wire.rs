//! A TCP proxy between a node and its broker that can be cut and stalled.
//!
//! Cut: connections end with a reset, and so does every new one. Stalled: bytes of a direction vanish, without
//! a reset, for as long as the connection lives, even after the wire is mended.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::fixture::Direction;

/// How the wire treats its connections.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    cut: bool,
    /// How often it was cut: a connection ends when this changes.
    cuts: u64,
    /// Which directions are dead.
    dead: [bool; 2],
}

/// A running proxy.
pub(crate) struct Wire {
    port: u16,
    state: Arc<Mutex<State>>,
    /// The same, for the connections that are made already.
    orders: watch::Sender<State>,
    accepting: AbortHandle,
}

impl Wire {
    /// A wire to `broker` with a port of its own.
    pub(crate) async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (state, orders) = (Arc::<Mutex<State>>::default(), watch::Sender::new(State::default()));
        let (current, told) = (Arc::clone(&state), orders.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = *current.lock().unwrap_or_else(PoisonError::into_inner);
                if state.cut {
                    let _ = client.set_zero_linger();
                    continue;
                }
                tokio::spawn(connection(client, broker, state, told.subscribe()));
            }
        });
        Self { port, state, orders, accepting: accepting.abort_handle() }
    }

    /// The port to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Resets all connections, now and until mended.
    pub(crate) fn cut(&self) {
        self.set(|state| *state = State { cut: true, cuts: state.cuts + 1, dead: [false; 2] });
    }

    /// Makes directions dead.
    pub(crate) fn stall(&self, directions: &[Direction]) {
        let dead = [Direction::ToBroker, Direction::FromBroker].map(|direction| directions.contains(&direction));
        self.set(|state| state.dead = dead);
    }

    /// New connections are whole.
    pub(crate) fn mend(&self) {
        self.set(|state| *state = State { cut: false, dead: [false; 2], ..*state });
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.orders.send_replace(*state);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn connection(client: TcpStream, broker: SocketAddr, state: State, orders: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(broker).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = orders.clone();
    tokio::select! {
        () = pump(&from_client, &to_server, state.dead[0], 0, orders.clone()) => {}
        () = pump(&from_server, &to_client, state.dead[1], 1, orders) => {}
        _ = cut.wait_for(|now| now.cuts != state.cuts) => {
            let _ = to_client.as_ref().set_zero_linger();
        }
    }
}

/// Copies one way until the end of the stream; drops what it reads once the direction is dead.
async fn pump(
    from: &OwnedReadHalf,
    to: &OwnedWriteHalf,
    mut dead: bool,
    direction: usize,
    mut orders: watch::Receiver<State>,
) {
    let (mut buffer, from, to) = (vec![0; 64 << 10], from.as_ref(), to.as_ref());
    loop {
        tokio::select! {
            biased;
            changed = orders.changed() => match changed {
                Ok(()) => dead |= orders.borrow_and_update().dead[direction],
                Err(_) => return,
            },
            readable = from.readable() => {
                let read = readable.and_then(|()| from.try_read(&mut buffer));
                match read {
                    Ok(0) => return,
                    Ok(_) if dead => {}
                    Ok(read) => {
                        if write_all(to, &buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
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
