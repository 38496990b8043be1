//! How a connection ends: in stages, each for a bounded time.
//!
//! A client is reset if it accepts no bytes for [`GRACE`] while its close frame is queued, or if it does not close
//! within [`GRACE`] after the frame was written.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::{Connection, State};
use crate::clock;
use crate::close::CloseReason;
use crate::codec::{self, Opcode};
use crate::protocol::{Notice, Output};
use crate::worker::Worker;

/// The longest time without progress while the last frames are written, and the longest time to close after that.
pub(in crate::worker) const GRACE: Duration = Duration::from_secs(2);

/// The upper bound, in milliseconds, of the random delay after which clients of a draining node are asked to reconnect.
const RECONNECT: u64 = 1000;

/// The state of a connection that is ending.
pub(super) struct Ending {
    pub(super) reason: CloseReason,
    pub(super) stage: Stage,
    /// The longest time that the stage may last without progress.
    grace: Duration,
    over: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits until the app's handler has received the earlier messages.
    Handler,
    /// Waits for answers to earlier publishes and decisions.
    Answers,
    /// The close frame is queued.
    Farewell,
    /// Everything is written. Waits for the peer to close.
    Shut,
    /// The socket may be dropped.
    Over,
}

impl Stage {
    /// Whether replies to earlier commands may still be queued.
    fn takes_output(self) -> bool {
        matches!(self, Self::Handler | Self::Answers)
    }
}

impl State {
    /// Whether frames may still be queued.
    pub(in crate::worker) fn takes_output(&self) -> bool {
        !self.gone && self.ending.as_ref().is_none_or(|ending| ending.stage.takes_output())
    }

    /// Whether a publish or a decision of the gate is unanswered.
    fn awaits_answers(&self) -> bool {
        self.publishing > 0 || self.deciding > 0
    }

    /// Begins a stage, which may last for `grace` without progress.
    fn begin_end(&mut self, reason: CloseReason, stage: Stage, grace: Duration) {
        self.pulse.wait_from(clock::now());
        let over = Box::pin(tokio::time::sleep_until(self.pulse.due(grace).into()));
        self.ending = Some(Box::new(Ending { reason, stage, grace, over }));
    }
}

impl Connection {
    /// Advances the end by one step. Ready with a reason when the socket may be dropped; ready with `None` when the
    /// caller must check the state again.
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
        // Checked before reading: a client that never stops sending would otherwise postpone the deadline for ever.
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
            // Input is discarded. It must be read, because unread bytes would turn our close into a reset.
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

    /// Begins to end the connection. If the reason is in order, the app's handler first receives all earlier messages.
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
        if matches!(reason, CloseReason::Drain | CloseReason::Moved) && state.awaits_answers() {
            state.begin_end(reason, Stage::Answers, worker.grace(reason));
            drop(state);
            return self.wake();
        }
        drop(state);
        self.farewell(worker, reason);
    }

    /// Notes that the broker has answered a publish.
    pub(in crate::worker) fn answered(&self, worker: &Worker) {
        let mut state = self.state.borrow_mut();
        let paused = state.is_paused();
        state.publishing -= 1;
        drop(state);
        self.settle(worker, paused);
    }

    /// Notes that a pending decision was made and its command carried out.
    pub(in crate::worker) fn decided(&self, worker: &Worker) {
        self.settle(worker, true);
    }

    /// Sends the close frame if only this answer was awaited. Otherwise resumes reading if reading was paused.
    fn settle(&self, worker: &Worker, paused: bool) {
        let state = self.state.borrow();
        let awaited = state.ending.as_ref().filter(|ending| ending.stage == Stage::Answers);
        let due = awaited.filter(|_| !state.awaits_answers()).map(|ending| ending.reason);
        drop(state);
        match due {
            Some(reason) => self.farewell(worker, reason),
            None if paused => self.wake(),
            None => {}
        }
    }

    /// Notes that the app's handler has returned, and ends the connection unless it is already past that stage.
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

    /// Queues the close frame, or the last event of a stream, after which nothing is sent.
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
                if matches!(reason, CloseReason::Drain | CloseReason::Moved | CloseReason::GoingAway) {
                    let hint = Notice::Reconnect { after_ms: fastrand::u64(..RECONNECT) };
                    if let Output::Message(body) = self.format.protocol().notice(hint) {
                        state.push(worker, worker.backlog.frame(body.frame()));
                    }
                }
                let last = match reason {
                    _ if self.format.is_stream() => self.format.protocol().ending(reason).map(|body| body.frame()),
                    // RFC 6455 §5.5.1: the reply to a close frame repeats its code.
                    CloseReason::PeerClosed(None) => Some(codec::frame(Opcode::Close, b"")),
                    CloseReason::PeerClosed(Some(code)) => Some(codec::close(code, "")),
                    _ => Some(match state.inbox.as_ref().and_then(|inbox| inbox.parting()) {
                        Some((code, text)) if reason == CloseReason::Normal => codec::close(code, text),
                        _ => codec::close(code, &reason.text()),
                    }),
                };
                last.into_iter().for_each(|frame| state.push(worker, worker.backlog.frame(frame)));
                Stage::Farewell
            }
        };
        if let Some(inbox) = &mut state.inbox {
            inbox.end();
        }
        state.begin_end(reason, stage, worker.grace(reason));
        state.notify_room();
        drop(state);
        self.wake();
    }

    /// Notes that the peer is gone. Returns the reason, which is the earlier one if the connection was already ending.
    pub(super) fn vanished(&self) -> CloseReason {
        let mut state = self.state.borrow_mut();
        if let Some(inbox) = &mut state.inbox {
            inbox.end();
        }
        state.ending.as_ref().map_or(CloseReason::PeerVanished, |ending| ending.reason)
    }

    /// Sets what the close frame says if an app's handler closes the connection.
    pub(crate) fn part_with(&self, code: u16, text: &str) {
        if let Some(inbox) = &mut self.state.borrow_mut().inbox {
            inbox.part_with(code, text);
        }
    }

    /// The code of the client's close frame, if it closed first.
    pub(crate) fn peers_code(&self) -> Option<u16> {
        match self.state.borrow().ending.as_ref()?.reason {
            CloseReason::PeerClosed(code) => code,
            _ => None,
        }
    }

    /// Resets the TCP connection, so that the kernel drops its unsent bytes at once.
    pub(in crate::worker) fn reset(&self) {
        self.stream.borrow().reset();
    }

    pub(crate) fn is_ending(&self) -> bool {
        let state = self.state.borrow();
        state.gone || state.ending.is_some()
    }

    /// Notes that the worker has removed the connection. Tasks that still hold it can queue nothing more.
    pub(in crate::worker) fn leave(&self, worker: &Worker) {
        let mut state = self.state.borrow_mut();
        state.gone = true;
        state.drop_output(worker);
        state.notify_room();
    }
}
