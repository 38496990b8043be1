//! Equal rights as one value: users of one kind have the same rights, and connections keep them for long.
//!
//! Owns no rights, only weak references, at most [`MOST`]. When full, it forgets what no connection uses any more, or else
//! everything: then equal rights are merely not shared.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::gate::Rights;

/// The most different rights that it remembers, of about 48 bytes each.
const MOST: usize = 4096;

/// The rights in use, by their hash.
#[derive(Debug, Default)]
pub(super) struct SharedRights {
    hash: RandomState,
    known: Mutex<HashMap<u64, Weak<Rights>>>,
}

impl SharedRights {
    /// The shared value of these rights.
    pub(super) fn share(&self, rights: Rights) -> Arc<Rights> {
        let hash = self.hash.hash_one(&rights);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Different rights may have the same hash.
        if let Some(same) = known.get(&hash).and_then(Weak::upgrade).filter(|known| **known == rights) {
            return same;
        }
        if known.len() >= MOST {
            known.retain(|_, rights| rights.strong_count() > 0);
            if known.len() >= MOST {
                known.clear();
            }
        }
        let rights = Arc::new(rights);
        known.insert(hash, Arc::downgrade(&rights));
        rights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Grant, Verb};

    fn rights(pattern: &str) -> Rights {
        Rights(Box::new([Grant { pattern: pattern.parse().expect(pattern), can: Box::new([Verb::Subscribe]) }]))
    }

    #[test]
    fn equal_rights_are_one_value_while_they_are_in_use() {
        let shared = SharedRights::default();
        let (one, same, other) = (shared.share(rights("a")), shared.share(rights("a")), shared.share(rights("b")));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn it_is_bounded_whether_the_rights_are_in_use_or_not() {
        let shared = SharedRights::default();
        let held: Vec<_> = (0..3 * MOST).map(|number| shared.share(rights(&format!("c{number}")))).collect();
        assert!(shared.known.lock().expect("no test panics here").len() <= MOST);
        drop(held);
        for number in 0..2 * MOST {
            drop(shared.share(rights(&format!("d{number}"))));
        }
        assert!(shared.known.lock().expect("no test panics here").len() <= MOST);
    }
}
