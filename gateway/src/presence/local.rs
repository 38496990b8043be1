//! The members that this node's own connections are, in the channels of one partition, and which of them are written.
//!
//! Pure: the time is passed in. A member is announced with its first connection. It is taken back when its last connection has
//! ended and no new one came for the time of `linger`, so a client that reconnects causes no record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fold::TOGETHER;
use super::name::Name;
use super::record::{Info, Member, OnChannel};

/// How long a change waits for others, so that a storm of them is a few records.
const GATHER: Duration = Duration::from_millis(50);

/// This node's members.
#[derive(Debug)]
pub(crate) struct Local {
    linger: Duration,
    channels: HashMap<Arc<str>, Channel>,
    /// When to look at which entries.
    due: BTreeMap<Instant, BTreeSet<Entry>>,
}

/// A member of a channel, or the channel's number.
type Entry = (Arc<str>, Option<Name>);

#[derive(Debug, Default)]
struct Channel {
    members: HashMap<Name, Present>,
    count: Option<Box<Count>>,
}

#[derive(Debug)]
struct Present {
    connections: u32,
    /// Whether it is written as joined, with this information.
    written: bool,
    info: Option<Info>,
    /// When it is taken back, if it has no connections.
    ends: Option<Instant>,
}

#[derive(Debug, Default)]
struct Count {
    connections: u64,
    written: u64,
    wrote: Option<Instant>,
    ends: Option<Instant>,
}

impl Local {
    pub(crate) fn new(linger: Duration) -> Self {
        Self { linger, channels: HashMap::new(), due: BTreeMap::new() }
    }

    /// Adds a connection of a member.
    pub(crate) fn join(&mut self, channel: &str, name: Name, info: Option<Info>, now: Instant) {
        let (channel, of) = self.channel(channel);
        let new = || Present { connections: 0, written: false, info: info.clone(), ends: None };
        let present = of.members.entry(name.clone()).or_insert_with(new);
        present.connections += 1;
        present.ends = None;
        if present.info != info {
            (present.info, present.written) = (info, false);
        }
        if !present.written {
            self.look(now + GATHER, (channel, Some(name)));
        }
    }

    /// Removes a connection of a member.
    pub(crate) fn leave(&mut self, channel: &str, name: Name, now: Instant) {
        let ends = now + self.linger.max(GATHER);
        let Some((channel, of)) = self.known(channel) else { return };
        let Some(present) = of.members.get_mut(&name) else { return };
        present.connections = present.connections.saturating_sub(1);
        if present.connections == 0 {
            present.ends = Some(ends);
            self.look(ends, (channel, Some(name)));
        }
    }

    /// Adds a subscriber to a channel's number.
    pub(crate) fn count_in(&mut self, channel: &str, now: Instant) {
        let (channel, of) = self.channel(channel);
        let count = of.count.get_or_insert_default();
        count.connections += 1;
        count.ends = None;
        let at = count.next(now);
        self.look(at, (channel, None));
    }

    /// Removes a subscriber from a channel's number.
    pub(crate) fn count_out(&mut self, channel: &str, now: Instant) {
        let ends = now + self.linger.max(GATHER);
        let Some((name, of)) = self.known(channel) else { return };
        let Some(count) = &mut of.count else { return };
        count.connections = count.connections.saturating_sub(1);
        let at = match count.connections {
            0 => *count.ends.insert(ends),
            _ => count.next(now),
        };
        self.look(at, (name, None));
    }

    /// When [`take`](Self::take) has something to give; `None` if nothing has changed.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|(at, _)| *at)
    }

    /// What must be written now.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<OnChannel> {
        let mut changes: BTreeMap<Arc<str>, OnChannel> = BTreeMap::new();
        while let Some(first) = self.due.first_entry().filter(|first| *first.key() <= now) {
            for (channel, name) in first.remove() {
                let on = || OnChannel::new(&channel);
                match &name {
                    Some(name) => match self.judge(&channel, name, now) {
                        Some(true) => {
                            let info = self.info(&channel, name);
                            changes.entry(Arc::clone(&channel)).or_insert_with(on).join.push(Member::new(name, info));
                        }
                        Some(false) => {
                            changes.entry(Arc::clone(&channel)).or_insert_with(on).leave.push(Member::new(name, None));
                        }
                        None => {}
                    },
                    None => {
                        if let Some(number) = self.number(&channel, now) {
                            changes.entry(Arc::clone(&channel)).or_insert_with(on).count = Some(number);
                        }
                    }
                }
                self.forget(&channel);
            }
        }
        changes.into_values().collect()
    }

    /// All that this node has, as a list says it. Nothing of it need be written again as a change.
    pub(crate) fn list(&mut self, now: Instant) -> Vec<OnChannel> {
        let mut all = Vec::new();
        for (name, channel) in &mut self.channels {
            let mut on = OnChannel::new(name);
            for (name, present) in &mut channel.members {
                // One that has never been written and has left again need not be.
                if present.connections > 0 || present.written {
                    present.written = true;
                    on.join.push(Member::new(name, present.info.as_ref()));
                }
            }
            if let Some(count) = channel.count.as_mut() {
                on.count = Some(count.write(now)).filter(|number| *number > 0);
            }
            all.push(on);
        }
        all
    }

    /// Whether no member waits to be written or taken back.
    pub(crate) fn is_settled(&self) -> bool {
        self.due.is_empty()
    }

    fn known(&mut self, channel: &str) -> Option<(Arc<str>, &mut Channel)> {
        let name = Arc::clone(self.channels.get_key_value(channel)?.0);
        let of = self.channels.get_mut(&name)?;
        Some((name, of))
    }

    fn channel(&mut self, channel: &str) -> (Arc<str>, &mut Channel) {
        let name = self.channels.get_key_value(channel).map_or_else(|| channel.into(), |(name, _)| Arc::clone(name));
        (Arc::clone(&name), self.channels.entry(name).or_default())
    }

    fn look(&mut self, at: Instant, entry: Entry) {
        self.due.entry(at).or_default().insert(entry);
    }

    /// Whether a member must be written as joined or as left; it is noted as written.
    fn judge(&mut self, channel: &str, name: &Name, now: Instant) -> Option<bool> {
        let members = &mut self.channels.get_mut(channel)?.members;
        let present = members.get_mut(name)?;
        if present.connections == 0 && present.ends.is_none_or(|ends| ends <= now) {
            let was_written = members.remove(name)?.written;
            return was_written.then_some(false);
        }
        let joins = present.connections > 0 && !std::mem::replace(&mut present.written, true);
        joins.then_some(true)
    }

    fn info(&self, channel: &str, name: &Name) -> Option<&Info> {
        self.channels.get(channel)?.members.get(name)?.info.as_ref()
    }

    /// A channel's number, if it must be written.
    fn number(&mut self, channel: &str, now: Instant) -> Option<u64> {
        let count = self.channels.get_mut(channel)?.count.as_mut()?;
        if let Some(later) = count.waits(now) {
            self.look(later, (channel.into(), None));
            return None;
        }
        let before = count.written;
        (count.write(now) != before).then_some(count.written)
    }

    fn forget(&mut self, channel: &str) {
        if let Some(of) = self.channels.get_mut(channel) {
            of.count.take_if(|count| count.connections == 0 && count.written == 0);
            if of.members.is_empty() && of.count.is_none() {
                self.channels.remove(channel);
            }
        }
    }
}

impl Count {
    /// When a change of the number is written: the first subscriber soon, others a second after the last record.
    fn next(&self, now: Instant) -> Instant {
        let soon = now + GATHER;
        match self.wrote {
            Some(wrote) if self.written > 0 => soon.max(wrote + TOGETHER),
            _ => soon,
        }
    }

    /// When a changed number may be written, if that is not now.
    fn waits(&self, now: Instant) -> Option<Instant> {
        let changes = self.connections > 0 && self.written > 0 && self.connections != self.written;
        self.wrote.map(|wrote| wrote + TOGETHER).filter(|next| changes && now < *next)
    }

    /// The number to write now: the last subscriber counts until its linger has passed.
    fn write(&mut self, now: Instant) -> u64 {
        let lingers = self.connections == 0 && self.ends.is_some_and(|ends| now < ends);
        if !lingers && self.written != self.connections {
            (self.written, self.wrote) = (self.connections, Some(now));
        }
        self.written
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const LINGER: Duration = Duration::from_secs(5);

    fn said(changes: &[OnChannel]) -> Vec<(String, bool)> {
        let of = |on: &OnChannel| {
            let join = on.join.iter().map(|member| (member, true));
            let both = join.chain(on.leave.iter().map(|member| (member, false)));
            let named = both.filter_map(|(member, joins)| Some((member.name()?, joins)));
            named.map(|(name, joins)| (format!("{} {}", on.channel, name.text()), joins)).collect::<Vec<_>>()
        };
        changes.iter().flat_map(of).collect()
    }

    #[test]
    fn a_member_is_written_once_and_a_reconnect_within_the_linger_is_silent() {
        let (mut local, start, ann) = (Local::new(LINGER), Instant::now(), Name::user("ann"));
        let after = |millis| start + Duration::from_millis(millis);
        local.join("room", ann.clone(), None, start);
        assert_eq!((local.next(), said(&local.take(start))), (Some(start + GATHER), vec![]), "others may follow");
        assert_eq!(said(&local.take(after(50))), [("room ann".to_owned(), true)]);
        local.join("room", ann.clone(), None, after(60));
        local.leave("room", ann.clone(), after(70));
        assert_eq!(local.next(), None, "another connection of hers is there");
        local.leave("room", ann.clone(), after(1_000));
        local.join("room", ann.clone(), None, after(5_900));
        assert_eq!((said(&local.take(after(6_000))), local.next()), (vec![], None));
        local.leave("room", ann.clone(), after(7_000));
        assert_eq!(said(&local.take(after(11_999))), []);
        assert_eq!(said(&local.list(after(11_999))), [("room ann".to_owned(), true)], "she lingers");
        assert_eq!(said(&local.take(after(12_000))), [("room ann".to_owned(), false)]);
        assert!(local.is_settled() && local.channels.is_empty() && local.list(after(12_000)).is_empty());
        local.join("room", ann.clone(), None, after(20_000));
        local.leave("room", ann, after(20_010));
        assert_eq!(said(&local.take(after(20_050))), [], "she was gone before she was written");
        assert_eq!((said(&local.take(after(26_000))), local.is_settled()), (vec![], true));
    }

    #[test]
    fn the_number_of_subscribers_is_written_at_most_once_a_second_and_its_end_after_the_linger() {
        let (mut local, start) = (Local::new(LINGER), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        let mut counts = Vec::new();
        for step in 0..2_000 {
            let now = after(step * 10);
            match step {
                0..100 => local.count_in("news", now),
                300..400 => local.count_out("news", now),
                _ => {}
            }
            let taken = local.take(now);
            counts.extend(taken.iter().filter_map(|on| Some((step * 10, on.count?))));
        }
        assert_eq!(counts.first(), Some(&(50, 6)));
        assert_eq!(counts.last(), Some(&(8_990, 0)), "the last one has left at 3.99 s");
        assert!(counts.len() <= 6 && counts.contains(&(1_050, 100)), "{counts:?}");
        assert!(local.channels.is_empty());
    }

    #[test]
    fn changes_and_lists_written_in_order_always_tell_who_is_there() {
        for seed in 0..500 {
            let (mut rng, mut local, mut now) = (Rng::with_seed(seed), Local::new(LINGER), Instant::now());
            let mut connections: BTreeMap<String, u32> = BTreeMap::new();
            let mut written = BTreeSet::new();
            for _ in 0..200 {
                now += Duration::from_millis(rng.u64(..2_000));
                let key = ["ann", "bob", "eve"][rng.usize(..3)];
                let count = connections.entry(format!("room {key}")).or_default();
                if rng.bool() {
                    *count += 1;
                    local.join("room", Name::user(key), None, now);
                } else if *count > 0 {
                    *count -= 1;
                    local.leave("room", Name::user(key), now);
                }
                let changes = match rng.u8(..4) {
                    0 => {
                        written.clear();
                        local.list(now)
                    }
                    _ => local.take(now),
                };
                for (who, joins) in said(&changes) {
                    let new = if joins { written.insert(who.clone()) } else { written.remove(&who) };
                    assert!(new, "seed {seed}: {who}");
                }
            }
            for (who, joins) in said(&local.take(now + 2 * LINGER)) {
                let _ = if joins { written.insert(who) } else { written.remove(&who) };
            }
            let there = connections.into_iter().filter(|(_, count)| *count > 0).map(|(who, _)| who);
            assert_eq!(written, there.collect(), "seed {seed}");
        }
    }

    #[test]
    fn a_member_of_this_node_takes_at_most_120_bytes_more() {
        let entry = size_of::<Name>() + size_of::<Present>() + 1;
        // A table is at least 7/16 full, and 2/3 on average.
        assert!(entry * 3 / 2 <= 120, "{entry}");
    }
}
