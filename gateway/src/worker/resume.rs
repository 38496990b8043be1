//! Clients that come back: exactly what they missed, at the pace at which they take it, or the plain word that it cannot
//! be had.
//!
//! What is missed and what is live meet at the worker's own position: up to it the window answers, after it the hub. Until
//! then the channel is the connection's and not the hub's, and a task of its own waits for what is yet to come: this
//! node, older records, or the client. All of it ends with the connection, or when the client leaves the channel.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Break, BreakReason, Position};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Worker;
use super::catch_up::{CatchUp, Step, Wait};
use super::connection::{Connection, Offered};
use crate::protocol::{Failure, Notice, Reply};
use crate::window::Page;

/// How long this node may need to get to where the client has been on another one.
const BEHIND: Duration = Duration::from_secs(2);
/// After how much of that the broker is asked whether its log reaches so far.
const MOMENT: Duration = Duration::from_millis(200);

/// The pause after which the broker is asked again for what a client was promised.
const PAUSE: Duration = Duration::from_secs(1);

/// The most bytes that wait for a client on account of what it missed: the rest stays in the window until it has taken them.
const CHUNK: usize = 64 << 10;

/// Resumes of one worker that may wait at a time; further ones are refused. Each takes about 1 KB.
const WAITING: usize = 16_384;

/// Positions that one connection may name for which the broker is asked in vain; it is not asked for further ones.
const UNFOUNDED: u8 = 16;

/// What one connection has yet to catch up with; absent while there is nothing.
#[derive(Default)]
pub(super) struct Returning {
    channels: BTreeMap<Box<str>, UnderWay>,
    /// For how many positions the broker was asked in vain.
    unfounded: u8,
}

struct UnderWay {
    catch_up: CatchUp,
    /// Waits on its behalf, and ends with it.
    _task: Pursuit,
}

struct Pursuit(AbortHandle);

impl Drop for Pursuit {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What came of waiting.
enum Waited {
    Go(Option<Arc<Page>>),
    /// The log does not hold what the client names, or not any more.
    InVain,
    /// It cannot be said yet.
    Late,
}

impl Returning {
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }
}

impl Worker {
    /// Subscribes a connection from a position on. The reply comes now or later.
    pub(super) fn resume(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<u64>,
        channel: &str,
        since: Position,
    ) -> Result<(), Failure> {
        self.position(self.shared.log.partition_of(channel))?;
        self.check_room(connection)?;
        if self.waiting.get() >= WAITING {
            return Err(overloaded("too many clients wait for what they missed"));
        }
        let mut catch_up = CatchUp::new(id, since);
        if let Some(wait) = self.go_on(connection, channel, &mut catch_up, None) {
            self.wait(connection, channel, catch_up, wait);
        }
        Ok(())
    }

    /// A command to subscribe to a channel that the connection is in, or about to be in: twice is once. False if it is not.
    pub(super) fn subscribe_again(
        &self,
        connection: &Connection,
        id: Option<u64>,
        channel: &str,
        since: Option<Position>,
    ) -> Result<bool, Failure> {
        if let Some(begun) = self.subscribed_since(connection, channel) {
            let at = self.position(self.shared.log.partition_of(channel))?;
            if since.is_some_and(|since| since.partition == at.partition && since.offset > at.offset) {
                return Err(unavailable());
            }
            self.answer_again(connection, channel, begun, at, (id, since));
            return Ok(true);
        }
        let mut state = connection.state.borrow_mut();
        let Some(under_way) = state.returning.as_mut().and_then(|all| all.channels.get_mut(channel)) else {
            return Ok(false);
        };
        let catch_up = &mut under_way.catch_up;
        if catch_up.answered {
            let (begun, at) = (catch_up.since.offset.0, catch_up.at());
            drop(state);
            self.answer_again(connection, channel, begun, at, (id, since));
        } else if !catch_up.asked_again((id, since)) {
            return Err(overloaded("too many commands to subscribe to this channel wait"));
        }
        Ok(true)
    }

    /// Answers somebody who has all messages since `begun`, those after `at` yet to come.
    fn answer_again(
        &self,
        connection: &Connection,
        channel: &str,
        begun: u64,
        at: Position,
        (id, since): (Option<u64>, Option<Position>),
    ) {
        let whole = since.map(|since| {
            let same = since.partition == at.partition && since.offset.0 >= begun;
            same && self.shared.window.holds(since)
        });
        self.reply(connection, id, &Reply::Subscribed { channel, at, recovered: whole });
    }

    /// Gives up what is under way on a channel, which the client leaves; false if nothing is.
    pub(super) fn leave_returning(&self, connection: &Connection, channel: &str) -> bool {
        let Some(under_way) = self.take_back(connection, channel) else { return false };
        let left = Failure::new("left", "the channel was left before this was answered");
        self.refuse(connection, under_way.catch_up, &left);
        true
    }

    /// Gives up all that is under way on a connection.
    pub(super) fn leave_all_returning(&self, connection: &Connection) {
        let returning = connection.state.borrow_mut().returning.take();
        if let Some(returning) = returning {
            self.waiting.set(self.waiting.get() - returning.len());
            self.returning.borrow_mut().remove(&connection.member);
        }
    }

    /// Messages of a partition are lost: those who are catching up there cannot go on.
    pub(super) fn break_off(&self, lost: Break) {
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
                if let Some(UnderWay { catch_up, .. }) = self.take_back(&connection, &channel) {
                    self.give_up(&connection, &channel, catch_up, lost.reason);
                }
            }
        }
    }

    /// Goes on as far as is possible now; gives what is waited for, or nothing when it is over.
    fn go_on(
        &self,
        connection: &Connection,
        channel: &str,
        catch_up: &mut CatchUp,
        page: Option<&Page>,
    ) -> Option<Wait> {
        let partition = self.shared.log.partition_of(channel);
        let most = CHUNK.min(self.shared.config.limits.outbox.bytes() / 2);
        loop {
            // Known since the command was taken.
            let worker = self.position(partition).ok()?;
            let breaks = self.breaks.borrow()[usize::from(partition.0)];
            let window = &self.shared.window;
            let step = catch_up.step(worker, |at| window.owed(channel, (at, worker), breaks, CHUNK, page));
            match step {
                Step::Wait(wait) if catch_up.answered || self.may_ask(connection) => return Some(wait),
                Step::Wait(_) => catch_up.give_up(),
                Step::Over => {
                    let done = std::mem::replace(catch_up, CatchUp::new(None, worker));
                    self.give_up(connection, channel, done, BreakReason::Trimmed);
                    return None;
                }
                Step::Live => {
                    self.answer(connection, channel, catch_up);
                    self.take_seat(connection, channel, catch_up.since.offset);
                    return None;
                }
                Step::Give { messages, to } => {
                    self.answer(connection, channel, catch_up);
                    for message in messages {
                        match connection.offer(self, message.frame(connection.format), most) {
                            Offered::Yes => catch_up.gave(message.record.position()),
                            Offered::Full => return Some(Wait::Room),
                            Offered::Ending => return None,
                        }
                        self.shared.metrics.delivered(1);
                    }
                    catch_up.gave(to);
                }
            }
        }
    }

    /// Says once that all that was missed follows.
    fn answer(&self, connection: &Connection, channel: &str, catch_up: &mut CatchUp) {
        if !std::mem::replace(&mut catch_up.answered, true) {
            let since = catch_up.since;
            let whole = Reply::Subscribed { channel, at: since, recovered: Some(true) };
            self.reply(connection, catch_up.id, &whole);
            for again in std::mem::take(&mut catch_up.again) {
                self.answer_again(connection, channel, since.offset.0, since, again);
            }
        }
    }

    /// Subscribes to what comes, and says that what was missed cannot be had, or not all of it.
    fn give_up(&self, connection: &Connection, channel: &str, catch_up: CatchUp, reason: BreakReason) {
        let at = match self.position(self.shared.log.partition_of(channel)) {
            Ok(at) => at,
            Err(failure) => return self.refuse(connection, catch_up, &failure),
        };
        if catch_up.answered {
            let lost = Break { after: catch_up.at(), at, reason };
            self.notify(connection, Notice::Lost { channel, lost });
        } else {
            let begun = Reply::Subscribed { channel, at, recovered: Some(false) };
            self.reply(connection, catch_up.id, &begun);
        }
        self.take_seat(connection, channel, at.offset);
        for again in catch_up.again {
            self.answer_again(connection, channel, at.offset.0, at, again);
        }
    }

    /// Answers all that was not answered yet.
    fn refuse(&self, connection: &Connection, catch_up: CatchUp, failure: &Failure) {
        let first = (!catch_up.answered).then_some(catch_up.id);
        for id in first.into_iter().chain(catch_up.again.into_iter().map(|(id, _)| id)) {
            self.fail(connection, id, failure);
        }
    }

    /// Whether the broker is still asked for the positions that a client names.
    fn may_ask(&self, connection: &Connection) -> bool {
        let state = connection.state.borrow();
        state.returning.as_ref().is_none_or(|returning| returning.unfounded < UNFOUNDED)
    }

    /// Leaves a channel to a task that waits for it.
    fn wait(self: &Rc<Self>, connection: &Rc<Connection>, channel: &str, catch_up: CatchUp, wait: Wait) {
        if connection.is_ending() {
            return;
        }
        let pursuit = Rc::clone(self).pursue(Rc::clone(connection), channel.into(), wait);
        let task = Pursuit(self.attend(connection, pursuit));
        self.put(connection, channel, UnderWay { catch_up, _task: task });
    }

    async fn pursue(self: Rc<Self>, connection: Rc<Connection>, channel: Box<str>, mut wait: Wait) {
        loop {
            let (page, in_vain) = match self.wait_for(&connection, &channel, wait).await {
                Waited::Go(page) => (page, false),
                Waited::InVain => (None, true),
                Waited::Late if self.answered(&connection, &channel) => {
                    sleep(PAUSE).await;
                    (None, false)
                }
                Waited::Late => return self.put_off(&connection, &channel),
            };
            let Some(mut under_way) = self.take_back(&connection, &channel) else { return };
            if in_vain {
                under_way.catch_up.give_up();
                let mut state = connection.state.borrow_mut();
                let returning = state.returning.get_or_insert_default();
                returning.unfounded = returning.unfounded.saturating_add(1);
            }
            let next = self.go_on(&connection, &channel, &mut under_way.catch_up, page.as_deref());
            match next.filter(|_| !connection.is_ending()) {
                Some(next) => {
                    wait = next;
                    self.put(&connection, &channel, under_way);
                }
                None => return self.flush(),
            }
            self.flush();
            // Others have their turn, however fast this client reads.
            tokio::task::yield_now().await;
        }
    }

    async fn wait_for(&self, connection: &Connection, channel: &str, wait: Wait) -> Waited {
        let shared = &self.shared;
        match wait {
            Wait::Room => {
                connection.room(self).await;
                Waited::Go(None)
            }
            Wait::Page(at) => match shared.window.page(&shared.log, channel, at).await {
                Ok(Some(page)) => Waited::Go(Some(page)),
                Ok(None) => Waited::InVain,
                Err(_) => Waited::Late,
            },
            Wait::Node(at) => {
                if timeout(MOMENT, self.until_past(at)).await.is_ok() {
                    return Waited::Go(None);
                }
                let rest = async {
                    match shared.window.head(&shared.log, at.partition).await {
                        // The log has never been there: the position is of another one.
                        Ok(head) if head < at.offset => return Waited::InVain,
                        Ok(_) => self.until_past(at).await,
                        Err(_) => return Waited::Late,
                    }
                    Waited::Go(None)
                };
                timeout(BEHIND, rest).await.unwrap_or(Waited::Late)
            }
        }
    }

    /// Tells a client to try again.
    fn put_off(&self, connection: &Connection, channel: &str) {
        if let Some(UnderWay { catch_up, .. }) = self.take_back(connection, channel) {
            self.refuse(connection, catch_up, &unavailable());
            self.flush();
        }
    }

    fn answered(&self, connection: &Connection, channel: &str) -> bool {
        let state = connection.state.borrow();
        let under_way = state.returning.as_ref().and_then(|returning| returning.channels.get(channel));
        under_way.is_some_and(|under_way| under_way.catch_up.answered)
    }

    fn put(&self, connection: &Connection, channel: &str, under_way: UnderWay) {
        let mut state = connection.state.borrow_mut();
        state.returning.get_or_insert_default().channels.insert(channel.into(), under_way);
        self.returning.borrow_mut().insert(connection.member);
        self.waiting.set(self.waiting.get() + 1);
    }

    /// What is under way on a channel, if anything is; the connection has it no more.
    fn take_back(&self, connection: &Connection, channel: &str) -> Option<UnderWay> {
        let mut state = connection.state.borrow_mut();
        let returning = state.returning.as_mut()?;
        let under_way = returning.channels.remove(channel)?;
        self.waiting.set(self.waiting.get() - 1);
        if returning.channels.is_empty() {
            self.returning.borrow_mut().remove(&connection.member);
            if returning.unfounded == 0 {
                state.returning = None;
            }
        }
        Some(under_way)
    }

    /// Waits until this worker has seen a position's record, or one after it, and all breaks that the window knows of.
    async fn until_past(&self, position: Position) {
        loop {
            let moved = self.moved.notified();
            let Position { partition, offset, .. } = position;
            let seen = self.breaks.borrow()[usize::from(partition.0)];
            let there = self.position(partition).is_ok_and(|at| at.offset >= offset);
            if there && seen == self.shared.window.breaks(partition) {
                return;
            }
            moved.await;
        }
    }
}

fn unavailable() -> Failure {
    Failure::for_now("unavailable", "this node cannot tell yet what follows that position: try again")
}

fn overloaded(why: &str) -> Failure {
    Failure::for_now("overloaded", format!("{why}: try again"))
}
