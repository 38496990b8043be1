//! How many connections each client address has open.
//!
//! Only addresses with a connection have an entry, so the node's connections bound its memory. Locked when a connection
//! begins and when it ends, never for a message.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::masked;

/// Who has an IPv6 address has all of its /64 (RFC 6177).
const IPV6_BITS: u8 = 64;

/// Room for so many addresses is kept when they are gone.
const SPARE: usize = 1024;

/// Counts the connections of each address.
#[derive(Debug)]
pub(crate) struct Addresses {
    open: Mutex<HashMap<IpAddr, u32>>,
    most: u32,
}

/// A connection's place in the count of its address; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    pub(crate) fn new(most: u32) -> Self {
        Self { open: Mutex::default(), most }
    }

    /// A place, unless the address has all of its own.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = match address.to_canonical() {
            IpAddr::V6(address) => masked(address.into(), IPV6_BITS),
            address => address,
        };
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { addresses: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.lock();
        let Some(count) = open.get_mut(&self.address) else { return };
        *count -= 1;
        if *count == 0 {
            open.remove(&self.address);
            if open.capacity() > SPARE.max(open.len() * 4) {
                let room = open.len() * 2;
                open.shrink_to(room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_not_one_more() {
        let addresses = Arc::new(Addresses::new(2));
        let take = |address: &str| addresses.take(address.parse().expect("an address"));
        let first = take("192.0.2.1").expect("the first");
        let _second = take("::ffff:192.0.2.1").expect("the second");
        assert!(take("192.0.2.1").is_none());
        let _other = take("192.0.2.2").expect("another's first");
        drop(first);
        let _third = take("192.0.2.1").expect("a place was given back");
        assert!(take("192.0.2.1").is_none());
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one_address() {
        let addresses = Arc::new(Addresses::new(1));
        let take = |address: &str| addresses.take(address.parse().expect("an address"));
        let _first = take("2001:db8::1").expect("the first");
        assert!(take("2001:db8::ffff:1").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn addresses_without_connections_take_no_memory() {
        let addresses = Arc::new(Addresses::new(1));
        let places: Vec<_> = (0..100_000_u32).filter_map(|n| addresses.take(IpAddr::V4(n.into()))).collect();
        assert_eq!(addresses.lock().len(), 100_000);
        drop(places);
        let open = addresses.lock();
        assert!(open.is_empty() && open.capacity() <= 2 * SPARE, "{}", open.capacity());
    }
}
