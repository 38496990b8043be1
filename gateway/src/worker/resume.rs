//! Clients that come back: exactly what they missed, or the plain word that it cannot be had.
//!
//! What is missed and what is live meet at the worker's own position: up to it the window answers, after it the hub. A
//! client may be ahead of this node, or further back than the window: both are waited for, but not for long.

use std::rc::Rc;
use std::time::Duration;

use broker_adapters::Position;
use tokio::time::timeout;

use super::Worker;
use super::connection::Connection;
use crate::message::Format;
use crate::protocol::native::{self, Failure};
use crate::window::Missed;

/// How long this node may need to get to where the client has been on another one.
const BEHIND: Duration = Duration::from_secs(2);

/// What came of a try to resume.
enum Tried {
    /// The client is subscribed and told.
    Done,
    /// The worker has yet to hear of what the client, or the window, has seen.
    Behind,
    /// The window must be extended first.
    Older,
}

impl Worker {
    /// Subscribes a connection from a position on. The reply comes now or later.
    pub(super) fn resume(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<u64>,
        channel: &str,
        since: Position,
    ) -> Result<Option<String>, Failure> {
        self.check_absent(connection, channel)?;
        self.position(self.shared.log.partition_of(channel))?;
        let mut tried = self.try_to_resume(connection, id, channel, since)?;
        if matches!(tried, Tried::Done) {
            return Ok(None);
        }
        let (worker, connection, channel) = (Rc::clone(self), Rc::clone(connection), channel.to_owned());
        tokio::task::spawn_local(async move {
            match tried {
                Tried::Behind => drop(timeout(BEHIND, worker.until_past(since)).await),
                _ => drop(worker.shared.window.reach(&worker.shared.log, since).await),
            }
            if connection.is_ending() {
                return;
            }
            // A later command may have been faster.
            let absent = worker.check_absent(&connection, &channel);
            let again = absent.and_then(|()| worker.try_to_resume(&connection, id, &channel, since));
            let result = again.and_then(|again| {
                tried = again;
                match tried {
                    Tried::Done => Ok(()),
                    Tried::Behind | Tried::Older => worker.start_over(&connection, id, &channel),
                }
            });
            if let Err(failure) = result {
                worker.reply(&connection, &native::failed(id, &failure));
            }
            worker.flush();
        });
        Ok(None)
    }

    fn check_absent(&self, connection: &Connection, channel: &str) -> Result<(), Failure> {
        match self.seat(connection, channel) {
            Some(_) => Err(Failure::new("already_subscribed", "leave the channel before resuming it")),
            None => Ok(()),
        }
    }

    fn try_to_resume(
        &self,
        connection: &Connection,
        id: Option<u64>,
        channel: &str,
        since: Position,
    ) -> Result<Tried, Failure> {
        let partition = self.shared.log.partition_of(channel);
        let at = self.position(partition)?;
        if since.partition != partition {
            return self.start_over(connection, id, channel).map(|()| Tried::Done);
        }
        if since.offset > at.offset {
            return Ok(Tried::Behind);
        }
        let breaks = self.breaks.borrow()[usize::from(partition.0)];
        let messages = match self.shared.window.missed(channel, since, at.offset, breaks) {
            Missed::These(messages) => messages,
            Missed::Ahead => return Ok(Tried::Behind),
            Missed::Older => return Ok(Tried::Older),
            Missed::Unknown => return self.start_over(connection, id, channel).map(|()| Tried::Done),
        };
        let bytes: usize = messages.iter().map(|message| message.frame(Format::Native).len()).sum();
        if bytes > self.shared.config.limits.outbox.bytes() / 2 {
            // More than the client may have waiting: it would be closed for what it asked for.
            return self.start_over(connection, id, channel).map(|()| Tried::Done);
        }
        self.subscribe(connection, channel)?;
        self.reply(connection, &native::subscribed(id, channel, since, Some(true)));
        for message in messages {
            self.send(connection, message.frame(Format::Native).clone());
        }
        Ok(Tried::Done)
    }

    /// Subscribes to what comes, and says that what was missed cannot be had.
    fn start_over(&self, connection: &Connection, id: Option<u64>, channel: &str) -> Result<(), Failure> {
        let at = self.subscribe(connection, channel)?;
        self.reply(connection, &native::subscribed(id, channel, at, Some(false)));
        Ok(())
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
