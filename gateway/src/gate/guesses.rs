//! How often an address may try a wrong key of the API.
//!
//! A right key is never refused because of wrong ones from its address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::pace::{Moment, Rate, SharedPace};
use super::parties::shared;

/// Wrong keys per second, for each address.
const PER_SECOND: u32 = 5;

/// The most addresses that are remembered. When there are more, all are forgotten: secrets are too long to be guessed, so this
/// only limits noise.
const ADDRESSES: usize = 4096;

/// The wrong keys of all addresses.
#[derive(Debug)]
pub(crate) struct Guesses {
    start: Instant,
    rate: Option<Rate>,
    paces: Mutex<HashMap<IpAddr, SharedPace>>,
}

impl Guesses {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, rate: Rate::new(PER_SECOND), paces: Mutex::default() }
    }

    /// Counts a wrong key. Fails with the time to wait if there were too many.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let address = shared(address);
        if paces.len() >= ADDRESSES && !paces.contains_key(&address) {
            paces.clear();
        }
        paces.entry(address).or_default().take(rate, Moment::new(self.start, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_are_limited_by_address_and_the_memory_for_that_is_bounded() {
        let start = Instant::now();
        let guesses = Guesses::new(start);
        let allowed = |address: IpAddr| (0..100).filter(|_| guesses.take(address, start).is_ok()).count();
        assert_eq!(allowed(IpAddr::from([192, 0, 2, 1])), 10);
        assert_eq!(allowed(IpAddr::from([192, 0, 2, 1])), 0);
        assert_eq!(allowed(IpAddr::from([192, 0, 2, 2])), 10);
        for n in 0..10_000_u32 {
            let _ = guesses.take(IpAddr::V4(n.into()), start);
        }
        assert!(guesses.paces.lock().expect("not poisoned").len() <= ADDRESSES);
    }
}
