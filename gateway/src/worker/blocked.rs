//! The clients of a worker whose sockets take nothing now, in the order in which they last took something.
//!
//! Pure. When there is no room for what waits for all clients, the first of them is closed first: it has taken nothing for
//! longest. Who keeps taking bytes is among the last. Each step costs the logarithm of their number.

use std::collections::BTreeMap;

use super::hub::Member;

/// Blocked clients by the time of their last progress.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    order: BTreeMap<u64, Member>,
    last: u64,
}

/// A client's place in the order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Blocked {
    /// A socket is full.
    pub(crate) fn enter(&mut self, member: Member) -> Place {
        // At one a nanosecond it lasts for centuries.
        self.last += 1;
        self.order.insert(self.last, member);
        Place(self.last)
    }

    /// A full socket took something: nobody has done so later.
    pub(crate) fn renew(&mut self, place: &mut Place) {
        if let Some(member) = self.order.remove(&place.0) {
            *place = self.enter(member);
        }
    }

    /// A socket has taken all, or is gone.
    pub(crate) fn leave(&mut self, place: Place) {
        let Place(place) = place;
        self.order.remove(&place);
    }

    /// The client that has taken nothing for longest.
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
            // The whole truth: when each blocked client last took something.
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
