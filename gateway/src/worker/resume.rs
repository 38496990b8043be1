//! Resume: sends a returning client exactly the messages it missed, as fast as it reads them, or reports that they are
//! no longer available.
//!
//! The window answers up to the worker's own position, and the hub delivers everything after it. Until a channel has
//! caught up it belongs to its connection and not to the hub. A task of its own then waits for this node, for older
//! records, or for room in the outbox. The task ends with the connection, or when the client unsubscribes.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use broker_adapters::{Break, BreakReason, Position};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::Worker;
use super::attending::Seating;
use super::catch_up::{CatchUp, Step, Wait};
use super::connection::{Connection, Offered, State};
use super::history::WaitingHistory;
use super::waiting::{Unfounded, Waited};
use crate::clock;
use crate::protocol::{Failure, Notice, Sight};
use crate::window::Page;

/// The pause between retries to read messages that a client was promised.
const RETRY: Duration = Duration::from_secs(1);

/// The most bytes of missed messages that are queued for one client. The rest stays in the window until the client has
/// read them.
const CHUNK: usize = 64 << 10;

/// The most channels of one worker that may wait to catch up; further resumes are refused. Each takes about 1 KB.
pub(super) const WAITING: usize = 16_384;

/// The channels with which one connection is catching up.
#[derive(Default)]
pub(super) struct Returning {
    channels: BTreeMap<Box<str>, CatchingUp>,
    pub(super) unfounded: Unfounded,
    /// The `history` commands that wait.
    pub(super) histories: Vec<WaitingHistory>,
}

struct CatchingUp {
    catch_up: CatchUp,
    /// Aborted when this is dropped.
    _task: AbortOnDrop,
}

pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Returning {
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.channels.keys().map(|name| &**name)
    }
}

impl Connection {
    /// Whether it is catching up with a channel.
    pub(super) fn is_catching_up(&self, channel: &str) -> bool {
        self.state.borrow().returning.as_ref().is_some_and(|returning| returning.channels.contains_key(channel))
    }
}

impl Worker {
    /// Subscribes a connection to the messages after `since`, or else to the `last` messages and all that follow. The reply
    /// comes now or later; a failure is returned.
    pub(super) fn resume(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<u64>,
        channel: &str,
        (since, last): (Option<Position>, Option<u32>),
        seating: Seating,
    ) -> Result<(), Failure> {
        let worker = self.position(self.shared.log.partition_of(channel))?;
        self.check_room(connection)?;
        if self.waiting.get() >= WAITING {
            return Err(overloaded("too many clients are resuming"));
        }
        self.take_channel(connection)?;
        let mut catch_up = match since {
            Some(since) => CatchUp::new(id, since).or_last(last),
            None => CatchUp::of_last(id, worker, last.unwrap_or(0), self.shared.config.limits.outbox.bytes()),
        };
        catch_up.seating = seating;
        if let Some(wait) = self.advance_catch_up(connection, channel, &mut catch_up, None) {
            self.wait(connection, channel, catch_up, wait);
        }
        Ok(())
    }

    /// Handles a repeated `subscribe`, for a channel that the connection is subscribed to or catching up with. Returns
    /// false if it is neither.
    pub(super) fn repeat_subscribe(
        &self,
        connection: &Connection,
        id: Option<u64>,
        channel: &str,
        (since, seating): (Option<Position>, Seating),
    ) -> Result<bool, Failure> {
        if let Some(begun) = self.subscribed_since(connection, channel) {
            let at = self.position(self.shared.log.partition_of(channel))?;
            if since.is_some_and(|since| since.partition == at.partition && since.offset > at.offset) {
                return Err(unavailable());
            }
            self.answer_repeat(connection, channel, (begun, at), (id, since), seating);
            return Ok(true);
        }
        let mut state = connection.state.borrow_mut();
        let Some(catching_up) = state.returning.as_mut().and_then(|all| all.channels.get_mut(channel)) else {
            return Ok(false);
        };
        let catch_up = &mut catching_up.catch_up;
        if catch_up.answered {
            let (begun, at) = (catch_up.since.offset.0, catch_up.at());
            drop(state);
            self.answer_repeat(connection, channel, (begun, at), (id, since), seating);
        } else if seating.sight != Sight::Nothing {
            let why = "the first subscribe command for this channel is not answered yet: try again";
            return Err(Failure::for_now("unavailable", why));
        } else if !catch_up.add_repeat((id, since)) {
            return Err(overloaded("too many subscribe commands for this channel are pending"));
        }
        Ok(true)
    }

    /// Answers a repeated `subscribe` of a connection that receives all messages since `begun`. Those after `at` are
    /// still to come.
    fn answer_repeat(
        &self,
        connection: &Connection,
        channel: &str,
        (begun, at): (u64, Position),
        (id, since): (Option<u64>, Option<Position>),
        seating: Seating,
    ) {
        let whole = since.map(|since| {
            let same = since.partition == at.partition && since.offset.0 >= begun;
            same && self.shared.window.holds(since)
        });
        self.reply_subscribed(connection, id, channel, (at, whole, None), seating);
    }

    /// Stops catching up with a channel from which the client unsubscribes. Returns false if it was not catching up.
    pub(super) fn stop_catch_up(&self, connection: &Connection, channel: &str) -> bool {
        let Some(catching_up) = self.remove_catch_up(connection, channel) else { return false };
        let left = Failure::new("left", "the client unsubscribed before this was answered");
        self.refuse(connection, catching_up.catch_up, &left);
        true
    }

    /// Stops catching up with all channels of a connection.
    pub(super) fn stop_all_catch_ups(&self, connection: &Connection) {
        let returning = connection.state.borrow_mut().returning.take();
        if let Some(returning) = returning {
            self.waiting.set(self.waiting.get() - returning.len() - returning.histories.len());
            self.returning.borrow_mut().remove(&connection.member);
        }
    }

    /// Ends all catch-ups in a partition of which messages are lost.
    pub(super) fn break_catch_ups(&self, lost: Break) {
        let members: Vec<_> = self.returning.borrow().iter().copied().collect();
        for member in members {
            let connection = self.connections.borrow().get(member as usize).cloned();
            let Some(connection) = connection else { continue };
            let state = connection.state.borrow();
            let all = state.returning.iter().flat_map(|returning| returning.channels.keys());
            let of = |channel: &str| self.shared.log.partition_of(channel) == lost.at.partition;
            let channels: Vec<_> = all.filter(|channel| of(channel)).cloned().collect();
            drop(state);
            for channel in channels {
                if let Some(CatchingUp { catch_up, .. }) = self.remove_catch_up(&connection, &channel) {
                    self.subscribe_to_new(&connection, &channel, catch_up, lost.reason);
                }
            }
        }
    }

    /// Advances a catch-up as far as possible now. Returns what it must wait for, or `None` when it has ended.
    fn advance_catch_up(
        &self,
        connection: &Connection,
        channel: &str,
        catch_up: &mut CatchUp,
        page: Option<&Page>,
    ) -> Option<Wait> {
        let partition = self.shared.log.partition_of(channel);
        let most = CHUNK.min(self.shared.config.limits.outbox.bytes() / 2);
        loop {
            // A page that was read for this catch-up must be used at once: there may be no room to keep it.
            if page.is_none() && self.caught_up.get() >= CHUNK {
                return Some(Wait::Turn);
            }
            // The position was known when the command was accepted.
            let worker = self.position(partition).ok()?;
            let breaks = self.breaks.borrow()[usize::from(partition.0)];
            let window = &self.shared.window;
            let search = |edge, most| window.preceding(channel, edge, breaks, most, page);
            if let Some(wait) = catch_up.search(search) {
                return Some(wait);
            }
            let step = catch_up.step(worker, |at| window.owed(channel, (at, worker), breaks, CHUNK, page));
            match step {
                Step::Wait(wait) if catch_up.answered || self.may_ask_broker(connection) => return Some(wait),
                Step::Wait(_) => catch_up.mark_unavailable(),
                Step::Over if catch_up.search_last(worker, self.shared.config.limits.outbox.bytes()) => {}
                Step::Over => {
                    let done = std::mem::replace(catch_up, CatchUp::new(None, worker));
                    self.subscribe_to_new(connection, channel, done, BreakReason::Trimmed);
                    return None;
                }
                Step::Live => {
                    self.answer(connection, channel, catch_up);
                    self.take_seat(connection, channel, catch_up.since.offset, catch_up.seating);
                    return None;
                }
                Step::Queue { messages, to } => {
                    self.answer(connection, channel, catch_up);
                    for message in messages {
                        if self.is_excluded(connection, &message.record) {
                            continue;
                        }
                        match connection.offer_message(self, &message, most) {
                            Offered::Yes => {
                                let length = message.frame(connection.format.shared()).len();
                                self.caught_up.set(self.caught_up.get() + length);
                                catch_up.queued_to(message.record.position());
                            }
                            Offered::Full => return Some(Wait::Room),
                            Offered::Ending => return None,
                        }
                        self.shared.metrics.delivered(1);
                    }
                    catch_up.queued_to(to);
                }
            }
        }
    }

    /// Replies, once, that all missed messages follow.
    fn answer(&self, connection: &Connection, channel: &str, catch_up: &mut CatchUp) {
        if !std::mem::replace(&mut catch_up.answered, true) {
            let since = catch_up.since;
            let (recovered, last) = (catch_up.recovered, catch_up.last());
            let answer = (since, recovered, last);
            self.reply_subscribed(connection, catch_up.id, channel, answer, catch_up.seating);
            for repeat in std::mem::take(&mut catch_up.repeats) {
                self.answer_repeat(connection, channel, (since.offset.0, since), repeat, Seating::default());
            }
        }
    }

    /// Subscribes to new messages only, and reports that missed messages are unavailable.
    fn subscribe_to_new(&self, connection: &Connection, channel: &str, catch_up: CatchUp, reason: BreakReason) {
        let at = match self.position(self.shared.log.partition_of(channel)) {
            Ok(at) => at,
            Err(failure) => return self.refuse(connection, catch_up, &failure),
        };
        if catch_up.answered {
            let lost = Break { after: catch_up.at(), at, reason };
            self.notify(connection, Notice::Lost { channel, lost });
        } else {
            let recovered = catch_up.recovered.map(|_| false);
            let last = catch_up.last_unavailable();
            self.reply_subscribed(connection, catch_up.id, channel, (at, recovered, last), catch_up.seating);
        }
        self.take_seat(connection, channel, at.offset, catch_up.seating);
        for repeat in catch_up.repeats {
            self.answer_repeat(connection, channel, (at.offset.0, at), repeat, Seating::default());
        }
    }

    /// Ends a catch-up without a subscription, and answers all its commands that are unanswered with `failure`.
    fn refuse(&self, connection: &Connection, catch_up: CatchUp, failure: &Failure) {
        connection.give_channel_back();
        let first = (!catch_up.answered).then_some(catch_up.id);
        for id in first.into_iter().chain(catch_up.repeats.into_iter().map(|(id, _)| id)) {
            self.fail(connection, id, failure);
        }
    }

    /// Starts a task that waits and then goes on with the catch-up.
    fn wait(self: &Rc<Self>, connection: &Rc<Connection>, channel: &str, catch_up: CatchUp, wait: Wait) {
        if connection.is_ending() {
            return;
        }
        let task = Rc::clone(self).run_catch_up(Rc::clone(connection), channel.into(), wait);
        let task = AbortOnDrop(self.spawn_for(connection, task));
        self.insert_catch_up(connection, channel, CatchingUp { catch_up, _task: task });
    }

    async fn run_catch_up(self: Rc<Self>, connection: Rc<Connection>, channel: Box<str>, mut wait: Wait) {
        loop {
            let (page, not_held) = match self.wait_for(&connection, &channel, wait).await {
                Waited::Ready(page) => (page, false),
                Waited::NotHeld => (None, true),
                Waited::Unavailable if self.answered(&connection, &channel) => {
                    sleep(RETRY).await;
                    (None, false)
                }
                Waited::Unavailable => return self.ask_to_retry(&connection, &channel),
            };
            let Some(mut catching_up) = self.remove_catch_up(&connection, &channel) else { return };
            if not_held && !catching_up.catch_up.end_search() {
                catching_up.catch_up.mark_unavailable();
                self.note_unfounded(&connection);
            }
            let next = self.advance_catch_up(&connection, &channel, &mut catching_up.catch_up, page.as_deref());
            match next.filter(|_| !connection.is_ending()) {
                Some(next) => {
                    wait = next;
                    self.insert_catch_up(&connection, &channel, catching_up);
                }
                None => return self.flush(),
            }
            self.flush();
            // Lets other tasks run, however fast this client reads.
            tokio::task::yield_now().await;
        }
    }

    /// Ends a catch-up with a failure that asks the client to retry.
    fn ask_to_retry(&self, connection: &Connection, channel: &str) {
        if let Some(CatchingUp { catch_up, .. }) = self.remove_catch_up(connection, channel) {
            self.refuse(connection, catch_up, &unavailable());
            self.flush();
        }
    }

    fn answered(&self, connection: &Connection, channel: &str) -> bool {
        let state = connection.state.borrow();
        let catching_up = state.returning.as_ref().and_then(|returning| returning.channels.get(channel));
        catching_up.is_some_and(|catching_up| catching_up.catch_up.answered)
    }

    fn insert_catch_up(&self, connection: &Connection, channel: &str, catching_up: CatchingUp) {
        let mut state = connection.state.borrow_mut();
        state.returning.get_or_insert_default().channels.insert(channel.into(), catching_up);
        self.returning.borrow_mut().insert(connection.member);
        self.waiting.set(self.waiting.get() + 1);
    }

    /// Removes and returns a channel's catch-up, if there is one.
    fn remove_catch_up(&self, connection: &Connection, channel: &str) -> Option<CatchingUp> {
        let mut state = connection.state.borrow_mut();
        let returning = state.returning.as_mut()?;
        let catching_up = returning.channels.remove(channel)?;
        self.waiting.set(self.waiting.get() - 1);
        self.tidy(connection, &mut state);
        Some(catching_up)
    }

    /// Removes and returns a `history` command that waits, if it still does.
    pub(super) fn remove_history(&self, connection: &Connection, number: u64) -> Option<WaitingHistory> {
        let mut state = connection.state.borrow_mut();
        let histories = &mut state.returning.as_mut()?.histories;
        let place = histories.iter().position(|waiting| waiting.number == number)?;
        let removed = histories.remove(place);
        self.waiting.set(self.waiting.get() - 1);
        self.tidy(connection, &mut state);
        Some(removed)
    }

    /// Frees what a connection without anything that waits does not need.
    fn tidy(&self, connection: &Connection, state: &mut State) {
        let Some(returning) = &state.returning else { return };
        if returning.channels.is_empty() && returning.histories.is_empty() {
            self.returning.borrow_mut().remove(&connection.member);
            if returning.unfounded.count(clock::now()) == 0 {
                state.returning = None;
            }
        }
    }
}

fn unavailable() -> Failure {
    Failure::for_now("unavailable", "this node cannot read the messages after that position yet: try again")
}

pub(super) fn overloaded(why: &str) -> Failure {
    Failure::for_now("overloaded", format!("{why}: try again"))
}
