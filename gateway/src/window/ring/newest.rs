//! The last message of each channel in a ring, found by the channel's name.
//!
//! Pure. Keeps no names: each stands in the message itself, which the caller looks up by its offset.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Offsets of messages, one for each channel.
#[derive(Debug, Default)]
pub(super) struct Newest {
    offsets: HashTable<u64>,
    hash: RandomState,
}

impl Newest {
    /// The offset of a channel's last message. `name` gives the channel of the message at an offset.
    pub(super) fn get<'a>(&self, channel: &[u8], name: impl Fn(u64) -> &'a [u8]) -> Option<u64> {
        self.offsets.find(self.hash.hash_one(channel), |&at| name(at) == channel).copied()
    }

    /// Notes the next message of a channel. Returns the offset of the one before it.
    pub(super) fn replace<'a>(&mut self, channel: &[u8], offset: u64, name: impl Fn(u64) -> &'a [u8]) -> Option<u64> {
        let hash = self.hash.hash_one(channel);
        if let Some(last) = self.offsets.find_mut(hash, |&at| name(at) == channel) {
            return Some(std::mem::replace(last, offset));
        }
        self.offsets.insert_unique(hash, offset, |&at| self.hash.hash_one(name(at)));
        None
    }

    /// Forgets a channel if its last message is this one.
    pub(super) fn remove(&mut self, channel: &[u8], offset: u64) {
        if let Ok(entry) = self.offsets.find_entry(self.hash.hash_one(channel), |&at| at == offset) {
            entry.remove();
        }
    }

    pub(super) fn clear(&mut self) {
        self.offsets.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }
}
