//! Limits for requests that have no connection: they count for the client's user and address.
//!
//! What these share ends with their last connection. The last visits are therefore kept for a time; otherwise a client
//! that only sends requests would begin with full buckets each time. Loses the oldest visits when there are many.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Worker;
use crate::clock;
use crate::door::ingress::Client;
use crate::gate::{Allowance, Identity, Refusal, RuleRate, Verb};
use crate::protocol::Failure;

/// The most visits that are kept.
const KEPT: usize = 4096;

/// How long a visit is kept: about as long as an empty bucket takes to fill.
const TIME: Duration = Duration::from_secs(10);

/// The last visits to one worker, oldest first.
#[derive(Debug, Default)]
pub(super) struct Visitors(RefCell<VecDeque<(Instant, Allowance)>>);

impl Visitors {
    fn keep(&self, now: Instant, visit: Allowance) {
        let mut visits = self.0.borrow_mut();
        while visits.front().is_some_and(|(at, _)| visits.len() >= KEPT || *at + TIME < now) {
            visits.pop_front();
        }
        // A client's many requests in a row are one visit, or two with that to a rule.
        match visits.iter_mut().rev().take(2).find(|(_, known)| known.is_of_same(&visit)) {
            Some(known) => known.0 = now,
            None => visits.push_back((now, visit)),
        }
    }
}

impl Worker {
    /// Takes so many commands from the buckets of a client's user and address.
    pub(crate) fn take_visit(
        &self,
        identity: &Identity,
        client: Client,
        verb: Verb,
        count: usize,
    ) -> Result<(), Failure> {
        let (limiter, now) = (&self.shared.limiter, clock::now());
        let mut visit = limiter.join(identity.user(), client.0.ip());
        let taken = (0..count).try_for_each(|_| visit.take(limiter, verb, now));
        self.visitors.keep(now, visit);
        taken.map_err(|refusal| self.limited(refusal))
    }

    /// Takes one publish from the bucket that the requests of a user, or of an address without one, have for a rule.
    pub(super) fn take_rule_visit(&self, identity: &Identity, client: Client, rule: RuleRate) -> Result<(), Failure> {
        let (limiter, now) = (&self.shared.limiter, clock::now());
        let mut visit = limiter.join_rule(rule, identity.user(), client.0.ip());
        let taken = visit.take_request(limiter, rule, now);
        self.visitors.keep(now, visit);
        taken.map_err(|refusal| self.limited(refusal))
    }

    fn limited(&self, refusal: Refusal) -> Failure {
        self.shared.metrics.limited();
        match refusal {
            Refusal::Retry(failure) => failure,
            Refusal::Close => Failure::for_a_time("rate_limited", "too many requests: slow down", 1000),
        }
    }
}
