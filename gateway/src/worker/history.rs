//! Answers `history`: from the window at once, or later, when older records have been read back or the outbox has room.
//!
//! A command that waits has a task of its own, which ends with the connection. It holds a place in the channel and no
//! messages. Its answer is queued when the outbox is nearly empty, so it closes no client.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Worker;
use super::catch_up::Wait;
use super::connection::Connection;
use super::excerpt::{Answer, Drawn, Excerpt, gone, unavailable};
use super::resume::{AbortOnDrop, WAITING, overloaded};
use super::waiting::Waited;
use crate::gate::{Identity, Question};
use crate::protocol::{Failure, Reply, Start};
use crate::window::Page;

/// The most `history` commands of one connection that may wait.
const PENDING: usize = 8;

/// The longest time to wait for a page of older records, with those that are read before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A `history` command that waits.
pub(super) struct WaitingHistory {
    /// Unlike that of any other that waits on its connection.
    pub(super) number: u64,
    id: Option<u64>,
    channel: Box<str>,
    /// Aborted when this is dropped.
    _task: AbortOnDrop,
}

/// A `history` command that is being answered.
struct Asked {
    id: Option<u64>,
    channel: Box<str>,
    excerpt: Excerpt,
}

impl Worker {
    /// Answers a `history` command now or later; a failure is returned.
    pub(super) fn history(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<u64>,
        channel: &str,
        (start, limit): (Start, u32),
    ) -> Result<(), Failure> {
        self.position(self.shared.log.partition_of(channel))?;
        let room = self.shared.config.limits.outbox.bytes() / 2;
        let mut asked = Asked { id, channel: channel.into(), excerpt: Excerpt::new(start, limit, room) };
        let Some(wait) = self.advance_history(connection, &mut asked, None) else { return Ok(()) };
        let mut state = connection.state.borrow_mut();
        let returning = state.returning.get_or_insert_default();
        if returning.histories.len() >= PENDING || self.waiting.get() >= WAITING {
            return Err(overloaded("too many history commands are pending"));
        }
        let number = returning.histories.last().map_or(0, |last| last.number + 1);
        let task = Rc::clone(self).run_history(Rc::clone(connection), asked, wait, number);
        let task = AbortOnDrop(self.spawn_for(connection, task));
        returning.histories.push(WaitingHistory { number, id, channel: channel.into(), _task: task });
        drop(state);
        self.waiting.set(self.waiting.get() + 1);
        self.returning.borrow_mut().insert(connection.member);
        Ok(())
    }

    async fn run_history(self: Rc<Self>, connection: Rc<Connection>, mut asked: Asked, mut wait: Wait, number: u64) {
        loop {
            let page = match self.wait_for_history(&connection, &asked, wait).await {
                Waited::Ready(page) => Ok(page),
                Waited::NotHeld => {
                    if asked.excerpt.is_unfounded() {
                        self.note_unfounded(&connection);
                    }
                    let held = matches!(wait, Wait::Earlier(at) if self.shared.window.holds(at));
                    asked.excerpt.not_held(held).map_or(Ok(None), Err)
                }
                Waited::Unavailable => Err(Drawn::Unavailable),
            };
            let next = match page {
                Ok(page) => self.advance_history(&connection, &mut asked, page.as_deref()),
                Err(drawn) => self.answer_history(&connection, &asked, drawn),
            };
            self.flush();
            match next {
                Some(next) => wait = next,
                None => break,
            }
            // Lets other tasks run, however fast this client reads.
            tokio::task::yield_now().await;
        }
        self.remove_history(&connection, number);
    }

    /// Refuses the waiting commands that a new identity may not ask.
    pub(super) async fn withdraw_histories(self: &Rc<Self>, connection: &Rc<Connection>, identity: &Arc<Identity>) {
        for (number, channel) in connection.waiting_histories() {
            let Err(failure) = self.permit(identity, Question::History { channel: &channel }).await else { continue };
            if !failure.retry
                && let Some(withdrawn) = self.remove_history(connection, number)
            {
                self.fail(connection, withdrawn.id, &failure);
            }
        }
    }

    async fn wait_for_history(&self, connection: &Connection, asked: &Asked, wait: Wait) -> Waited {
        match wait {
            Wait::Room => self.wait_for(connection, &asked.channel, wait).await,
            // Nothing is known of the position, so neither `gone` nor an end would be true.
            _ if asked.excerpt.is_unfounded() && !self.may_ask_broker(connection) => Waited::Unavailable,
            _ => {
                let waited = timeout(PATIENCE, self.wait_for(connection, &asked.channel, wait)).await;
                waited.unwrap_or(Waited::Unavailable)
            }
        }
    }

    /// Goes on with an answer. Returns what it must wait for, or `None` when it is given.
    fn advance_history(&self, connection: &Connection, asked: &mut Asked, page: Option<&Page>) -> Option<Wait> {
        if !connection.has_room(self) {
            return Some(Wait::Room);
        }
        let partition = self.shared.log.partition_of(&asked.channel);
        // The position was known when the command was accepted.
        let worker = self.position(partition).ok()?;
        let breaks = self.breaks.borrow()[usize::from(partition.0)];
        let (window, format, channel) = (&self.shared.window, connection.format, &*asked.channel);
        let room = self.shared.config.limits.outbox.bytes() / 2;
        let drawn = asked.excerpt.step(
            worker,
            &|message| message.frame(format).len(),
            |at| window.owed(channel, (at, worker), breaks, room, page),
            |edge, most| window.preceding(channel, edge, breaks, most, page),
        );
        self.answer_history(connection, asked, drawn)
    }

    fn answer_history(&self, connection: &Connection, asked: &Asked, drawn: Drawn) -> Option<Wait> {
        match drawn {
            Drawn::Wait(wait) => return Some(wait),
            Drawn::Answer(Answer { messages, next, complete }) => {
                let records = messages.iter().map(|message| &message.record);
                let records: Vec<_> = records.filter(|record| !self.is_excluded(connection, record)).collect();
                let channel = &*asked.channel;
                self.reply(connection, asked.id, &Reply::History { channel, records: &records, next, complete });
            }
            Drawn::Gone => self.fail(connection, asked.id, &gone()),
            Drawn::Unavailable => self.fail(connection, asked.id, &unavailable()),
        }
        None
    }
}

impl Connection {
    /// The numbers and channels of the `history` commands that wait.
    fn waiting_histories(&self) -> Vec<(u64, Box<str>)> {
        let state = self.state.borrow();
        let waiting = state.returning.iter().flat_map(|returning| &returning.histories);
        waiting.map(|one| (one.number, one.channel.clone())).collect()
    }
}
