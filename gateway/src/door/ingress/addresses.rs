//! Counts the open connections of each client address.
//!
//! Only addresses with open connections have an entry, so the number of connections limits the memory. The lock is taken
//! when a connection begins and ends, never for a message.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::masked;

/// IPv6 clients are counted by /64, because one client can use all addresses of its /64 (RFC 6177).
const IPV6_BITS: u8 = 64;

/// The map keeps room for this many addresses when it shrinks.
const SPARE: usize = 1024;

/// Counts the connections of each address.
#[derive(Debug)]
pub(crate) struct Addresses {
    open: Mutex<HashMap<Ipv6Addr, u32>>,
    most: u32,
}

/// A connection's place in the count of its address. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    /// An IPv4 address in its IPv6 form, which is smaller than a type for both.
    address: Ipv6Addr,
}

impl Addresses {
    pub(crate) fn new(most: u32) -> Self {
        Self { open: Mutex::default(), most }
    }

    /// Takes a place; `None` if the address has as many connections as it may.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = match address.to_canonical() {
            IpAddr::V6(address) => match masked(address.into(), IPV6_BITS) {
                IpAddr::V6(network) => network,
                IpAddr::V4(_) => address,
            },
            IpAddr::V4(address) => address.to_ipv6_mapped(),
        };
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { addresses: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv6Addr, u32>> {
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
    fn an_address_cannot_exceed_its_limit() {
        let addresses = Arc::new(Addresses::new(2));
        let take = |address: &str| addresses.take(address.parse().expect("an address"));
        let first = take("192.0.2.1").expect("the first");
        let _second = take("::ffff:192.0.2.1").expect("the second");
        assert!(take("192.0.2.1").is_none());
        let _other = take("192.0.2.2").expect("the first of another address");
        drop(first);
        let _third = take("192.0.2.1").expect("a place was freed");
        assert!(take("192.0.2.1").is_none());
    }

    #[test]
    fn all_addresses_of_an_ipv6_64_count_as_one() {
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
