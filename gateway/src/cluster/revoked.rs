//! All revocations in force, folded from the log.
//!
//! Pure. Of several revocations of one user the latest counts. Forgets those whose tokens have all expired; until then each
//! takes about 100 bytes.

use std::collections::BTreeMap;

use super::control::Revocation;
use crate::gate::Identity;

/// Where and when a record was written: its offset, and seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written {
    pub(super) offset: u64,
    pub(super) time: u64,
}

/// All revocations.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    tokens: BTreeMap<u64, Entry>,
    users: BTreeMap<Box<str>, Entry>,
    all: Option<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Tokens that were issued until then; unused for a single token.
    before: u64,
    until: u64,
    /// The newest record that holds it; `None` if that record may be gone.
    written: Option<Written>,
}

impl Entry {
    fn merge(&mut self, other: Self) {
        // A repeated revocation is as good as the first, and stands later in the log.
        if other.before >= self.before {
            self.written = other.written;
        }
        self.before = self.before.max(other.before);
        self.until = self.until.max(other.until);
    }
}

impl Revoked {
    /// Adds a revocation that a record holds.
    pub(super) fn add(&mut self, revocation: &Revocation, written: Written) {
        let Revocation { before, until, .. } = *revocation;
        let entry = Entry { before: before.unwrap_or(0), until, written: Some(written) };
        match (revocation.token(), &revocation.user) {
            (Some(id), _) => self.tokens.entry(id).or_insert(entry).merge(entry),
            (None, Some(user)) => self.users.entry(user.as_str().into()).or_insert(entry).merge(entry),
            (None, None) if revocation.token.is_none() => self.all.get_or_insert(entry).merge(entry),
            (None, None) => {}
        }
    }

    /// Whether an identity's token is revoked. `longest` is the longest life of a token: a token that does not say when it was
    /// issued may be that old.
    pub(super) fn ends(&self, identity: &Identity, longest: u64) -> bool {
        let Some(token) = identity.token else { return false };
        let issued = token.issued_by(longest);
        let covers = |entry: &Entry| issued <= entry.before;
        token.id().is_some_and(|id| self.tokens.contains_key(&id))
            || identity.user().and_then(|user| self.users.get(user)).is_some_and(covers)
            || self.all.as_ref().is_some_and(covers)
    }

    /// Notes that the log may no longer hold the records of all revocations.
    pub(super) fn endanger(&mut self) {
        self.entries().for_each(|entry| entry.written = None);
    }

    /// Forgets the revocations whose tokens have all expired.
    pub(super) fn forget(&mut self, now: u64) {
        self.tokens.retain(|_, entry| entry.until > now);
        self.users.retain(|_, entry| entry.until > now);
        self.all = self.all.filter(|entry| entry.until > now);
    }

    /// The revocations whose newest record is older than this in the log or by time, or gone.
    pub(super) fn older_than(&self, oldest: Written) -> Vec<Revocation> {
        let old = |entry: &Entry| entry.written.is_none_or(|at| at.offset < oldest.offset || at.time < oldest.time);
        let tokens = self.tokens.iter().filter(|(_, entry)| old(entry)).map(|(id, entry)| Revocation {
            token: Some(format!("{id:016x}")),
            user: None,
            before: None,
            until: entry.until,
        });
        let issued = |user: Option<&str>, entry: &Entry| Revocation {
            token: None,
            user: user.map(str::to_owned),
            before: Some(entry.before),
            until: entry.until,
        };
        let users = self.users.iter().filter(|(_, entry)| old(entry)).map(|(user, entry)| issued(Some(user), entry));
        let all = self.all.iter().filter(|entry| old(entry)).map(|entry| issued(None, entry));
        tokens.chain(users).chain(all).collect()
    }

    fn entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.tokens.values_mut().chain(self.users.values_mut()).chain(&mut self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token_id;
    use crate::gate::Token;

    const LONGEST: u64 = 1_000;

    fn identity(user: &str, issued: u64, jti: &str) -> Identity {
        let token = Some(Token::new(issued + 100, Some(issued), Some(token_id(jti))));
        Identity { user: Some(user.into()), token, ..Identity::default() }
    }

    fn at(offset: u64) -> Written {
        Written { offset, time: offset }
    }

    fn of(user: Option<&str>, before: u64, until: u64) -> Revocation {
        Revocation { token: None, user: user.map(str::to_owned), before: Some(before), until }
    }

    fn one(jti: &str, until: u64) -> Revocation {
        Revocation { token: Some(format!("{:016x}", token_id(jti))), user: None, before: None, until }
    }

    #[test]
    fn the_latest_revocation_of_a_user_counts_and_is_forgotten_when_its_tokens_have_expired() {
        let mut revoked = Revoked::default();
        for (offset, before, until) in [(1, 50, 1_050), (2, 70, 1_070), (3, 60, 1_060)] {
            revoked.add(&of(Some("ann"), before, until), at(offset));
        }
        revoked.add(&one("t1", 900), at(4));
        let ends = |revoked: &Revoked, user, issued, jti| revoked.ends(&identity(user, issued, jti), LONGEST);
        assert!(ends(&revoked, "ann", 70, "t9") && !ends(&revoked, "ann", 71, "t9") && !ends(&revoked, "bob", 1, "t9"));
        assert!(ends(&revoked, "bob", 999, "t1"));
        assert!(!revoked.ends(&Identity::default(), LONGEST), "an anonymous client has no token");
        revoked.forget(1_000);
        assert!(ends(&revoked, "ann", 70, "t9") && !ends(&revoked, "bob", 999, "t1"));
        revoked.forget(1_070);
        assert!(!ends(&revoked, "ann", 70, "t9"));
        revoked.add(&of(None, 80, 1_080), at(5));
        assert!(ends(&revoked, "eve", 80, "t9") && !ends(&revoked, "eve", 81, "t9"));
    }

    #[test]
    fn a_revocation_ends_the_tokens_that_it_names() {
        let token = |issued, jti: Option<&str>| Some(Token::new(10_000, issued, jti.map(token_id)));
        let identity = |user: &str, token| Identity { user: Some(user.into()), token, ..Identity::default() };
        let revoked = |revocation: &Revocation| {
            let mut revoked = Revoked::default();
            revoked.add(revocation, at(1));
            revoked
        };
        let all = [one("t1", 9), of(Some("ann"), 500, 9), of(None, 500, 9)].each_ref().map(revoked);
        for (identity, expected) in [
            (identity("ann", token(Some(500), Some("t1"))), [true, true, true]),
            (identity("ann", token(Some(501), Some("t1"))), [true, false, false]),
            (identity("bob", token(Some(499), Some("t2"))), [false, false, true]),
            (identity("ann", token(None, None)), [false, true, true]),
            (Identity::default(), [false, false, false]),
        ] {
            assert_eq!(all.each_ref().map(|revoked| revoked.ends(&identity, 9_600)), expected, "{identity:?}");
        }
        let old = identity("ann", token(None, None));
        assert!(!all[1].ends(&old, 1_000), "issued at 9,000 or later");
    }

    #[test]
    fn revocations_are_written_again_before_the_log_forgets_them() {
        let mut revoked = Revoked::default();
        revoked.add(&of(Some("ann"), 50, 1_050), at(1));
        revoked.add(&one("t1", 900), at(7));
        let old = |revoked: &Revoked, offset| revoked.older_than(Written { offset, time: 0 });
        assert_eq!(old(&revoked, 1), []);
        assert_eq!(revoked.older_than(Written { offset: 0, time: 2 }), [of(Some("ann"), 50, 1_050)], "by time");
        assert_eq!(old(&revoked, 7), [of(Some("ann"), 50, 1_050)]);
        revoked.add(&of(Some("ann"), 50, 1_050), at(9));
        assert_eq!(old(&revoked, 9), [one("t1", 900)]);
        revoked.add(&of(Some("ann"), 40, 1_040), at(20));
        assert_eq!(
            old(&revoked, 10),
            [one("t1", 900), of(Some("ann"), 50, 1_050)],
            "an older one does not stand for it"
        );
        revoked.endanger();
        assert_eq!(old(&revoked, 0).len(), 2);
    }
}
