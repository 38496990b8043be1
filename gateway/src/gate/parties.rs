//! What the connections of one user, or from one address, share on a node: buckets, and a count of subscriptions.
//!
//! A user or address has an entry while it has a connection, so the number of connections limits the memory. The lock is
//! taken when a connection begins and when the last one of an entry ends, never for a command.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::pace::SharedPace;
use crate::config::masked;

/// One client can use all addresses of its IPv6 /64 (RFC 6177).
const IPV6_BITS: u8 = 64;

/// The map keeps room for this many entries when it shrinks.
const SPARE: usize = 1024;

/// A user, or an address.
#[derive(Debug, Hash)]
pub(super) enum Key<'a> {
    User(&'a str),
    Address(IpAddr),
    /// The requests of a user, or of an address without one, on channels of a rule.
    Rule(u32, Result<&'a str, IpAddr>),
}

impl Key<'_> {
    pub(super) fn address(address: IpAddr) -> Self {
        Self::Address(shared(address))
    }
}

/// The address that stands for all that one client may have.
pub(super) fn shared(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => masked(address.into(), IPV6_BITS),
        address => address,
    }
}

/// The users and addresses that have connections, by hashes that are secret to this process. Two that had the same one would
/// share their limits: with a million users, less than once in ten million nodes.
#[derive(Debug, Default)]
pub(super) struct Parties {
    hasher: RandomState,
    all: Mutex<HashMap<u64, Weak<Party>>>,
}

/// What its connections share.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) paces: [SharedPace; super::allowance::KINDS],
    /// The subscriptions of all its connections.
    channels: AtomicU32,
    key: u64,
    parties: Arc<Parties>,
}

impl Parties {
    pub(super) fn join(self: &Arc<Self>, key: &Key<'_>) -> Arc<Party> {
        let key = self.hasher.hash_one(key);
        let mut all = self.lock();
        if let Some(party) = all.get(&key).and_then(Weak::upgrade) {
            return party;
        }
        let party =
            Arc::new(Party { paces: Default::default(), channels: AtomicU32::new(0), key, parties: Arc::clone(self) });
        all.insert(key, Arc::downgrade(&party));
        party
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<Party>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Party {
    /// Counts a subscription; false if there are already `most`.
    pub(super) fn take_channel(&self, most: u32) -> bool {
        let more = |count: u32| (count < most).then_some(count + 1);
        self.channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn leave_channels(&self, count: u32) {
        self.channels.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let mut all = self.parties.lock();
        // A connection may have come meanwhile, and made another entry.
        if all.get(&self.key).is_some_and(|party| party.strong_count() == 0) {
            all.remove(&self.key);
            if all.capacity() > SPARE.max(all.len() * 4) {
                let room = all.len() * 2;
                all.shrink_to(room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Key<'static> {
        Key::address(text.parse().expect("an address"))
    }

    #[test]
    fn connections_of_one_party_share_and_others_do_not() {
        let parties = Arc::new(Parties::default());
        for (one, other, same) in [
            (Key::User("ann"), Key::User("ann"), true),
            (Key::User("ann"), Key::User("bob"), false),
            (address("192.0.2.1"), address("::ffff:192.0.2.1"), true),
            (address("192.0.2.1"), address("192.0.2.2"), false),
            (address("2001:db8::1"), address("2001:db8::ffff:1"), true),
            (address("2001:db8::1"), address("2001:db8:0:1::1"), false),
            (Key::User("192.0.2.1"), address("192.0.2.1"), false),
        ] {
            let (one, other) = (parties.join(&one), parties.join(&other));
            assert_eq!(Arc::ptr_eq(&one, &other), same, "{:x} {:x}", one.key, other.key);
        }
    }

    #[test]
    fn parties_without_connections_take_no_memory() {
        let parties = Arc::new(Parties::default());
        let held: Vec<_> = (0..100_000_u32).map(|n| parties.join(&Key::Address(IpAddr::V4(n.into())))).collect();
        assert_eq!(parties.lock().len(), 100_000);
        drop(held);
        let all = parties.lock();
        assert!(all.is_empty() && all.capacity() <= 2 * SPARE, "{}", all.capacity());
    }

    #[test]
    fn a_party_that_ends_while_another_begins_leaves_one_entry() {
        let parties = Arc::new(Parties::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| drop(parties.join(&Key::User("ann")))));
            }
        });
        let held = parties.join(&Key::User("ann"));
        assert!(Arc::ptr_eq(&held, &parties.join(&Key::User("ann"))));
        drop(held);
        assert!(parties.lock().is_empty());
    }

    #[test]
    fn subscriptions_are_counted_over_all_connections() {
        let parties = Arc::new(Parties::default());
        let (one, other) = (parties.join(&Key::User("ann")), parties.join(&Key::User("ann")));
        assert!(one.take_channel(2) && other.take_channel(2) && !one.take_channel(2));
        other.leave_channels(1);
        assert!(one.take_channel(2) && !other.take_channel(2));
    }
}
