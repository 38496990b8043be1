//! Which connections of one worker are subscribed to which channel.
//!
//! Pure. Owned by its worker, never shared. A subscriber is a small number that the worker chooses. Its index in a
//! channel's list is its seat. Connections remember their seats, so that unsubscribing is as fast in a large channel as
//! in a small one.

use std::collections::HashMap;

use slab::Slab;

/// The number of a connection within its worker.
pub(crate) type Member = u32;

/// The number of a channel within its hub, valid while it has subscribers.
pub(crate) type ChannelId = u32;

/// A subscription: a place in a channel's list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) channel: ChannelId,
    index: u32,
}

/// A member that was moved into a freed seat. Its connection must remember the new seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) member: Member,
    pub(crate) to: Seat,
}

/// The channels with at least one subscriber on this worker.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    ids: HashMap<Box<str>, ChannelId>,
    channels: Slab<Channel>,
}

#[derive(Debug)]
struct Channel {
    name: Box<str>,
    members: Vec<Member>,
    /// Whether subscribers that read slowly skip to the newest message. Only if all of them may.
    latest: bool,
}

impl Hub {
    /// With `latest`, the subscriber may skip to the newest message if it reads slowly.
    pub(crate) fn subscribe(&mut self, name: &str, member: Member, latest: bool) -> Seat {
        let channel = match self.ids.get(name) {
            Some(&id) => id,
            None => {
                let id = number(self.channels.insert(Channel { name: name.into(), members: Vec::new(), latest }));
                self.ids.insert(name.into(), id);
                id
            }
        };
        let Channel { members, latest: all, .. } = &mut self.channels[channel as usize];
        *all &= latest;
        members.push(member);
        Seat { channel, index: number(members.len() - 1) }
    }

    /// Frees a seat. The last member of the channel's list moves into it.
    pub(crate) fn unsubscribe(&mut self, seat: Seat) -> Option<Moved> {
        let channel = self.channels.get_mut(seat.channel as usize)?;
        channel.members.swap_remove(seat.index as usize);
        if channel.members.is_empty() {
            let channel = self.channels.remove(seat.channel as usize);
            self.ids.remove(&channel.name);
            return None;
        }
        if channel.members.len() * 4 < channel.members.capacity() {
            channel.members.shrink_to(channel.members.len() * 2);
        }
        channel.members.get(seat.index as usize).map(|&member| Moved { member, to: seat })
    }

    /// The channel of this name, if it has a subscriber on this worker.
    pub(crate) fn find(&self, name: &str) -> Option<ChannelId> {
        self.ids.get(name).copied()
    }

    /// The subscribers of a channel; empty if all of them have unsubscribed.
    pub(crate) fn members(&self, channel: ChannelId) -> &[Member] {
        self.channels.get(channel as usize).map_or(&[], |channel| &channel.members)
    }

    /// Whether subscribers of a channel that read slowly skip to the newest message.
    pub(crate) fn is_latest(&self, channel: ChannelId) -> bool {
        self.channels.get(channel as usize).is_some_and(|channel| channel.latest)
    }

    pub(crate) fn name(&self, channel: ChannelId) -> &str {
        &self.channels[channel as usize].name
    }

    /// All channels with subscribers.
    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.channels.iter().map(|(id, _)| number(id))
    }
}

/// Slabs and member lists hold far fewer than 2^32 entries, since each entry belongs to an open socket.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_channel_exists_while_it_has_subscribers() {
        let mut hub = Hub::default();
        assert_eq!(hub.find("news"), None);
        let (one, two) = (hub.subscribe("news", 1, true), hub.subscribe("news", 2, false));
        let news = hub.find("news").expect("it has subscribers");
        assert_eq!(hub.members(news), [1, 2]);
        assert_eq!(hub.name(news), "news");
        assert!(!hub.is_latest(news), "one of them must get every message");
        assert_eq!(hub.unsubscribe(one), Some(Moved { member: 2, to: one }));
        assert_eq!(hub.unsubscribe(Seat { index: 0, ..two }), None);
        assert_eq!((hub.find("news"), hub.channels().count()), (None, 0));
        assert!(hub.members(news).is_empty(), "closing slow clients may have emptied the channel");
    }

    proptest! {
        #[test]
        fn members_are_those_that_subscribed_and_did_not_unsubscribe(
            steps in proptest::collection::vec((0u32..8, 0usize..4, any::<bool>()), 0..200)
        ) {
            let mut hub = Hub::default();
            let mut seats: BTreeMap<(u32, usize), Seat> = BTreeMap::new();
            for (member, channel, join) in steps {
                let name = ["a", "b", "c", "d"][channel];
                if join && !seats.contains_key(&(member, channel)) {
                    seats.insert((member, channel), hub.subscribe(name, member, false));
                } else if let Some(seat) = seats.remove(&(member, channel))
                    && let Some(moved) = hub.unsubscribe(seat)
                {
                    seats.insert((moved.member, channel), moved.to);
                }
                for (index, name) in ["a", "b", "c", "d"].iter().enumerate() {
                    let expected: BTreeSet<_> = seats.keys().filter(|key| key.1 == index).map(|key| key.0).collect();
                    let members: BTreeSet<_> =
                        hub.find(name).map_or_else(BTreeSet::new, |id| hub.members(id).iter().copied().collect());
                    prop_assert_eq!(members, expected);
                }
            }
        }
    }
}
