//! Subscribers as others see them: which of this worker's connections count as members, and which of them watch who is there.
//!
//! Kept apart from the connections, so that those without presence pay nothing.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use broker_adapters::Partition;

use super::Worker;
use super::backlog::Frame;
use super::connection::{Connection, Queued};
use super::hub::{ChannelId, Member, Seat};
use crate::clock;
use crate::close::CloseReason;
use crate::gate::{Attendance, Identity, Question, Slow};
use crate::message::Event;
use crate::presence::{Attendee, Name, Snapshot, TOO_MANY};
use crate::protocol::{Format, Notice, Reply, Sight};

/// The most members in the reply to `subscribe`. A client asks for more with `presence`.
const FIRST: usize = 100;

/// The same for a client of an event stream, which can ask for nothing.
const FIRST_OF_STREAM: usize = 500;

/// How a connection subscribes: what the channel's rule says, and what the client asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seating {
    pub(super) slow: Slow,
    pub(super) attendance: Attendance,
    /// What the client wants to know of who is there.
    pub(super) sight: Sight,
}

/// The connections of one worker that count as members, and those that watch.
#[derive(Debug, Default)]
pub(super) struct Attending {
    present: HashMap<(ChannelId, Member), Attendance>,
    watching: HashMap<Box<str>, BTreeMap<Member, Watch>>,
}

/// A connection that watches a channel.
#[derive(Debug, Clone, Copy)]
struct Watch {
    /// The connection's serial: its `member` may be another connection's by now.
    serial: u32,
    /// The offset up to which it knows who is there.
    from: u64,
    /// Whether it is shown the members of a very large channel.
    all: bool,
}

impl Worker {
    /// Counts a subscriber as a member, if the channel's rule says so.
    pub(super) fn attend(&self, connection: &Connection, seat: Seat, channel: &str, attendance: Attendance) {
        if let Some(attendee) = self.attendee(connection.identity().as_deref(), connection.serial, attendance) {
            self.attending.borrow_mut().present.insert((seat.channel, connection.member), attendance);
            let partition = self.shared.log.partition_of(channel);
            self.shared.presence.join(partition, channel, &attendee, clock::now());
        }
    }

    /// Takes that back before the seat is given up.
    pub(super) fn unattend(&self, connection: &Connection, seat: Seat) {
        let Some(attendance) = self.attending.borrow_mut().unseat((seat.channel, connection.member)) else { return };
        let attendee = self.attendee(connection.identity().as_deref(), connection.serial, attendance);
        let hub = self.hub.borrow();
        if let Some(attendee) = attendee {
            let channel = hub.name(seat.channel);
            let partition = self.shared.log.partition_of(channel);
            self.shared.presence.leave(partition, channel, &attendee, clock::now());
        }
    }

    /// Gives a connection another identity, under which its members go on.
    pub(super) fn rename(&self, connection: &Connection, identity: Arc<Identity>) {
        let before = connection.identity();
        let attendee = |identity: Option<&Identity>| self.attendee(identity, connection.serial, Attendance::Members);
        let (old, new) = (attendee(before.as_deref()), attendee(Some(&identity)));
        connection.set_identity(identity);
        let (Some(old), Some(new)) = (old, new) else { return };
        if old == new {
            return;
        }
        let (state, hub, attending) = (connection.state.borrow(), self.hub.borrow(), self.attending.borrow());
        for seat in state.seats.iter() {
            if attending.present.get(&(seat.channel, connection.member)) == Some(&Attendance::Members) {
                let channel = hub.name(seat.channel);
                let partition = self.shared.log.partition_of(channel);
                self.shared.presence.leave(partition, channel, &old, clock::now());
                self.shared.presence.join(partition, channel, &new, clock::now());
            }
        }
    }

    fn attendee(&self, identity: Option<&Identity>, serial: u32, attendance: Attendance) -> Option<Attendee> {
        match attendance {
            Attendance::Off => None,
            Attendance::Counts => Some(Attendee::Counted),
            Attendance::Members => {
                let user = identity.and_then(Identity::user);
                let name = user.map_or_else(|| Name::client(&self.client_id(serial)), Name::user);
                Some(Attendee::Named(name, identity.and_then(Identity::info)))
            }
        }
    }

    /// Who is in a channel, for a subscriber that wants to know. It is shown all later changes.
    pub(super) fn watch_members(&self, connection: &Connection, channel: &str, seating: Seating) -> Option<Snapshot> {
        let all = match seating.sight {
            Sight::Nothing => return None,
            sight => sight == Sight::All,
        };
        let most = if connection.format.is_stream() { FIRST_OF_STREAM } else { FIRST };
        let mut snapshot = self.members(channel, None, most);
        if snapshot.count >= TOO_MANY && !all {
            // It is shown no changes of them either.
            (snapshot.members, snapshot.next) = (Vec::new(), None);
        }
        let watch = Watch { serial: connection.serial, from: snapshot.at.map_or(0, |at| at.offset.0), all };
        let mut attending = self.attending.borrow_mut();
        attending.watching.entry(channel.into()).or_default().insert(connection.member, watch);
        Some(snapshot)
    }

    /// Replies to `presence`.
    pub(super) fn reply_members(
        &self,
        connection: &Connection,
        id: Option<u64>,
        channel: &str,
        (after, limit): (Option<&Name>, u32),
    ) {
        let snapshot = self.members(channel, after, usize::try_from(limit).unwrap_or(FIRST));
        self.reply(connection, id, &Reply::Presence { channel, snapshot: &snapshot });
    }

    fn members(&self, channel: &str, after: Option<&Name>, limit: usize) -> Snapshot {
        self.shared.presence.snapshot(self.shared.log.partition_of(channel), channel, after, limit)
    }

    /// Shows a connection no more of who is in a channel. Returns false if it was not shown that.
    pub(super) fn unwatch(&self, connection: &Connection, channel: &str) -> bool {
        self.attending.borrow_mut().unwatch(channel, connection.member)
    }

    /// The same in all channels.
    pub(super) fn unwatch_all(&self, connection: &Connection) {
        if self.attending.borrow().watching.is_empty() {
            return;
        }
        for channel in self.channels(connection) {
            self.unwatch(connection, &channel);
        }
    }

    /// Ends what a new identity may not watch.
    pub(super) async fn withdraw_watches(self: &Rc<Self>, connection: &Rc<Connection>, identity: &Arc<Identity>) {
        if self.attending.borrow().watching.is_empty() {
            return;
        }
        for channel in self.channels(connection) {
            let Err(failure) = self.permit(identity, Question::Presence { channel: &channel }).await else { continue };
            if !failure.retry && self.unwatch(connection, &channel) {
                self.notify(connection, Notice::Unseen { channel: &channel, reason: "forbidden" });
            }
        }
    }

    /// Shows the watching connections of a channel a change.
    pub(super) fn show(&self, event: &Event) {
        let watching = self.attending.borrow().watchers(event);
        if watching.is_empty() {
            return;
        }
        let mut frames: [Option<Frame>; Format::COUNT] = Default::default();
        let mut ended = Vec::new();
        for (member, serial) in watching {
            let connection = self.connections.borrow().get(member as usize).cloned();
            let Some(connection) = connection.filter(|connection| connection.serial == serial) else { continue };
            let Some(bytes) = event.frame(connection.format) else { continue };
            let frame = frames[connection.format.index()].get_or_insert_with(|| self.backlog.frame(bytes.clone()));
            if let Queued::Overflow = connection.queue(self, frame.clone()) {
                ended.push(connection);
            }
        }
        ended.iter().for_each(|connection| self.end(connection, CloseReason::TooSlow));
    }

    /// Notes a break. What is shown from now on may stand at smaller offsets.
    pub(super) fn watch_anew(&self, partition: Partition) {
        let mut attending = self.attending.borrow_mut();
        let all = attending.watching.iter_mut();
        let here = all.filter(|(channel, _)| self.shared.log.partition_of(channel) == partition);
        here.flat_map(|(_, watching)| watching.values_mut()).for_each(|watch| watch.from = 0);
    }
}

impl Attending {
    fn unseat(&mut self, key: (ChannelId, Member)) -> Option<Attendance> {
        if self.present.is_empty() { None } else { self.present.remove(&key) }
    }

    fn unwatch(&mut self, channel: &str, member: Member) -> bool {
        let Some(watching) = self.watching.get_mut(channel) else { return false };
        let watched = watching.remove(&member).is_some();
        if watching.is_empty() {
            self.watching.remove(channel);
        }
        watched
    }

    /// The connections to show an event, with their serials.
    fn watchers(&self, event: &Event) -> Vec<(Member, u32)> {
        let all = self.watching.get(&event.change.channel).into_iter().flatten();
        let later = all.filter(|(_, watch)| watch.from < event.at.offset.0 && event.change.to.includes(watch.all));
        later.map(|(member, watch)| (*member, watch.serial)).collect()
    }
}
