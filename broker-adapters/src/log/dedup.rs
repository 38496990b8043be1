//! Which message ids the last 65,536 records of a partition held.
//!
//! The rule is computed from the log alone, so every node that has read the same records decides alike.
//! Owned by the tail of that partition. Grows with what it has seen, to at most 1.7 MB.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::stored::record::MessageId;

/// How many records back a repeated id is recognised.
pub(crate) const DEDUP_WINDOW: usize = 65_536;

/// The ids of a partition's most recent records.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    recent: VecDeque<MessageId>,
    /// The running number of the front of `recent`; wraps, as do the numbers in `index`.
    first: u32,
    index: HashTable<u32>,
}

impl Dedup {
    /// Notes the id of the next record; false if it was there already.
    pub(crate) fn insert(&mut self, id: MessageId) -> bool {
        let Self { recent, first, index } = self;
        let at = |number: u32| recent[number.wrapping_sub(*first) as usize];
        if index.find(hash(id), |&number| at(number) == id).is_some() {
            return false;
        }
        let number = first.wrapping_add(recent.len() as u32);
        recent.push_back(id);
        let (recent, base) = (&*recent, *first);
        index.insert_unique(hash(id), number, |&n| hash(recent[n.wrapping_sub(base) as usize]));
        if self.recent.len() > DEDUP_WINDOW {
            self.forget_oldest();
        }
        true
    }

    /// Forgets all: the log is another one.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.recent.front().copied() else { return };
        if let Ok(entry) = self.index.find_entry(hash(oldest), |&number| number == self.first) {
            entry.remove();
        }
        self.recent.pop_front();
        self.first = self.first.wrapping_add(1);
    }
}

/// Ids are random or hashes already: folding them is hash enough.
fn hash(id: MessageId) -> u64 {
    ((id.0 >> 64) as u64 ^ id.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_within_the_window() {
        let mut dedup = Dedup::default();
        for n in 0..DEDUP_WINDOW as u128 {
            assert!(dedup.insert(MessageId(n)));
            assert!(!dedup.insert(MessageId(n)));
        }
        assert!(!dedup.insert(MessageId(0)), "65,536 records back is still known");
        assert!(dedup.insert(MessageId(u128::MAX)));
        assert!(dedup.insert(MessageId(0)), "one record further it is forgotten");
        assert_eq!(dedup.index.len(), DEDUP_WINDOW);
    }

    #[test]
    fn numbers_may_wrap() {
        let mut dedup = Dedup { first: u32::MAX - 5, ..Dedup::default() };
        for n in 0..100_000 {
            assert!(dedup.insert(MessageId(n)));
        }
        assert!(!dedup.insert(MessageId(99_000)));
    }

    #[test]
    fn another_log_knows_none() {
        let mut dedup = Dedup::default();
        dedup.insert(MessageId(1));
        dedup.clear();
        assert!(dedup.insert(MessageId(1)));
    }
}
