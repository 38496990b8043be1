//! File descriptors: how many this process may have, and how many of them are kept from clients.
//!
//! Pure, except for reading the limit. Linux gives a new descriptor the lowest free number. If clients never hold the
//! highest numbers, those stay free for the broker's links, the agent and the log.

use std::os::fd::RawFd;

use crate::capacity::Machine;
use crate::config::Config;

/// Descriptors that a node holds from its start: standard streams, log, listeners, signals, the main thread's runtime.
/// 20 were measured.
const OWN: usize = 32;
/// Descriptors of each worker's runtime.
const PER_WORKER: usize = 4;
/// Descriptors for short-lived use: the agent's callers, clients being refused, name look-ups, files that are read.
const SPARE: usize = 16;

/// The limit of this process, and the parts of it that clients cannot use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors {
    limit: usize,
    own: usize,
    /// The number of highest descriptors that are kept from clients.
    reserved: usize,
}

impl Descriptors {
    /// The descriptors of this process with `workers` workers and `callers` connections to its API.
    pub(crate) fn of(config: &Config, workers: usize, callers: usize) -> Self {
        // If the limit cannot be read, it is taken as unlimited.
        let limit = Machine::read().files.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Self::new(limit, workers, broker_adapters::descriptors(config.broker.url.expose()) + callers)
    }

    fn new(limit: usize, workers: usize, links: usize) -> Self {
        // Under a very low limit, clients and node get half of it each.
        let part = limit / 4;
        Self { limit, own: (OWN + PER_WORKER * workers).min(part), reserved: (SPARE + links).min(part) }
    }

    /// The number of clients that may be connected at a time, at most `most`.
    pub(crate) fn connections(&self, most: usize) -> usize {
        most.min(self.limit - self.own - self.reserved)
    }

    /// Whether a client's descriptor is one of those kept from clients.
    pub(crate) fn is_reserved(&self, descriptor: RawFd) -> bool {
        usize::try_from(descriptor).is_ok_and(|number| number >= self.limit - self.reserved)
    }

    /// Tells the operator what to change if the limit is too low for `most` clients.
    pub(crate) fn shortfall(&self, most: usize) -> Option<String> {
        let Self { limit, own, reserved } = self;
        let (room, needed) = (self.connections(most), most.saturating_add(own + reserved));
        (room < most).then(|| {
            format!(
                "the limit of open files, {limit}, leaves room for {room} of the {most} clients of `http.max_connections`: \
                 raise it to {needed} (ulimit -n {needed}; systemd: LimitNOFILE={needed}) or allow fewer clients"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shortfall_names_the_limit_to_set() {
        let files = Descriptors::new(1024, 2, 8);
        assert_eq!(files.shortfall(960), None);
        let text = files.shortfall(1000).expect("too many");
        for word in ["files, 1024,", "for 960 of the 1000 clients", "LimitNOFILE=1064"] {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
        assert_eq!(Descriptors::new(1064, 2, 8).shortfall(1000), None, "the limit that the text names is enough");
        assert_eq!(Descriptors::new(usize::MAX, 2, 8).shortfall(10_000_000), None);
    }

    proptest! {
        #[test]
        fn clients_never_hold_the_last_descriptors(
            limit in 16..100_000_usize, workers in 1..64_usize, links in 0..200_usize, most in 1..200_000_usize,
        ) {
            let files = Descriptors::new(limit, workers, links);
            let reserved = (0..limit).filter(|number| files.is_reserved(RawFd::try_from(*number).expect("small"))).count();
            prop_assert_eq!(reserved, (links + SPARE).min(limit / 4));
            let room = files.connections(most);
            prop_assert!(room <= most && room >= most.min(limit / 2));
            prop_assert!(room + reserved <= limit);
            prop_assert_eq!(files.shortfall(most).is_some(), room < most);
        }
    }
}
