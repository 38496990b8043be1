//! What subscribers are shown of changes: when, and of large channels how much.
//!
//! Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Channel, Fold, Key, shown};
use crate::presence::{Info, Name};

/// The number of members from which changes of a channel are shown together, once in [`TOGETHER`].
const MANY: u64 = 1_000;

/// How often changes are shown that are not shown at once.
pub(crate) const TOGETHER: Duration = Duration::from_secs(1);

/// The number of members from which subscribers are shown their number only, unless they have asked for all.
pub(crate) const TOO_MANY: u64 = 20_000;

/// The most names in one change. More are shown in several.
const NAMES: usize = 500;

/// A change that subscribers of a channel are shown. It can be applied twice: who has joined is there now, and who has left is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) channel: Box<str>,
    pub(crate) to: Audience,
    pub(crate) joined: Vec<(Name, Option<Info>)>,
    pub(crate) left: Vec<Name>,
    pub(crate) count: u64,
}

/// The subscribers that are shown a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Everyone,
    /// Those that have asked for all members, or the others.
    OfAll,
    Others,
}

impl Audience {
    /// Whether it includes a subscriber that has asked for all members, or has not.
    pub(crate) fn includes(self, all: bool) -> bool {
        match self {
            Self::Everyone => true,
            Self::OfAll => all,
            Self::Others => !all,
        }
    }
}

impl Fold {
    /// The changes that subscribers are to be shown now. Those of large channels may have to wait.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut later = BTreeSet::new();
        for id in std::mem::take(&mut self.changed) {
            let channel = &mut self.channels[id as usize];
            if !channel.is_due(now) {
                later.insert(id);
                continue;
            }
            let (count, before, read) = (channel.count(), std::mem::take(&mut channel.before), channel.read.take());
            let (mut joined, mut left) = (Vec::new(), Vec::new());
            for (name, before) in before {
                let key = Key { channel: id, name };
                match self.members.get(&key).and_then(|held| shown(held)) {
                    Some(info) if read || before.as_ref() != Some(&info) => joined.push((key.name, info)),
                    None if read || before.is_some() => left.push(key.name),
                    _ => {}
                }
            }
            if !joined.is_empty() || !left.is_empty() || count != channel.shown || read {
                let named = Change { channel: channel.name.clone(), to: Audience::Everyone, joined, left, count };
                if channel.counts.is_empty() && count.max(channel.shown) >= TOO_MANY {
                    changes.push(Change {
                        to: Audience::Others,
                        joined: Vec::new(),
                        left: Vec::new(),
                        ..named.clone()
                    });
                    show(&mut changes, Change { to: Audience::OfAll, ..named });
                } else {
                    show(&mut changes, named);
                }
                (channel.shown, channel.last) = (count, Some(now));
            }
            if count == 0 {
                let Channel { name, .. } = self.channels.remove(id as usize);
                self.ids.remove(&name);
            }
        }
        self.changed = later;
        changes
    }
}

impl Channel {
    /// The first subscriber and the end of the last are shown at once, and so are changes of a small channel.
    fn is_due(&self, now: Instant) -> bool {
        let (count, named) = (self.count(), self.counts.is_empty());
        (named && count.max(self.shown) < MANY)
            || count == 0
            || self.shown == 0
            || self.last.is_none_or(|last| now >= last + TOGETHER)
    }
}

/// Adds a change, in several parts if it has many names.
fn show(to: &mut Vec<Change>, change: Change) {
    if change.joined.len() + change.left.len() <= NAMES {
        to.push(change);
        return;
    }
    let Change { channel, to: audience, joined, left, count } = change;
    let part = |joined: &[(Name, Option<Info>)], left: &[Name]| {
        let (joined, left) = (joined.to_vec(), left.to_vec());
        Change { channel: channel.clone(), to: audience, joined, left, count }
    };
    to.extend(left.chunks(NAMES).map(|left| part(&[], left)));
    to.extend(joined.chunks(NAMES).map(|joined| part(joined, &[])));
}
