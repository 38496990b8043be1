//! The clients' tokens: when each was issued, and which are revoked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::wall;
use crate::cluster::{Control, Revocation};
use crate::gate::{Identity, Token};

/// How long the tokens of simulated clients are valid, in seconds: longer than a world.
const LIFE: u64 = 3_600;

/// How long after it is stored a revocation may need where nothing fails.
const AT_ONCE: Duration = Duration::from_secs(1);

/// All tokens in use.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// When the token of each connected client was issued, in seconds since 1970.
    issued: BTreeMap<usize, u64>,
    /// The latest revocation of each client, and when it was stored.
    revoked: BTreeMap<usize, (u64, Instant)>,
}

impl Tokens {
    /// Issues a token for a client that connects.
    pub(super) fn issue(&mut self, client: usize) -> Arc<Identity> {
        let issued = wall() / 1000;
        self.issued.insert(client, issued);
        let token = Some(Token::new(issued + LIFE, Some(issued), None));
        Arc::new(Identity { user: Some(user(client).into()), token, ..Identity::default() })
    }

    /// Notes that a client is no longer connected.
    pub(super) fn drop(&mut self, client: usize) {
        self.issued.remove(&client);
    }

    pub(super) fn revoke(&mut self, client: usize, before: u64) {
        self.revoked.insert(client, (before, Instant::now()));
    }

    /// The clients that are connected with a revoked token.
    pub(super) fn revoked(&self) -> Vec<usize> {
        self.issued.keys().copied().filter(|client| self.since(*client).is_some()).collect()
    }

    /// Whether a client that has read everything since this time still gets messages, although its token is revoked.
    pub(super) fn is_overdue(&self, client: usize, reading_since: Instant) -> bool {
        self.since(client).is_some_and(|stored| stored > reading_since && stored + AT_ONCE < Instant::now())
    }

    /// When the revocation of a connected client's token was stored.
    fn since(&self, client: usize) -> Option<Instant> {
        let (before, stored) = *self.revoked.get(&client)?;
        self.issued.get(&client).filter(|issued| **issued <= before).map(|_| stored)
    }
}

/// The record that revokes the tokens of a client.
pub(super) fn revocation(client: usize, before: u64) -> Control {
    let revoke = Revocation { token: None, user: Some(user(client)), before: Some(before), until: before + 2 * LIFE };
    Control { revoke: vec![revoke], ask: false }
}

fn user(client: usize) -> String {
    format!("user-{client}")
}
