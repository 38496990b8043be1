//! One connection, of a WebSocket or of a client that only listens: its socket, its outbox, and how it ends.
//!
//! Owned by its worker and by its one task. The task reads; the worker writes to the socket directly, so that a
//! broadcast wakes no task. Input goes through the worker's shared buffer. The connection buffers input of its own only
//! while its reading is paused.

mod ending;
mod own_ids;
mod room;
mod writing;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub(super) use self::ending::GRACE;
use self::ending::{Ending, Stage};
pub(crate) use self::room::Offered;
pub(crate) use self::writing::Queued;
use self::writing::Written;
use super::Worker;
use super::arrival::Arrival;
use super::hub::Member;
use super::latest::Latest;
use super::outbox::Outbox;
use super::progress::Progress;
use super::pulse::Pulse;
use super::receive::Handled;
use super::resume::Returning;
use super::seats::Seats;
use crate::app::inbox::Inbox;
use crate::clock;
use crate::close::CloseReason;
use crate::codec::Decoder;
use crate::door::ingress::Client;
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::gate::{Allowance, Identity};
use crate::protocol::{Format, Session};

/// The most reads in a row before other connections get their turn.
const READS: usize = 8;

/// The most publishes of one connection that may await the broker. At this number, reading pauses.
pub(super) const PUBLISHING: u16 = 256;

/// An open socket.
pub(crate) struct Connection {
    pub(crate) member: Member,
    /// Distinguishes this connection from earlier ones with the same `member`.
    pub(crate) serial: u32,
    pub(crate) format: Format,
    /// `None` until the client has proven who it is, if it has to.
    identity: Cell<Option<Arc<Identity>>>,
    /// The client's address and port. An IPv4 address is in its IPv6 form, which takes less memory than a type for both.
    peer: (Ipv6Addr, u16),
    /// When it was opened, in seconds since the worker's start.
    opened: u32,
    stream: RefCell<Stream>,
    pub(crate) state: RefCell<State>,
    _admission: Admission,
}

/// The part of a connection that changes while it is open.
pub(crate) struct State {
    pub(super) decoder: Decoder,
    pub(super) session: Box<dyn Session>,
    /// How often the client may still do what it does.
    pub(super) allowance: Allowance,
    outbox: Outbox,
    /// Present while the socket is full. Boxed, since few sockets are full at a time.
    blocked: Option<Box<Full>>,
    pub(super) seats: Seats,
    /// The channels that are catching up. Absent when there are none.
    pub(super) returning: Option<Box<Returning>>,
    /// Wakes tasks that wait for room in the outbox.
    room: Option<Rc<Notify>>,
    pub(super) pulse: Pulse,
    /// The number of publishes that await the broker's answer: at most [`PUBLISHING`] and what one read brings.
    pub(super) publishing: u16,
    /// The number of commands that await the gate's decision: one, or all subscriptions that its token has begun.
    pub(super) deciding: u16,
    /// Input that waits to be decoded.
    pub(super) waiting: Option<Box<Waiting>>,
    /// Whether the connection pauses before its next turn.
    pub(super) resting: bool,
    /// Messages for the app's handler, if there is one.
    pub(crate) inbox: Option<Box<Inbox>>,
    /// Whether the worker will write to it at the next flush.
    marked: bool,
    /// Whether the worker has removed it, so that another connection may have its `member`.
    gone: bool,
    ending: Option<Box<Ending>>,
    waker: Option<Waker>,
}

/// What belongs to a full socket.
struct Full {
    progress: Progress,
    /// The newest messages of channels whose rule is `slow = latest`.
    latest: Latest,
}

/// Bytes that were read but not yet decoded, because the connection waits for the broker, the gate, the app or its turn.
pub(super) struct Waiting {
    pub(super) bytes: Vec<u8>,
    /// Whether they wait only for the connection's turn, which does not excuse a slow message.
    pub(super) for_turn: bool,
}

impl Connection {
    /// Also returns the channel to subscribe it to.
    pub(crate) fn new(
        (member, serial): (Member, u32),
        arrival: Arrival,
        allowance: Allowance,
        started: Instant,
    ) -> (Self, Option<String>) {
        let Arrival { stream, client, admission, identity, extensions, format, session, channel, inbox, .. } = arrival;
        let now = clock::now();
        let state = State {
            decoder: Decoder::new(extensions),
            session,
            allowance,
            outbox: Outbox::default(),
            blocked: None,
            seats: Seats::default(),
            returning: None,
            room: None,
            pulse: Pulse::new(now),
            publishing: 0,
            deciding: 0,
            waiting: None,
            resting: false,
            inbox,
            marked: false,
            gone: false,
            ending: None,
            waker: None,
        };
        let (stream, state, identity) = (RefCell::new(stream), RefCell::new(state), Cell::new(identity));
        let address = match client.0.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let (peer, opened) = ((address, client.0.port()), seconds(started, now));
        (Self { member, serial, format, identity, peer, opened, stream, state, _admission: admission }, channel)
    }

    /// Polls the connection's task. Ready when the socket may be dropped.
    pub(super) fn poll(self: &Rc<Self>, worker: &Rc<Worker>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.remember(cx.waker());
        loop {
            match self.write(worker) {
                Written::All => {}
                Written::Blocked => {
                    if self.stream.borrow().poll_write_ready(cx).is_ready() {
                        continue;
                    }
                }
                Written::Broken => return Poll::Ready(self.vanished()),
            }
            let stage = self.state.borrow().ending.as_ref().map(|ending| ending.stage);
            match stage {
                None if self.paused() => return Poll::Pending,
                None => match self.read(worker, cx) {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                },
                Some(_) => match self.poll_end(worker, cx) {
                    Poll::Ready(Some(reason)) => return Poll::Ready(reason),
                    Poll::Ready(None) => {}
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Reads and handles input. Pending when there is none; ready when the caller must check the state again.
    fn read(self: &Rc<Self>, worker: &Rc<Worker>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(mut held) = self.resume() {
            return match worker.receive(self, &mut held.bytes) {
                Handled::All => Poll::Ready(()),
                Handled::Turn => later(cx),
            };
        }
        let mut buffer = worker.buffer.borrow_mut();
        for _ in 0..READS {
            match self.poll_read(&mut buffer, cx) {
                // Output that a handled frame produced and that could not be written has woken the task again.
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    // A client that listens has no other way to close.
                    let stream = self.format.is_stream();
                    worker.end(self, if stream { CloseReason::PeerClosed(None) } else { CloseReason::PeerVanished });
                    return Poll::Ready(());
                }
                Poll::Ready(Some(length)) => {
                    if worker.receive(self, &mut buffer[..length]) == Handled::Turn {
                        return later(cx);
                    }
                }
            }
            if self.is_ending() || self.paused() {
                return Poll::Ready(());
            }
        }
        later(cx)
    }

    /// Takes the bytes that were read before reading paused, if any.
    fn resume(&self) -> Option<Box<Waiting>> {
        let mut state = self.state.borrow_mut();
        let held = state.waiting.take()?;
        if !held.for_turn {
            state.decoder.excuse(clock::now());
        }
        Some(held)
    }

    /// Reads into `buffer`. Returns the number of bytes, or `None` at the end of the stream. Holds no borrow
    /// afterwards.
    fn poll_read(&self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.stream.borrow_mut().poll_read(buffer, cx)
    }

    /// The proven identity of the client; `None` if it has to prove one and has not yet.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        let identity = self.identity.take();
        self.identity.set(identity.clone());
        identity
    }

    pub(super) fn set_identity(&self, identity: Arc<Identity>) {
        self.identity.set(Some(identity));
    }

    /// Whether reading is paused, for the broker, the gate, the app, or the connection's turn.
    pub(super) fn paused(&self) -> bool {
        self.state.borrow().is_paused()
    }

    /// Whether the socket is full.
    pub(super) fn is_blocked(&self) -> bool {
        self.state.borrow().blocked.is_some()
    }

    /// The client's address.
    pub(crate) fn peer(&self) -> Client {
        let (address, port) = self.peer;
        Client(SocketAddr::new(IpAddr::V6(address).to_canonical(), port))
    }

    /// How long it has been open, to the second.
    pub(super) fn age(&self, started: Instant) -> Duration {
        Duration::from_secs(seconds(started, clock::now()).saturating_sub(self.opened).into())
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.state.borrow().waker {
            waker.wake_by_ref();
        }
    }

    fn remember(&self, waker: &Waker) {
        let mut state = self.state.borrow_mut();
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
    }
}

impl State {
    /// Whether the last ping is unanswered and no unread bytes could hold the answer.
    pub(super) fn is_silent(&self) -> bool {
        self.pulse.is_unanswered() && self.waiting.is_none()
    }

    pub(super) fn is_paused(&self) -> bool {
        let inbox_is_full = self.inbox.as_ref().is_some_and(|inbox| inbox.is_full());
        self.publishing >= PUBLISHING || self.deciding > 0 || self.resting || inbox_is_full
    }
}

/// Enough for a century.
fn seconds(started: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(started).as_secs()).unwrap_or(u32::MAX)
}

/// Reschedules the task after all other ready tasks, and after the runtime has polled the sockets.
fn later(cx: &mut Context<'_>) -> Poll<()> {
    // A plain wake would run it before sockets that became readable meanwhile.
    let mut turn = std::pin::pin!(tokio::task::yield_now());
    let _pending = turn.as_mut().poll(cx);
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::adopting::Task;

    #[test]
    fn an_idle_connection_takes_384_bytes_and_its_task_24() {
        // `Rc` counts in 16 bytes. With more than 24 bytes, the runtime's part of the task doubles from 128 to 256.
        assert!(size_of::<Connection>() + 16 <= 384, "{}", size_of::<Connection>());
        assert!(size_of::<Task>() <= 24, "{}", size_of::<Task>());
    }
}
