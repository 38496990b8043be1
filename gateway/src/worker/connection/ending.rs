//! How a connection ends: in stages, each for a bounded time.
//!
//! Ends for real: a client that takes nothing for [`GRACE`] while its close frame is queued, or does not close for so long
//! after it, is reset.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::{Connection, State};
use crate::clock;
use crate::close::CloseReason;
use crate::codec::{self, Opcode};
use crate::protocol::{Notice, Said};
use crate::worker::Worker;

/// How long a client may take nothing while it is sent its last frames, and how long it may then take to close.
pub(in crate::worker) const GRACE: Duration = Duration::from_secs(2);

/// Milliseconds up to which clients of a node that goes away are asked to wait before they come back.
const RECONNECT: u64 = 1000;

/// The end of a connection, once it has begun.
pub(super) struct Ending {
    pub(super) reason: CloseReason,
    pub(super) stage: Stage,
    /// How long nothing may come of it.
    grace: Duration,
    over: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
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
    pub(in crate::worker) fn takes_output(&self) -> bool {
        !self.gone && self.ending.as_ref().is_none_or(|ending| ending.stage.takes_output())
    }

    /// Whether a publish, or a command that the gate has yet to decide about, is unanswered.
    fn awaits_answers(&self) -> bool {
        self.publishing > 0 || self.deciding
    }

    /// Begins a stage of the end, or the next one, and the time that it has.
    fn begin_end(&mut self, reason: CloseReason, stage: Stage, grace: Duration) {
        self.pulse.wait_from(clock::now());
        let over = Box::pin(tokio::time::sleep_until(self.pulse.due(grace).into()));
        self.ending = Some(Ending { reason, stage, grace, over });
    }
}

impl Connection {
    /// Brings the end one step further; the reason when the socket may be dropped.
    pub(super) fn poll_end(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Option<CloseReason>> {
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

    /// Starts the end. The app's handler first receives what came before.
    pub(in crate::worker) fn end(&self, worker: &Worker, reason: CloseReason) {
        let mut state = self.state.borrow_mut();
        // Until its publishes are answered, a more specific close reason may replace this one.
        if state.gone || state.ending.as_ref().is_some_and(|ending| ending.stage != Stage::Answers) {
            return;
        }
        if let Some(inbox) = &mut state.inbox {
            inbox.end();
            if reason.in_order() && !inbox.is_done() {
                state.begin_end(reason, Stage::Handler, GRACE);
                drop(state);
                return self.wake();
            }
        }
        if reason == CloseReason::Drain && state.awaits_answers() {
            state.begin_end(reason, Stage::Answers, worker.grace(reason));
            drop(state);
            return self.wake();
        }
        drop(state);
        self.farewell(worker, reason);
    }

    /// The broker has answered a publish.
    pub(in crate::worker) fn answered(&self, worker: &Worker) {
        let mut state = self.state.borrow_mut();
        let paused = state.is_paused();
        state.publishing -= 1;
        drop(state);
        self.settle(worker, paused);
    }

    /// The gate has decided about a command, which was carried out.
    pub(in crate::worker) fn decided(&self, worker: &Worker) {
        self.settle(worker, true);
    }

    /// Ends the connection if its end has waited for this answer; reads on if reading has.
    fn settle(&self, worker: &Worker, paused: bool) {
        let state = self.state.borrow();
        let due = match &state.ending {
            Some(Ending { reason, stage: Stage::Answers, .. }) if !state.awaits_answers() => Some(*reason),
            _ => None,
        };
        drop(state);
        match due {
            Some(reason) => self.farewell(worker, reason),
            None if paused => self.wake(),
            None => {}
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
                if matches!(reason, CloseReason::Drain | CloseReason::GoingAway) {
                    let hint = Notice::Reconnect { after_ms: fastrand::u64(..RECONNECT) };
                    if let Said::Message(body) = self.format.protocol().notice(hint) {
                        state.push(worker, worker.backlog.frame(body.frame()));
                    }
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
    pub(super) fn vanished(&self) -> CloseReason {
        let mut state = self.state.borrow_mut();
        if let Some(inbox) = &mut state.inbox {
            inbox.end();
        }
        state.ending.as_ref().map_or(CloseReason::PeerVanished, |ending| ending.reason)
    }

    /// Has the kernel forget the connection at once, with all that it holds for it.
    pub(in crate::worker) fn reset(&self) {
        self.stream.borrow().reset();
    }

    pub(crate) fn is_ending(&self) -> bool {
        let state = self.state.borrow();
        state.gone || state.ending.is_some()
    }

    /// The worker has let go of it: tasks that still wait for the broker can do nothing more with it.
    pub(in crate::worker) fn leave(&self, worker: &Worker) {
        let mut state = self.state.borrow_mut();
        state.gone = true;
        state.drop_output(worker);
        state.tell_of_room();
    }
}
