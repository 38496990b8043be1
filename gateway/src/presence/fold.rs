//! Who is subscribed to the channels of one partition, folded from its records.
//!
//! Pure: the records alone decide, so all nodes see the same. The time that is passed in decides only when subscribers are shown a
//! change. A member is there while at least one life holds it. A life's list replaces what it held before, so whatever a reader
//! missed is right again with the next list.

mod changes;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Instant;

use slab::Slab;

#[cfg(test)]
pub(crate) use self::changes::Audience;
pub(crate) use self::changes::{Change, TOGETHER, TOO_MANY};
use super::name::Name;
use super::record::{Info, OnChannel, Written};
use super::step::{Noted, Step, What};
use crate::cluster::{Ended, Life};

/// The most ended nodes that are remembered.
const ENDED: usize = 4_096;

/// The most lives that are remembered without members.
const LIVES: usize = 1_024;

/// The members of one partition's channels.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    ids: HashMap<Box<str>, u32>,
    channels: Slab<Channel>,
    /// One map for all channels, because a map has much memory of its own.
    members: BTreeMap<Key, Vec<Held>>,
    lives: BTreeMap<Life, Heard>,
    ended: Ended<ENDED>,
    /// Channels whose changes are yet to be shown.
    changed: BTreeSet<u32>,
    /// What the record that is being folded changes; only where webhooks need it.
    noted: Option<Noted>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    channel: u32,
    name: Name,
}

#[derive(Debug)]
struct Channel {
    name: Box<str>,
    members: u64,
    counts: Vec<Counted>,
    /// The number that was shown last, and when.
    shown: u64,
    last: Option<Instant>,
    /// Members as they were when a change was shown last, if they may have changed since; `None` if they were not there.
    before: BTreeMap<Name, Option<Option<Info>>>,
    /// Whether members were read while changes waited to be shown. Those readers know of members that no change has shown.
    read: Cell<bool>,
}

/// A member's entry of one life. `at` is the offset of the record that last said so.
#[derive(Debug)]
struct Held {
    life: Life,
    at: u64,
    info: Option<Info>,
}

/// A life's number of subscribers.
#[derive(Debug)]
struct Counted {
    life: Life,
    at: u64,
    number: u64,
}

/// What was read of a life.
#[derive(Debug, Default)]
struct Heard {
    /// The number of its last record.
    number: u64,
    /// The offset of the first record of the list that is being read.
    listing: Option<u64>,
    /// Whether all that it holds is known: a list was read, and no record is missing since.
    whole: bool,
    /// The number of its entries.
    held: u64,
}

/// Some members of a channel, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) members: Vec<(Name, Option<Info>)>,
    /// Whether there are more.
    pub(crate) more: bool,
    /// The number of all.
    pub(crate) count: u64,
}

impl Fold {
    /// A fold that says what each record changes.
    pub(crate) fn noting() -> Self {
        Self { noted: Some(Noted::default()), ..Self::default() }
    }

    /// Folds a record that stands at this offset.
    pub(crate) fn apply(&mut self, record: &Written, offset: u64) {
        for life in &record.ended {
            self.ended.add(*life);
            self.end_up_to(*life);
        }
        let Some(life) = record.life.filter(|life| !self.ended.covers(*life)) else { return };
        self.forget_lives();
        let heard = self.lives.entry(life).or_default();
        if record.number <= heard.number {
            // It was given up by its writer, which has said more since.
            return;
        }
        if record.number != heard.number + 1 {
            (heard.whole, heard.listing) = (false, None);
        }
        heard.number = record.number;
        if record.list.is_some_and(|part| part.begins()) {
            heard.listing = Some(offset);
        }
        let listing = heard.listing;
        record.channels.iter().for_each(|on| self.fold_channel(life, on, offset));
        if let (Some(first), Some(true)) = (listing, record.list.map(|part| part.ends())) {
            self.drop_entries(|entry, at| entry == life && at < first);
            if let Some(heard) = self.lives.get_mut(&life) {
                (heard.whole, heard.listing) = (true, None);
            }
            if life.incarnation > 1 {
                let earlier = Life { incarnation: life.incarnation - 1, ..life };
                self.ended.add(earlier);
                self.end_up_to(earlier);
            }
        }
    }

    fn fold_channel(&mut self, life: Life, on: &OnChannel, offset: u64) {
        if on.join.is_empty() && on.count.is_none_or(|number| number == 0) && !self.ids.contains_key(&*on.channel) {
            return;
        }
        let id = self.id(&on.channel);
        for member in &on.join {
            let Some(name) = member.name() else { continue };
            let held = Held { life, at: offset, info: member.info() };
            self.hold(id, name, held);
        }
        for name in on.leave.iter().filter_map(|member| member.name()) {
            self.let_go(Key { channel: id, name }, |entry, _| entry == life);
        }
        if let Some(number) = on.count {
            self.count(id, Counted { life, at: offset, number });
        }
        // A channel without members is removed when its changes have been shown.
        self.changed.insert(id);
    }

    /// Notes that records of the partition are missing here. Members stay; the next lists say who is there.
    pub(crate) fn broke(&mut self) {
        for heard in self.lives.values_mut() {
            (heard.whole, heard.listing) = (false, None);
        }
        // The offsets of another log may be smaller.
        self.members.values_mut().flatten().for_each(|held| held.at = 0);
        self.channels.iter_mut().flat_map(|(_, channel)| &mut channel.counts).for_each(|counted| counted.at = 0);
    }

    /// Of these lives, those whose members are not all known.
    pub(crate) fn unknown(&self, lives: &[Life]) -> Vec<Life> {
        let known = |life: &Life| self.lives.get(life).is_some_and(|heard| heard.whole);
        lives.iter().copied().filter(|life| !known(life)).collect()
    }

    /// The lives that hold members and are not live.
    pub(crate) fn ghosts(&self, is_live: impl Fn(Life) -> bool) -> Vec<Life> {
        let holding = self.lives.iter().filter(|(_, heard)| heard.held > 0);
        holding.map(|(life, _)| *life).filter(|life| !is_live(*life)).collect()
    }

    /// Whether a life's records no longer count.
    pub(crate) fn has_ended(&self, life: Life) -> bool {
        self.ended.covers(life)
    }

    /// Up to `limit` members of a channel that come after a name, in the order of names.
    pub(crate) fn page(&self, channel: &str, after: Option<&Name>, limit: usize) -> Page {
        let Some(&id) = self.ids.get(channel) else { return Page::default() };
        let after = after.map(|name| Excluded(Key { channel: id, name: name.clone() }));
        let from = after.unwrap_or_else(|| Excluded(Key { channel: id, name: Name::user("") }));
        // No user has an empty name.
        let mut rest = self.members.range((from, Unbounded)).take_while(|(key, _)| key.channel == id);
        let members = rest.by_ref().take(limit).map(|(key, held)| (key.name.clone(), shown(held).flatten()));
        let channel = &self.channels[id as usize];
        if !channel.before.is_empty() || channel.count() != channel.shown {
            channel.read.set(true);
        }
        Page { members: members.collect(), more: rest.next().is_some(), count: channel.count() }
    }

    /// The channels with members whose names begin with `prefix`, and their numbers.
    pub(crate) fn channels(&self, prefix: &str) -> impl Iterator<Item = (&str, u64)> {
        let all = self.channels.iter().map(|(_, channel)| (&*channel.name, channel.count()));
        all.filter(move |(name, count)| *count > 0 && name.starts_with(prefix))
    }

    fn id(&mut self, channel: &str) -> u32 {
        if let Some(&id) = self.ids.get(channel) {
            return id;
        }
        let id = self.channels.insert(Channel::new(channel));
        // Far fewer than 2^32: each has a member.
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        self.ids.insert(channel.into(), id);
        id
    }

    /// Notes whether a channel had members before the record, when the record first concerns it.
    fn touch(&mut self, channel: u32) {
        if let Some(noted) = &mut self.noted {
            noted.touch(channel, self.channels[channel as usize].count() > 0);
        }
    }

    /// What the last record changed, in an order that depends on the records alone.
    pub(crate) fn steps(&mut self) -> Vec<Step> {
        let of = |id: u32| (&*self.channels[id as usize].name, self.channels[id as usize].count() > 0);
        self.noted.as_mut().map(|noted| noted.take(of)).unwrap_or_default()
    }

    fn hold(&mut self, channel: u32, name: Name, held: Held) {
        self.touch(channel);
        let of = &mut self.channels[channel as usize];
        let life = held.life;
        let entries = self.members.entry(Key { channel, name: name.clone() }).or_insert_with(|| Vec::with_capacity(1));
        let before = shown(entries);
        of.members += u64::from(before.is_none());
        if let Some(noted) = self.noted.as_mut().filter(|_| before.is_none()) {
            noted.add(channel, What::Joined(name.clone(), held.info.clone()));
        }
        match entries.binary_search_by_key(&life, |held| held.life) {
            Ok(index) => entries[index] = held,
            Err(index) => {
                entries.insert(index, held);
                if let Some(heard) = self.lives.get_mut(&life) {
                    heard.held += 1;
                }
            }
        }
        if shown(entries) != before {
            of.before.entry(name).or_insert(before);
        }
    }

    /// Drops those of a member's entries that `gone` picks by life and offset.
    fn let_go(&mut self, key: Key, gone: impl Fn(Life, u64) -> bool) {
        self.touch(key.channel);
        let Some(entries) = self.members.get_mut(&key) else { return };
        let before = shown(entries);
        entries.retain(|held| {
            let goes = gone(held.life, held.at);
            if let Some(heard) = self.lives.get_mut(&held.life).filter(|_| goes) {
                heard.held -= 1;
            }
            !goes
        });
        let after = shown(entries);
        if after == before {
            return;
        }
        let channel = &mut self.channels[key.channel as usize];
        if after.is_none() {
            channel.members -= 1;
            self.members.remove(&key);
            if let Some(noted) = &mut self.noted {
                noted.add(key.channel, What::Left(key.name.clone()));
            }
        }
        self.changed.insert(key.channel);
        channel.before.entry(key.name).or_insert(before);
    }

    fn count(&mut self, channel: u32, counted: Counted) {
        self.touch(channel);
        let counts = &mut self.channels[channel as usize].counts;
        let life = counted.life;
        let before = counts.len();
        counts.retain(|other| other.life != life);
        let held = counts.len() < before;
        let holds = counted.number > 0;
        if holds {
            counts.push(counted);
        }
        if let Some(heard) = self.lives.get_mut(&life) {
            heard.held = heard.held + u64::from(holds) - u64::from(held);
        }
    }

    /// Drops all entries that `gone` picks by life and offset.
    fn drop_entries(&mut self, gone: impl Fn(Life, u64) -> bool) {
        let concerned = self.members.iter().filter(|(_, entries)| entries.iter().any(|held| gone(held.life, held.at)));
        let keys: Vec<_> = concerned.map(|(key, _)| key.clone()).collect();
        keys.into_iter().for_each(|key| self.let_go(key, &gone));
        for (id, channel) in &mut self.channels {
            let (id, lives, before) = (u32::try_from(id).unwrap_or(u32::MAX), &mut self.lives, channel.count() > 0);
            channel.counts.retain(|counted| {
                let goes = gone(counted.life, counted.at);
                if goes {
                    self.changed.insert(id);
                    if let Some(noted) = &mut self.noted {
                        noted.touch(id, before);
                    }
                    if let Some(heard) = lives.get_mut(&counted.life) {
                        heard.held -= 1;
                    }
                }
                !goes
            });
        }
    }

    /// Ends a life and the earlier ones of its node.
    fn end_up_to(&mut self, last: Life) {
        let of = |life: Life| life.node == last.node && life.incarnation <= last.incarnation;
        if self.lives.iter().any(|(life, heard)| of(*life) && heard.held > 0) {
            self.drop_entries(|life, _| of(life));
        }
        self.lives.retain(|life, _| !of(*life));
    }

    /// Forgets lives without members when there are too many.
    fn forget_lives(&mut self) {
        if self.lives.len() >= LIVES {
            self.lives.retain(|_, heard| heard.held > 0);
        }
    }
}

impl Channel {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            members: 0,
            counts: Vec::new(),
            shown: 0,
            last: None,
            before: BTreeMap::new(),
            read: Cell::new(false),
        }
    }

    fn count(&self) -> u64 {
        self.members + self.counts.iter().map(|counted| counted.number).sum::<u64>()
    }
}

/// A member as others see it: with the information of its first entry.
#[expect(clippy::option_option, reason = "whether there is a member, and whether it has information")]
fn shown(entries: &[Held]) -> Option<Option<Info>> {
    entries.first().map(|held| held.info.clone())
}

#[cfg(test)]
mod tests;
