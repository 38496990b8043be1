//! The tickets that were made and have not ended, folded from the log.
//!
//! Pure. Knows hashes only, so no ticket can be read from a node or from the log. Bounded by bytes; when full, a further ticket
//! is not known here. Loses all tickets when records of the log are lost: then each of them is refused.

use std::collections::{HashMap, VecDeque};

use ring::digest::{SHA256, digest};

use super::control::{Made, Used};
use crate::auth::{LEEWAY, Refused};

/// How long a ticket is valid, in seconds.
pub(crate) const LIFE: u64 = 30;

/// The most bytes of all tickets. Further ones are not made while three quarters are in use, because other nodes make some too.
const ROOM: usize = 16 << 20;

/// The bytes of a ticket beside its claims.
const EACH: usize = 160;

/// Tickets by their hash.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    all: HashMap<u128, Entry>,
    /// In the order of the log, which is nearly that of their ends.
    order: VecDeque<u128>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// In milliseconds since 1970, by this node's clock.
    ends: u64,
    /// What it proves; an empty text once it is used.
    claims: Box<str>,
    /// The number under which this node redeems it.
    claimed: Option<u64>,
    /// The number of its first use in the log.
    used: Option<u64>,
}

impl Tickets {
    /// Adds a ticket whose record was written at one time and is read at another, in milliseconds since 1970.
    pub(super) fn add(&mut self, made: &Made, written: u64, now: u64) {
        self.forget(now);
        let Some(hash) = number(&made.ticket) else { return };
        // This node's own clock counts, unless it reads a record that is old. Clocks may differ by the leeway.
        let ends = (now + LIFE * 1000).min(written.saturating_add((LIFE + LEEWAY) * 1000));
        let bytes = EACH + made.claims.len();
        if ends <= now || self.bytes + bytes > ROOM || self.all.contains_key(&hash) {
            return;
        }
        self.bytes += bytes;
        self.order.push_back(hash);
        self.all.insert(hash, Entry { ends, claims: made.claims.as_str().into(), claimed: None, used: None });
    }

    /// Notes a use of a ticket. Only the first counts.
    pub(super) fn use_up(&mut self, used: &Used) {
        let entry = number(&used.ticket).and_then(|hash| self.all.get_mut(&hash));
        if let (Some(entry), Ok(by)) = (entry, u64::from_str_radix(&used.by, 16)) {
            entry.used.get_or_insert(by);
            self.bytes -= std::mem::take(&mut entry.claims).len();
        }
    }

    /// Begins to redeem a ticket under a number. Returns what it proves.
    pub(super) fn claim(&mut self, hash: u128, by: u64, now: u64) -> Result<Box<str>, Refused> {
        let entry = self.all.get_mut(&hash).filter(|entry| entry.ends > now).ok_or(Refused::TicketUnknown)?;
        if entry.claimed.is_some() || entry.used.is_some() {
            return Err(Refused::TicketUsed);
        }
        entry.claimed = Some(by);
        Ok(entry.claims.clone())
    }

    /// Undoes [`claim`](Self::claim), after the use was surely not written.
    pub(super) fn give_back(&mut self, hash: u128, by: u64) {
        if let Some(entry) = self.all.get_mut(&hash).filter(|entry| entry.claimed == Some(by)) {
            entry.claimed = None;
        }
    }

    /// Whether a use under this number was the first. `None` if no use was read yet.
    pub(super) fn is_first(&self, hash: u128, by: u64) -> Option<bool> {
        match self.all.get(&hash) {
            Some(entry) => entry.used.map(|first| first == by),
            None => Some(false),
        }
    }

    /// Whether further tickets may be made.
    pub(super) fn has_room(&mut self, now: u64) -> bool {
        self.forget(now);
        self.bytes < ROOM / 4 * 3
    }

    /// Forgets all tickets.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn forget(&mut self, now: u64) {
        while let Some(hash) = self.order.front()
            && self.all.get(hash).is_none_or(|entry| entry.ends <= now)
        {
            if let Some(entry) = self.all.remove(hash) {
                self.bytes -= EACH + entry.claims.len();
            }
            self.order.pop_front();
        }
    }
}

fn number(hex: &str) -> Option<u128> {
    u128::from_str_radix(hex, 16).ok()
}

/// A ticket as the nodes know it: half of its SHA-256.
pub(crate) fn ticket_hash(ticket: &str) -> u128 {
    let hash = digest(&SHA256, ticket.as_bytes());
    hash.as_ref().first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const END: u64 = NOW + LIFE * 1000;

    fn made(hash: u128, claims: &str) -> Made {
        Made { ticket: format!("{hash:032x}"), claims: claims.to_owned() }
    }

    fn used(hash: u128, by: u64) -> Used {
        Used { ticket: format!("{hash:032x}"), by: format!("{by:x}") }
    }

    #[test]
    fn the_first_use_in_the_log_decides_and_a_second_claim_is_refused() {
        let mut tickets = Tickets::default();
        assert_eq!(tickets.claim(7, 1, NOW), Err(Refused::TicketUnknown));
        tickets.add(&made(7, "claims"), NOW, NOW);
        assert_eq!(tickets.claim(7, 1, NOW), Ok("claims".into()));
        assert_eq!(tickets.claim(7, 2, NOW), Err(Refused::TicketUsed));
        assert_eq!(tickets.is_first(7, 1), None);
        tickets.use_up(&used(7, 3));
        tickets.use_up(&used(7, 1));
        assert_eq!((tickets.is_first(7, 1), tickets.is_first(7, 3)), (Some(false), Some(true)));
        tickets.add(&made(7, "again"), NOW, NOW);
        assert_eq!(tickets.claim(7, 4, NOW), Err(Refused::TicketUsed));
    }

    #[test]
    fn a_ticket_is_given_back_only_by_the_number_that_claimed_it() {
        let mut tickets = Tickets::default();
        tickets.add(&made(7, "claims"), NOW, NOW);
        tickets.claim(7, 1, NOW).expect("it is new");
        tickets.give_back(7, 2);
        assert_eq!(tickets.claim(7, 3, NOW), Err(Refused::TicketUsed));
        tickets.give_back(7, 1);
        assert!(tickets.claim(7, 3, NOW).is_ok());
    }

    #[test]
    fn a_ticket_ends_by_this_nodes_clock_or_by_its_age_when_it_is_read_late() {
        for (written, read, last) in [
            (NOW, NOW, END - 1),
            (NOW - 25_000, NOW, END - 1),      // the other clock is behind
            (NOW + 3_600_000, NOW, END - 1),   // far ahead
            (NOW - 40_000, NOW, NOW + 19_999), // read late
        ] {
            let mut tickets = Tickets::default();
            tickets.add(&made(7, "claims"), written, read);
            assert_eq!(tickets.claim(7, 1, last + 1), Err(Refused::TicketUnknown), "{written}");
            assert!(tickets.claim(7, 1, last).is_ok(), "{written}");
        }
        let mut tickets = Tickets::default();
        tickets.add(&made(7, "claims"), NOW - 60_000, NOW);
        assert_eq!(tickets.claim(7, 1, NOW), Err(Refused::TicketUnknown));
    }

    #[test]
    fn ended_tickets_take_no_memory_and_all_together_are_bounded() {
        let mut tickets = Tickets::default();
        let claims = "x".repeat(8 << 10);
        for hash in 0..10_000 {
            tickets.add(&made(hash, &claims), NOW, NOW);
            assert!(tickets.bytes <= ROOM);
        }
        assert!(!tickets.has_room(NOW) && tickets.all.len() > 1_000);
        tickets.use_up(&used(0, 1));
        assert_eq!(tickets.bytes % claims.len(), (tickets.all.len() * EACH) % claims.len());
        assert!(tickets.has_room(END));
        assert_eq!((tickets.all.len(), tickets.order.len(), tickets.bytes), (0, 0, 0));
    }

    #[test]
    fn lost_records_end_all_tickets_because_a_use_may_be_among_them() {
        let mut tickets = Tickets::default();
        tickets.add(&made(7, "claims"), NOW, NOW);
        tickets.clear();
        assert_eq!(tickets.claim(7, 1, NOW), Err(Refused::TicketUnknown));
        assert_eq!(tickets.is_first(7, 1), Some(false));
    }
}
