//! The blocked clients of a worker, ordered by the time of their last progress.
//!
//! Pure. A client is blocked while its socket accepts no bytes. When the backlog of all clients is over its limit, the
//! first one is closed first: it has made no progress for longest. Each operation costs the logarithm of the number of
//! blocked clients.

use std::collections::BTreeMap;

use super::hub::Member;

/// Blocked clients by the time of their last progress.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    order: BTreeMap<u64, Member>,
    last: u64,
}

/// A client's place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Blocked {
    /// Adds a client whose socket has become full.
    pub(crate) fn enter(&mut self, member: Member) -> Place {
        // At one per nanosecond the counter lasts for centuries.
        self.last += 1;
        self.order.insert(self.last, member);
        Place(self.last)
    }

    /// Moves a client to the end of the order: its full socket has just accepted bytes.
    pub(crate) fn renew(&mut self, place: &mut Place) {
        if let Some(member) = self.order.remove(&place.0) {
            *place = self.enter(member);
        }
    }

    /// Removes a client whose socket has accepted everything or is closed.
    pub(crate) fn leave(&mut self, place: Place) {
        let Place(place) = place;
        self.order.remove(&place);
    }

    /// The client that has made no progress for longest.
    pub(crate) fn slowest(&self) -> Option<Member> {
        self.order.values().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_slowest_is_the_client_whose_progress_is_the_oldest(
            steps in proptest::collection::vec((0u32..12, 0u8..3), 0..300)
        ) {
            let mut blocked = Blocked::default();
            let mut places: BTreeMap<Member, Place> = BTreeMap::new();
            // The reference model: when each blocked client last made progress.
            let mut progress: BTreeMap<Member, usize> = BTreeMap::new();
            for (now, (member, step)) in steps.into_iter().enumerate() {
                match (step, places.remove(&member)) {
                    (_, None) => {
                        places.insert(member, blocked.enter(member));
                        progress.insert(member, now);
                    }
                    (0, Some(place)) => {
                        blocked.leave(place);
                        progress.remove(&member);
                    }
                    (_, Some(mut place)) => {
                        blocked.renew(&mut place);
                        places.insert(member, place);
                        progress.insert(member, now);
                    }
                }
                let oldest = progress.iter().min_by_key(|(_, when)| **when).map(|(member, _)| *member);
                prop_assert_eq!(blocked.slowest(), oldest);
            }
        }
    }
}
