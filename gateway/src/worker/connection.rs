//! One WebSocket connection: its socket, what it has yet to send, how it ends.
//!
//! Owned by its worker and by its one task, which reads; the worker writes to the socket directly, so that a
//! broadcast wakes no task. Owns no buffer but while its client must wait: input goes through the worker's. Ends for real: a
//! client that takes nothing for [`GRACE`] while its close frame is queued, or does not close for so long after it, is reset.

mod room;
mod writing;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::Sleep;

pub(crate) use self::room::Offered;
pub(crate) use self::writing::Queued;
use self::writing::Written;
use super::Worker;
use super::hub::Member;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::progress::Progress;
use super::pulse::Pulse;
use super::receive::Looked;
use super::resume::Returning;
use super::seats::Seats;
use crate::clock;
use crate::close::CloseReason;
use crate::codec::{self, Decoder, Extensions, Opcode};
use crate::ingress::Client;
use crate::listener::Admission;
use crate::protocol::{Protocol, native};
use crate::stream::Stream;

/// How long a client may take nothing while it is sent its last frames, and how long it may then take to close.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Milliseconds up to which clients of a node that goes away are asked to wait before they come back.
const RECONNECT: u64 = 1000;

/// Reads in a row before other connections get their turn.
const READS: usize = 8;

/// Publishes of one connection that wait for the broker; reading pauses while there are so many.
pub(super) const PUBLISHING: u32 = 256;

/// An open socket.
pub(crate) struct Connection {
    pub(crate) member: Member,
    /// Tells it from earlier connections with the same number.
    pub(crate) serial: u32,
    pub(crate) protocol: Protocol,
    pub(crate) peer: Client,
    pub(crate) opened: Instant,
    stream: RefCell<Stream>,
    pub(crate) state: RefCell<State>,
    _admission: Admission,
}

/// What changes while it is open.
pub(crate) struct State {
    pub(super) decoder: Decoder,
    outbox: Outbox,
    /// The socket is full; boxed, since few are at a time.
    blocked: Option<Box<Progress>>,
    pub(super) seats: Seats,
    /// Channels that it comes back to, while there are any.
    pub(super) returning: Option<Box<Returning>>,
    /// Somebody waits until the client has taken what is queued.
    room: Option<Rc<Notify>>,
    pub(super) pulse: Pulse,
    /// Publishes that the broker has not yet answered.
    pub(super) publishing: u32,
    /// The client must wait for the broker, the app or its turn: bytes of it that were read and not yet looked at.
    pub(super) waiting: Option<Vec<u8>>,
    /// It is for its turn that they wait: no excuse for being slow.
    pub(super) turned: bool,
    /// Its turn comes only after a while.
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

struct Ending {
    reason: CloseReason,
    stage: Stage,
    /// How long nothing may come of it.
    grace: Duration,
    over: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The handler has yet to see what came before.
    Handler,
    /// The broker has yet to answer what was published before.
    Answers,
    /// The close frame is queued.
    Farewell,
    /// All is written, and the peer's turn to close.
    Shut,
    /// Nothing more can be done.
    Over,
}

impl Stage {
    /// Whether what came before the end is still answered.
    fn takes_output(self) -> bool {
        matches!(self, Self::Handler | Self::Answers)
    }
}

impl State {
    /// Whether frames may still be queued.
    fn takes_output(&self) -> bool {
        !self.gone && self.ending.as_ref().is_none_or(|ending| ending.stage.takes_output())
    }
}

impl Connection {
    pub(crate) fn new(
        (member, serial): (Member, u32),
        protocol: Protocol,
        (stream, peer): (Stream, Client),
        admission: Admission,
        now: Instant,
    ) -> Self {
        let state = State {
            decoder: Decoder::new(Extensions::none()),
            outbox: Outbox::default(),
            blocked: None,
            seats: Seats::default(),
            returning: None,
            room: None,
            pulse: Pulse::new(now),
            publishing: 0,
            waiting: None,
            turned: false,
            resting: false,
            inbox: (protocol == Protocol::App).then(Box::default),
            marked: false,
            gone: false,
            ending: None,
            waker: None,
        };
        let (stream, state) = (RefCell::new(stream), RefCell::new(state));
        Self { member, serial, protocol, peer, opened: now, stream, state, _admission: admission }
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

    /// Brings the end one step further; the reason when the socket may be dropped.
    fn poll_end(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Option<CloseReason>> {
        let mut state = self.state.borrow_mut();
        let State { ending: Some(ending), outbox, pulse, inbox, .. } = &mut *state else { return Poll::Ready(None) };
        if ending.stage == Stage::Farewell && outbox.is_empty() && self.stream.borrow_mut().try_flush().is_ok() {
            ending.stage = Stage::Shut;
            pulse.wait_from(clock::now());
            if self.stream.borrow_mut().shutdown().is_err() {
                ending.stage = Stage::Over;
            }
        }
        // Before reading: whoever never stops talking would keep us from it.
        while ending.stage != Stage::Over && ending.over.as_mut().poll(cx).is_ready() {
            let (reason, stage) = (ending.reason, ending.stage);
            if stage == Stage::Handler && inbox.as_mut().is_some_and(|inbox| inbox.has_moved()) {
                pulse.wait_from(clock::now());
            }
            let due = pulse.due(ending.grace);
            if due > clock::now() {
                ending.over.as_mut().reset(due.into());
                continue;
            }
            if stage.takes_output() {
                drop(state);
                self.farewell(worker, reason);
                return Poll::Ready(None);
            }
            self.reset();
            return Poll::Ready(Some(reason));
        }
        while ending.stage == Stage::Shut {
            // What still comes is of no interest, but unread bytes would turn our close into a reset.
            match self.poll_read(&mut [0; 1024], cx) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => ending.stage = Stage::Over,
                Poll::Pending => break,
            }
        }
        if ending.stage != Stage::Over {
            return Poll::Pending;
        }
        if ending.reason == CloseReason::PingTimeout {
            self.reset();
        }
        Poll::Ready(Some(ending.reason))
    }

    /// Starts the end. What the app's handler has yet to see, it sees before the client is told.
    pub(super) fn end(&self, worker: &Worker, reason: CloseReason) {
        let mut state = self.state.borrow_mut();
        // Who waits for answers may yet have a better reason to be told, as that one of them is bad.
        if state.gone || state.ending.as_ref().is_some_and(|ending| ending.stage != Stage::Answers) {
            return;
        }
        let by_peer = matches!(reason, CloseReason::PeerClosed(_)) || reason.code().is_some_and(|code| code < 1010);
        if let Some(inbox) = &mut state.inbox {
            inbox.end();
            if by_peer && !inbox.is_done() {
                state.begin_end(reason, Stage::Handler, GRACE);
                drop(state);
                return self.wake();
            }
        }
        if reason == CloseReason::Drain && state.publishing > 0 {
            state.begin_end(reason, Stage::Answers, worker.grace(reason));
            drop(state);
            return self.wake();
        }
        drop(state);
        self.farewell(worker, reason);
    }

    /// The broker has answered a publish.
    pub(super) fn answered(&self, worker: &Worker) {
        let mut state = self.state.borrow_mut();
        state.publishing -= 1;
        let (paused, left) = (state.publishing + 1 >= PUBLISHING, state.publishing);
        match &state.ending {
            Some(Ending { reason, stage: Stage::Answers, .. }) if left == 0 => {
                let reason = *reason;
                drop(state);
                self.farewell(worker, reason);
            }
            _ if paused => {
                drop(state);
                self.wake();
            }
            _ => {}
        }
    }

    /// The app's handler is done: ends the connection if nothing else has.
    pub(crate) fn handler_done(&self, worker: &Worker, reason: CloseReason) {
        let mut state = self.state.borrow_mut();
        if let Some(inbox) = &mut state.inbox {
            inbox.finish();
        }
        let reason = match &state.ending {
            None => reason,
            Some(ending) if ending.stage == Stage::Handler => ending.reason,
            Some(_) => return,
        };
        drop(state);
        self.farewell(worker, reason);
    }

    /// Queues the close frame as the last thing to be sent.
    fn farewell(&self, worker: &Worker, reason: CloseReason) {
        let mut state = self.state.borrow_mut();
        if state.gone {
            return;
        }
        let stage = match reason.code() {
            None => Stage::Over,
            Some(code) => {
                if reason == CloseReason::TooSlow {
                    worker.backlog.left(state.outbox.abandon());
                }
                if self.protocol == Protocol::Native && matches!(reason, CloseReason::Drain | CloseReason::GoingAway) {
                    let hint = native::reconnect(fastrand::u64(..RECONNECT));
                    state.push(worker, worker.backlog.frame(codec::frame(Opcode::Text, hint.as_bytes())));
                }
                let frame = match reason {
                    // RFC 6455 §5.5.1: the answer to a close frame repeats its code.
                    CloseReason::PeerClosed(None) => codec::frame(Opcode::Close, b""),
                    CloseReason::PeerClosed(Some(code)) => codec::close(code, ""),
                    _ => codec::close(code, &reason.text()),
                };
                state.push(worker, worker.backlog.frame(frame));
                Stage::Farewell
            }
        };
        if let Some(inbox) = &mut state.inbox {
            inbox.end();
        }
        state.begin_end(reason, stage, worker.grace(reason));
        state.tell_of_room();
        drop(state);
        self.wake();
    }

    /// The peer is gone; the reason if the end had begun before.
    fn vanished(&self) -> CloseReason {
        let mut state = self.state.borrow_mut();
        if let Some(inbox) = &mut state.inbox {
            inbox.end();
        }
        state.ending.as_ref().map_or(CloseReason::PeerVanished, |ending| ending.reason)
    }

    /// Has the kernel forget the connection at once, with all that it holds for it.
    pub(super) fn reset(&self) {
        self.stream.borrow().reset();
    }

    pub(crate) fn is_ending(&self) -> bool {
        let state = self.state.borrow();
        state.gone || state.ending.is_some()
    }

    /// The worker has let go of it; who still holds it, and waits for the broker, can do nothing with it.
    pub(super) fn leave(&self, worker: &Worker) {
        let mut state = self.state.borrow_mut();
        state.gone = true;
        state.drop_output(worker);
        state.tell_of_room();
    }

    /// Whether the client must wait: for the broker, for the app, or for its turn.
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
        self.publishing >= PUBLISHING || self.resting || self.inbox.as_ref().is_some_and(|inbox| inbox.is_full())
    }

    /// Begins a stage of the end, or the next one, and the time that it has.
    fn begin_end(&mut self, reason: CloseReason, stage: Stage, grace: Duration) {
        self.pulse.wait_from(clock::now());
        let over = Box::pin(tokio::time::sleep_until(self.pulse.due(grace).into()));
        self.ending = Some(Ending { reason, stage, grace, over });
    }
}

/// Has a task go on after all others that are ready, and after the sockets were looked at.
fn later(cx: &mut Context<'_>) -> Poll<()> {
    // A plain wake would put it before sockets that became readable meanwhile.
    let mut turn = std::pin::pin!(tokio::task::yield_now());
    let _pending = turn.as_mut().poll(cx);
    Poll::Pending
}
