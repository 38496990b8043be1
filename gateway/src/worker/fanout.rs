//! Fan-out: delivers records from the relay to the connections subscribed to their channels.
//!
//! All records of a batch for one channel are joined into one run of bytes, which its subscribers share. Each socket
//! gets one write per flush. A record without subscribers on this worker costs one lookup.

use std::rc::Rc;
use std::sync::Arc;

use broker_adapters::{Break, Position};
use bytes::{Bytes, BytesMut};

use super::Worker;
use super::backlog::Frame;
use super::connection::{Connection, Queued};
use super::excluding::excludes;
use super::hub::ChannelId;
use crate::close::CloseReason;
use crate::message::Message;
use crate::protocol::{Format, Notice, Output};
use crate::relay::Relayed;

/// Payload bytes after which sockets are flushed, so that a long batch does not fill the outboxes of healthy clients.
const FLUSH: usize = 64 << 10;

/// A record and the channel it goes to.
type Hit<'a> = (ChannelId, &'a Message);

impl Worker {
    /// Delivers batches from the relay, in order.
    pub(super) async fn fan_out(&self, batches: &[Arc<[Relayed]>]) {
        let mut hits: Vec<Hit<'_>> = Vec::new();
        let mut bytes = 0;
        for relayed in batches.iter().flat_map(|batch| batch.iter()) {
            match relayed {
                Relayed::Message(message) => {
                    self.advance(message.record.position());
                    if let Some(channel) = self.hub.borrow().find(message.record.channel()) {
                        bytes += message.record.payload.bytes().len();
                        hits.push((channel, message));
                    }
                }
                Relayed::At(at) => self.advance(*at),
                Relayed::Ordered(at, orders) => {
                    self.deliver(&mut hits);
                    self.advance(*at);
                    self.obey(orders);
                }
                Relayed::Up(at) => self.positions.borrow_mut()[usize::from(at.partition.0)] = Some(*at),
                Relayed::Presence(event) => {
                    self.deliver(&mut hits);
                    self.show(event);
                }
                Relayed::Degraded(degraded) => {
                    self.deliver(&mut hits);
                    self.degraded(*degraded);
                }
                Relayed::Lost(lost) => {
                    self.deliver(&mut hits);
                    let partition = usize::from(lost.at.partition.0);
                    self.positions.borrow_mut()[partition] = Some(lost.at);
                    self.breaks.borrow_mut()[partition] += 1;
                    self.lost(*lost);
                    self.watch_anew(lost.at.partition);
                    self.break_catch_ups(*lost);
                }
            }
            if bytes >= FLUSH {
                self.deliver(&mut hits);
                bytes = 0;
                // The runtime must poll the sockets before a full one is known to have room again.
                tokio::task::yield_now().await;
            }
        }
        self.deliver(&mut hits);
        self.moved.notify_waiters();
    }

    /// Notes that a partition was read up to here. Ignored until the partition is up: it has no subscribers before
    /// that.
    fn advance(&self, at: Position) {
        if let Some(position) = &mut self.positions.borrow_mut()[usize::from(at.partition.0)] {
            *position = at;
        }
    }

    /// Notifies all clients that the broker is unreachable, or reachable again.
    fn degraded(&self, degraded: bool) {
        self.degraded.set(degraded);
        let connections: Vec<_> = self.connections.borrow().iter().map(|(_, one)| Rc::clone(one)).collect();
        connections.iter().for_each(|connection| self.notify(connection, Notice::Degraded(degraded)));
    }

    fn deliver(&self, hits: &mut Vec<Hit<'_>>) {
        // Stable: the order within a channel is the log's.
        hits.sort_by_key(|hit| hit.0);
        // A message that is not for all is a run of its own.
        let together =
            |one: &Hit<'_>, other: &Hit<'_>| one.0 == other.0 && !excludes(&one.1.record) && !excludes(&other.1.record);
        for run in hits.chunk_by(together) {
            let excluded = self.excluded(&run[0].1.record);
            let members = if self.hub.borrow().is_latest(run[0].0) {
                self.deliver_latest(run, excluded)
            } else {
                let mut frames: [Option<Frame>; Format::COUNT] = Default::default();
                self.broadcast(run[0].0, excluded, |connection| {
                    let format = connection.format;
                    if format.has_own_ids() {
                        return Ok(connection.queue(self, self.own(connection, run)));
                    }
                    let frame = frames[format.index()].get_or_insert_with(|| self.backlog.frame(joined(run, format)));
                    Ok(connection.queue(self, frame.clone()))
                })
            };
            self.shared.metrics.delivered(members * run.len());
        }
        hits.clear();
        self.flush();
    }

    /// Delivers a run of messages to subscribers that skip to the newest one if they read slowly.
    fn deliver_latest(&self, run: &[Hit<'_>], excluded: Option<u32>) -> usize {
        let mut frames: [Option<(Frame, Frame)>; Format::COUNT] = Default::default();
        let make = |format| {
            let all = self.backlog.frame(joined(run, format));
            let newest = match run {
                [_, .., last] => self.backlog.frame(last.1.frame(format).clone()),
                _ => all.clone(),
            };
            (all, newest)
        };
        let at = run[run.len() - 1].1.record.position();
        self.broadcast(run[0].0, excluded, |connection| {
            if connection.format.has_own_ids() && !connection.is_blocked() {
                return Ok(connection.queue(self, self.own(connection, run)));
            }
            let format = connection.format.shared();
            let (all, newest) = frames[format.index()].get_or_insert_with(|| make(format)).clone();
            Ok(connection.queue_latest(self, run[0].0, all, (newest, at), run.len()))
        })
    }

    /// A run of messages with the ids of one client.
    fn own(&self, connection: &Connection, run: &[Hit<'_>]) -> Frame {
        self.backlog.frame(connection.own_messages(run.iter().map(|(_, message)| *message)))
    }

    /// Calls `queue` for each subscriber but the one with the serial `excluded`; an error ends that connection. Returns the
    /// number of subscribers.
    fn broadcast(
        &self,
        channel: ChannelId,
        excluded: Option<u32>,
        mut queue: impl FnMut(&Connection) -> Result<Queued, CloseReason>,
    ) -> usize {
        let mut ended = Vec::new();
        let connections = self.connections.borrow();
        let hub = self.hub.borrow();
        let members = hub.members(channel);
        let mut count = members.len();
        for &member in members {
            let Some(connection) = connections.get(member as usize) else { continue };
            if excluded == Some(connection.serial) {
                count -= 1;
                continue;
            }
            match queue(connection) {
                Ok(Queued::Yes | Queued::Ending) => {}
                Ok(Queued::Overflow) => ended.push((member, CloseReason::TooSlow)),
                Err(reason) => ended.push((member, reason)),
            }
        }
        drop((hub, connections));
        for (member, reason) in ended {
            let connection = self.connections.borrow().get(member as usize).cloned();
            if let Some(connection) = connection {
                self.end(&connection, reason);
            }
        }
        count
    }

    /// Notifies all subscribers of a partition's channels that messages are lost.
    fn lost(&self, lost: Break) {
        let hub = self.hub.borrow();
        let named = hub.channels().map(|channel| (channel, hub.name(channel)));
        let concerned = named.filter(|(_, name)| self.shared.log.partition_of(name) == lost.at.partition);
        let concerned: Vec<_> = concerned.map(|(channel, name)| (channel, name.to_owned())).collect();
        drop(hub);
        for (channel, name) in concerned {
            // One frame per format, shared by all subscribers.
            let notices: Vec<_> = Format::all()
                .map(|format| match format.protocol().notice(Notice::Lost { channel: &name, lost }) {
                    Output::Message(body) => Ok(self.backlog.frame(body.frame())),
                    Output::Close(reason) => Err(reason),
                    // A loss must always reach the client.
                    Output::Nothing => Err(CloseReason::MessagesLost),
                })
                .collect();
            self.broadcast(channel, None, |connection| {
                // Its newest message comes before the loss.
                connection.queue_newest(self, channel);
                let notice = notices[connection.format.index()].clone()?;
                let notice = match connection.format.has_own_ids() {
                    true => self.backlog.frame(connection.own_event(&name, lost.at, &notice)),
                    false => notice,
                };
                Ok(connection.queue(self, notice))
            });
        }
        self.flush();
    }
}

/// The frames of a run, one after the other.
fn joined(run: &[Hit<'_>], format: Format) -> Bytes {
    if let [(_, message)] = run {
        return message.frame(format).clone();
    }
    let mut out = BytesMut::with_capacity(run.iter().map(|(_, message)| message.frame(format).len()).sum());
    run.iter().for_each(|(_, message)| out.extend_from_slice(message.frame(format)));
    out.freeze()
}
