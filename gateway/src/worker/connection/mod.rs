//! One WebSocket connection: its socket, what it has yet to send, how it ends.
//!
//! Owned by its worker and by its one task, which reads; the worker writes to the socket directly, so that a
//! broadcast wakes no task. Input goes through the worker's buffer; the connection has one of its own only while its client
//! must wait.

mod ending;
mod room;
mod writing;

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::Notify;

pub(super) use self::ending::GRACE;
use self::ending::{Ending, Stage};
pub(crate) use self::room::Offered;
pub(crate) use self::writing::Queued;
use self::writing::Written;
use super::Worker;
use super::arrival::Arrival;
use super::hub::Member;
use super::outbox::Outbox;
use super::progress::Progress;
use super::pulse::Pulse;
use super::receive::Looked;
use super::resume::Returning;
use super::seats::Seats;
use crate::app::inbox::Inbox;
use crate::clock;
use crate::close::CloseReason;
use crate::codec::Decoder;
use crate::door::ingress::Client;
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::gate::Identity;
use crate::protocol::{Format, Session};

/// Reads in a row before other connections get their turn.
const READS: usize = 8;

/// Publishes of one connection that wait for the broker; reading pauses while there are so many.
pub(super) const PUBLISHING: u32 = 256;

/// An open socket.
pub(crate) struct Connection {
    pub(crate) member: Member,
    /// Tells it from earlier connections with the same number.
    pub(crate) serial: u32,
    pub(crate) format: Format,
    pub(crate) identity: Identity,
    pub(crate) peer: Client,
    pub(crate) opened: Instant,
    stream: RefCell<Stream>,
    pub(crate) state: RefCell<State>,
    _admission: Admission,
}

/// What changes while it is open.
pub(crate) struct State {
    pub(super) decoder: Decoder,
    pub(super) session: Box<dyn Session>,
    outbox: Outbox,
    /// The socket is full; boxed, since few are at a time.
    blocked: Option<Box<Progress>>,
    pub(super) seats: Seats,
    /// Channels that it comes back to, while there are any.
    pub(super) returning: Option<Box<Returning>>,
    /// Wakes tasks that wait until the client has taken what is queued.
    room: Option<Rc<Notify>>,
    pub(super) pulse: Pulse,
    /// Publishes that the broker has not yet answered.
    pub(super) publishing: u32,
    /// The gate has yet to decide about a command.
    pub(super) deciding: bool,
    /// Bytes that were read and not yet looked at, as the client must wait: for the broker, the gate, the app or its turn.
    pub(super) waiting: Option<Vec<u8>>,
    /// They wait for the client's turn only, which is no excuse for a slow message.
    pub(super) turned: bool,
    /// Its next turn comes after a pause.
    pub(super) resting: bool,
    /// Messages for the app's handler, if there is one.
    pub(crate) inbox: Option<Box<Inbox>>,
    /// Waits in the worker's list of sockets to write to.
    marked: bool,
    /// It has left the worker, and its number may be another's.
    gone: bool,
    ending: Option<Ending>,
    waker: Option<Waker>,
}

impl Connection {
    /// Gives as well the channel that it is to be subscribed to.
    pub(crate) fn new((member, serial): (Member, u32), arrival: Arrival, now: Instant) -> (Self, Option<String>) {
        let Arrival { stream, client, admission, identity, extensions, format, session, channel, inbox } = arrival;
        let state = State {
            decoder: Decoder::new(extensions),
            session,
            outbox: Outbox::default(),
            blocked: None,
            seats: Seats::default(),
            returning: None,
            room: None,
            pulse: Pulse::new(now),
            publishing: 0,
            deciding: false,
            waiting: None,
            turned: false,
            resting: false,
            inbox,
            marked: false,
            gone: false,
            ending: None,
            waker: None,
        };
        let (stream, state) = (RefCell::new(stream), RefCell::new(state));
        let peer = client;
        (Self { member, serial, format, identity, peer, opened: now, stream, state, _admission: admission }, channel)
    }

    /// The connection's task: done when the socket may be dropped.
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

    /// Reads and handles what is there. Pending when nothing is; ready when the state must be looked at again.
    fn read(self: &Rc<Self>, worker: &Rc<Worker>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(mut held) = self.resume() {
            return match worker.receive(self, &mut held) {
                Looked::Through => Poll::Ready(()),
                Looked::Turn => later(cx),
            };
        }
        let mut buffer = worker.buffer.borrow_mut();
        for _ in 0..READS {
            match self.poll_read(&mut buffer, cx) {
                // Output that came up meanwhile and could not be written has woken the task again.
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    worker.end(self, CloseReason::PeerVanished);
                    return Poll::Ready(());
                }
                Poll::Ready(Some(length)) => {
                    if worker.receive(self, &mut buffer[..length]) == Looked::Turn {
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

    /// What is to be looked at now that the client need not wait any more, if it had to.
    fn resume(&self) -> Option<Vec<u8>> {
        let mut state = self.state.borrow_mut();
        let held = state.waiting.take()?;
        if !std::mem::take(&mut state.turned) {
            state.decoder.excuse(clock::now());
        }
        Some(held)
    }

    /// Bytes read; `None` at the end of the stream. Holds no borrow while they are handled.
    fn poll_read(&self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.stream.borrow_mut().poll_read(buffer, cx)
    }

    /// Whether the client must wait: for the broker, the gate, the app, or its turn.
    pub(super) fn paused(&self) -> bool {
        self.state.borrow().is_paused()
    }

    /// Has the connection's task look again.
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
    /// Whether a ping had no answer that could have been read.
    pub(super) fn is_silent(&self) -> bool {
        self.pulse.is_unanswered() && self.waiting.is_none()
    }

    pub(super) fn is_paused(&self) -> bool {
        let inbox_is_full = self.inbox.as_ref().is_some_and(|inbox| inbox.is_full());
        self.publishing >= PUBLISHING || self.deciding || self.resting || inbox_is_full
    }
}

/// Has a task go on after all others that are ready, and after the sockets were looked at.
fn later(cx: &mut Context<'_>) -> Poll<()> {
    // A plain wake would put it before sockets that became readable meanwhile.
    let mut turn = std::pin::pin!(tokio::task::yield_now());
    let _pending = turn.as_mut().poll(cx);
    Poll::Pending
}
