//! How much a client may do in a time: buckets of its connection, of its user and of its address.
//!
//! [`Limiter`] is the node's, [`Allowance`] a connection's. No lock, no allocation and no timer for an allowed command.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pace::{Moment, Pace, Rate};
use super::parties::{Key, Parties, Party, shared};
use super::policy::RuleRate;
use super::rights::Verb;
use crate::config::Limits;
use crate::protocol::Failure;

/// The kinds of commands that are counted apart.
pub(super) const KINDS: usize = 3;

/// A connection that goes on is closed when so many full buckets were refused.
const REFUSED: u64 = 10;

/// The limits of a node, and the users and addresses that share some.
#[derive(Debug)]
pub(crate) struct Limiter {
    start: Instant,
    connection: [Option<Rate>; KINDS],
    user: [Option<Rate>; KINDS],
    address: [Option<Rate>; KINDS],
    channels_per_user: u32,
    parties: Arc<Parties>,
}

/// What one connection may still do.
#[derive(Debug)]
pub(crate) struct Allowance {
    paces: [Pace; KINDS],
    /// The subscriptions that count for the user.
    channels: u32,
    user: Option<Arc<Party>>,
    address: Option<Arc<Party>>,
    rare: Option<Box<Rare>>,
}

/// The buckets that few connections need.
#[derive(Debug, Default)]
struct Rare {
    /// What it was refused.
    refused: Pace,
    /// Those of rules with a rate of their own, by the rules' numbers.
    rules: Vec<(u32, Pace)>,
}

/// Why a command is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The client is sent this failure, which says when to retry.
    Retry(Failure),
    /// The client did not slow down: the connection is closed with
    /// [`RateLimited`](crate::close::CloseReason::RateLimited).
    Close,
}

/// The connections whose commands a bucket counts.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Connection,
    Rule,
    Requests,
    User,
    Address,
}

fn kind(verb: Verb) -> usize {
    match verb {
        Verb::Subscribe => 0,
        Verb::Publish => 1,
        Verb::History | Verb::Presence => 2,
    }
}

impl Limiter {
    pub(crate) fn new(limits: &Limits, start: Instant) -> Self {
        let per_second = [limits.subscribes_per_second, limits.publishes_per_second, limits.history_per_second];
        // After a reconnect a client subscribes to all its channels at once.
        let at_once = [limits.channels_per_connection, 0, 0];
        let rates = |times: u32| {
            std::array::from_fn(|kind| {
                let burst = at_once[kind].saturating_mul(usize::try_from(times).unwrap_or(usize::MAX));
                Rate::with_burst(per_second[kind].saturating_mul(times), burst)
            })
        };
        Self {
            start,
            connection: rates(1),
            user: rates(limits.rates_per_user),
            address: rates(limits.rates_per_address),
            channels_per_user: limits.channels_per_user,
            parties: Arc::default(),
        }
    }

    /// The allowance of a new connection.
    pub(crate) fn join(&self, user: Option<&str>, address: IpAddr) -> Allowance {
        let any = |rates: &[Option<Rate>; KINDS]| rates.iter().any(Option::is_some);
        Allowance {
            paces: Default::default(),
            user: user.map(|user| self.parties.join(&Key::User(user))),
            address: any(&self.address).then(|| self.parties.join(&Key::address(address))),
            rare: None,
            channels: 0,
        }
    }

    /// What requests without a connection may do on channels of a rule with a rate of its own. Those of one user share it, or
    /// those of one address without a user.
    pub(crate) fn join_rule(&self, rule: RuleRate, user: Option<&str>, address: IpAddr) -> Allowance {
        let party = self.parties.join(&Key::Rule(rule.rule, user.ok_or_else(|| shared(address))));
        let mut allowance = self.join(None, address);
        (allowance.user, allowance.address) = (Some(party), None);
        allowance
    }
}

impl Allowance {
    /// Takes one publish by a request, of an allowance of [`join_rule`](Limiter::join_rule).
    pub(crate) fn take_request(&mut self, limiter: &Limiter, rule: RuleRate, now: Instant) -> Result<(), Refusal> {
        let now = Moment::new(limiter.start, now);
        let Some(party) = &self.user else { return Ok(()) };
        let taken = party.paces[kind(Verb::Publish)].take(rule.rate, now);
        self.allow(taken, rule.rate, now, Verb::Publish, Scope::Requests)
    }

    /// Takes one command. Tokens that were taken before a refusal are not given back.
    pub(crate) fn take(&mut self, limiter: &Limiter, verb: Verb, now: Instant) -> Result<(), Refusal> {
        let (kind, now) = (kind(verb), Moment::new(limiter.start, now));
        if let Some(rate) = limiter.connection[kind] {
            let taken = self.paces[kind].take(rate, now);
            self.allow(taken, rate, now, verb, Scope::Connection)?;
        }
        if let (Some(rate), Some(user)) = (limiter.user[kind], &self.user) {
            let taken = user.paces[kind].take(rate, now);
            self.allow(taken, rate, now, verb, Scope::User)?;
        }
        if let (Some(rate), Some(address)) = (limiter.address[kind], &self.address) {
            let taken = address.paces[kind].take(rate, now);
            self.allow(taken, rate, now, verb, Scope::Address)?;
        }
        Ok(())
    }

    /// Whether both are of the same user and address.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        let same = |one: &Option<Arc<Party>>, other: &Option<Arc<Party>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same(&self.user, &other.user) && same(&self.address, &other.address)
    }

    /// Takes a publish from the bucket of a rule that has a rate of its own.
    pub(crate) fn take_by_rule(&mut self, limiter: &Limiter, rule: RuleRate, now: Instant) -> Result<(), Refusal> {
        let now = Moment::new(limiter.start, now);
        let paces = &mut self.rare.get_or_insert_default().rules;
        let at = paces.iter().position(|(number, _)| *number == rule.rule).unwrap_or_else(|| {
            paces.push((rule.rule, Pace::default()));
            paces.len() - 1
        });
        let taken = paces[at].1.take(rule.rate, now);
        self.allow(taken, rule.rate, now, Verb::Publish, Scope::Rule)
    }

    /// Counts a subscription for the user. Fails if its connections have as many as they may.
    pub(crate) fn take_channel(&mut self, limiter: &Limiter) -> Result<(), Failure> {
        let Some(user) = &self.user else { return Ok(()) };
        let most = limiter.channels_per_user;
        if !user.take_channel(most) {
            let why = format!("all connections of a user on a node may have at most {most} subscriptions together");
            return Err(Failure::new("too_many_channels", why));
        }
        self.channels += 1;
        Ok(())
    }

    /// Gives a subscription back. The connection's end gives back all that are left.
    pub(crate) fn leave_channel(&mut self) {
        if let (Some(user), 1..) = (&self.user, self.channels) {
            user.leave_channels(1);
            self.channels -= 1;
        }
    }

    /// Turns a refusal into its words, or into the end of a connection that was refused too often.
    fn allow(
        &mut self,
        taken: Result<(), Duration>,
        rate: Rate,
        now: Moment,
        verb: Verb,
        scope: Scope,
    ) -> Result<(), Refusal> {
        let Err(wait) = taken else { return Ok(()) };
        if self.rare.get_or_insert_default().refused.take(rate.deeper(REFUSED), now).is_err() {
            return Err(Refusal::Close);
        }
        let wait = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let commands = match verb {
            Verb::Publish => "publishes",
            Verb::Subscribe => "subscriptions",
            Verb::History => "requests for older messages",
            Verb::Presence => "requests for presence",
        };
        let why = format!("more than {} {commands} a second {scope}: wait {wait} ms", rate.per_second);
        Err(Refusal::Retry(Failure::for_a_time("rate_limited", why, wait)))
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            user.leave_channels(self.channels);
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "from this connection",
            Self::Rule => "from this connection on channels of this rule",
            Self::Requests => "by requests of this user or address on channels of this rule",
            Self::User => "from all connections of this user",
            Self::Address => "from all connections of this address",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn limiter(change: impl FnOnce(&mut Limits)) -> Limiter {
        let mut limits = Limits::default();
        change(&mut limits);
        Limiter::new(&limits, Instant::now())
    }

    /// The commands that are allowed at once, of up to 1,000.
    fn allowed(limiter: &Limiter, allowance: &mut Allowance, verb: Verb) -> usize {
        (0..1000).take_while(|_| allowance.take(limiter, verb, limiter.start).is_ok()).count()
    }

    #[test]
    fn each_kind_of_command_has_its_own_bucket() {
        let limiter = limiter(|limits| {
            (limits.publishes_per_second, limits.history_per_second) = (10, 5);
            (limits.subscribes_per_second, limits.channels_per_connection) = (20, 300);
        });
        let mut allowance = limiter.join(None, HERE);
        for (verb, expected) in [(Verb::Publish, 20), (Verb::History, 10), (Verb::Subscribe, 300)] {
            assert_eq!(allowed(&limiter, &mut allowance, verb), expected, "{verb:?}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_retry_and_then_it_is_allowed() {
        let limiter = limiter(|limits| limits.publishes_per_second = 10);
        let mut allowance = limiter.join(None, HERE);
        assert_eq!(allowed(&limiter, &mut allowance, Verb::Publish), 20);
        let refusal = allowance.take(&limiter, Verb::Publish, limiter.start).expect_err("the bucket is empty");
        let words = "more than 10 publishes a second from this connection: wait 100 ms";
        assert_eq!(refusal, Refusal::Retry(Failure::for_a_time("rate_limited", words, 100)));
        let later = limiter.start + Duration::from_millis(100);
        assert_eq!(allowance.take(&limiter, Verb::Publish, later), Ok(()));
    }

    #[test]
    fn a_connection_that_does_not_slow_down_is_closed_after_ten_times_as_many() {
        let limiter = limiter(|limits| limits.publishes_per_second = 10);
        let mut allowance = limiter.join(None, HERE);
        let mut take = || allowance.take(&limiter, Verb::Publish, limiter.start);
        let (mut allowed, mut refused) = (0, 0);
        loop {
            match take() {
                Ok(()) => allowed += 1,
                Err(Refusal::Retry(_)) => refused += 1,
                Err(Refusal::Close) => break,
            }
        }
        assert_eq!((allowed, refused), (20, 200));
    }

    #[test]
    fn a_connection_that_is_refused_half_of_the_time_stays_open() {
        let limiter = limiter(|limits| limits.publishes_per_second = 10);
        let mut allowance = limiter.join(None, HERE);
        for n in 0..10_000 {
            let now = limiter.start + Duration::from_millis(50 * n);
            assert_ne!(allowance.take(&limiter, Verb::Publish, now), Err(Refusal::Close), "{n}");
        }
    }

    #[test]
    fn connections_of_one_user_and_of_one_address_share_what_is_theirs() {
        let limiter = limiter(|limits| {
            (limits.publishes_per_second, limits.rates_per_user, limits.rates_per_address) = (10, 2, 3);
        });
        let mut ann: Vec<_> = (0..4).map(|_| limiter.join(Some("ann"), HERE)).collect();
        assert_eq!([0, 1, 2].map(|n| allowed(&limiter, &mut ann[n], Verb::Publish)), [20, 20, 0]);
        let mut bob = limiter.join(Some("bob"), HERE);
        assert_eq!(allowed(&limiter, &mut bob, Verb::Publish), 20);
        let mut anonymous = limiter.join(None, HERE);
        assert_eq!(allowed(&limiter, &mut anonymous, Verb::Publish), 0);
        let mut elsewhere = limiter.join(None, "192.0.2.1".parse().expect("an address"));
        assert_eq!(allowed(&limiter, &mut elsewhere, Verb::Publish), 20);
    }

    #[test]
    fn a_limit_of_0_is_none() {
        let limiter = limiter(|limits| {
            limits.publishes_per_second = 0;
            (limits.rates_per_user, limits.rates_per_address) = (0, 0);
        });
        let mut allowance = limiter.join(Some("ann"), HERE);
        assert_eq!(allowed(&limiter, &mut allowance, Verb::Publish), 1000);
    }

    #[test]
    fn each_rule_with_a_rate_has_its_own_bucket() {
        let limiter = limiter(|_| {});
        let mut allowance = limiter.join(None, HERE);
        let rule = |rule, rate| RuleRate { rule, rate: Rate::new(rate).expect("not 0") };
        for (rule, expected) in [(rule(0, 1), 2), (rule(7, 5), 10), (rule(0, 1), 0)] {
            let mut take = || allowance.take_by_rule(&limiter, rule, limiter.start);
            assert_eq!((0..15).take_while(|_| take().is_ok()).count(), expected, "{rule:?}");
        }
    }

    #[test]
    fn requests_of_one_user_share_the_bucket_of_a_rule_and_those_of_an_address_without_a_user_too() {
        let limiter = limiter(|_| {});
        let rule = RuleRate { rule: 3, rate: Rate::new(5).expect("not 0") };
        let elsewhere = "192.0.2.1".parse().expect("an address");
        let mut held = Vec::new();
        let mut allowed = |user, address, rule| {
            let taken = (0..15).take_while(|_| {
                let mut visit = limiter.join_rule(rule, user, address);
                let taken = visit.take_request(&limiter, rule, limiter.start);
                held.push(visit);
                taken.is_ok()
            });
            taken.count()
        };
        assert_eq!((allowed(Some("ann"), HERE, rule), allowed(Some("ann"), elsewhere, rule)), (10, 0));
        assert_eq!((allowed(Some("bob"), HERE, rule), allowed(None, HERE, rule)), (10, 10));
        assert_eq!((allowed(None, HERE, rule), allowed(None, elsewhere, rule)), (0, 10));
        assert_eq!(allowed(Some("ann"), HERE, RuleRate { rule: 4, ..rule }), 10);
    }

    #[test]
    fn subscriptions_of_a_user_are_limited_and_given_back_with_the_connection() {
        let limiter = limiter(|limits| limits.channels_per_user = 3);
        let (mut one, mut other) = (limiter.join(Some("ann"), HERE), limiter.join(Some("ann"), HERE));
        let mut anonymous = limiter.join(None, HERE);
        assert!(one.take_channel(&limiter).is_ok() && one.take_channel(&limiter).is_ok());
        assert!(other.take_channel(&limiter).is_ok());
        let failure = other.take_channel(&limiter).expect_err("three are taken");
        assert_eq!((failure.code, failure.retry), ("too_many_channels", false));
        one.leave_channel();
        assert!(other.take_channel(&limiter).is_ok() && other.take_channel(&limiter).is_err());
        drop(one);
        assert!(other.take_channel(&limiter).is_ok() && other.take_channel(&limiter).is_err());
        assert!((0..100).all(|_| anonymous.take_channel(&limiter).is_ok()));
    }

    #[test]
    fn an_idle_connection_pays_40_bytes() {
        assert!(size_of::<Allowance>() <= 40, "{}", size_of::<Allowance>());
    }
}
