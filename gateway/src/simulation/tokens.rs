//! The clients' tokens: which channels each allows, when it was issued, and which are revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::wall;
use crate::auth::signer::Signer;
use crate::auth::{Auth, Verification};
use crate::cluster::{Control, Revocation};
use crate::config::Config;
use crate::gate::Identity;

/// How long the tokens of simulated clients are valid, in seconds: longer than a world.
const LIFE: u64 = 3_600;

/// How long after it is stored a revocation may need where nothing fails.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The users of all clients.
const USERS: usize = 3;

/// The key of all nodes, as a configuration has it.
pub(super) const KEYS: &str = r#"keys = [{ secret = "a secret of simulated nodes and clients" }]"#;

/// A token of a client, and when it was issued, in seconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) issued: u64,
}

/// All tokens in use.
pub(super) struct Tokens {
    auth: Auth,
    signer: Signer,
    /// When the token of each connected client was issued.
    issued: BTreeMap<usize, u64>,
    /// The latest revocation of each user, and when it was stored.
    revoked: BTreeMap<String, (u64, Instant)>,
}

impl Tokens {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            auth: Auth::new(config).expect("the key is a secret"),
            signer: Signer::from_config(&config.auth.keys, None).expect("the key is a secret"),
            issued: BTreeMap::new(),
            revoked: BTreeMap::new(),
        }
    }

    /// Issues a token with which a client may publish everywhere and subscribe to these channels.
    pub(super) fn issue(&self, client: usize, channels: &BTreeSet<String>) -> Token {
        let issued = wall() / 1000;
        let some = channels.iter().map(|channel| json!({ "match": channel, "can": ["subscribe"] }));
        let all = json!({ "match": "*", "can": ["publish", "history"] });
        let channels: Vec<_> = some.chain([all]).collect();
        let claims = json!({
            "sub": user(client), "iat": issued, "exp": issued + LIFE, "fanfare": { "channels": channels }
        });
        Token { text: self.signer.sign(&claims).expect("a secret signs"), issued }
    }

    /// The identity that a token proves at a handshake.
    pub(super) fn identity(&self, token: &Token) -> Arc<Identity> {
        match self.auth.verify(&token.text, wall() / 1000) {
            Verification::Now(identity) => identity.expect("the token is valid"),
            Verification::Later(_) => unreachable!("the key is at hand"),
        }
    }

    /// Notes that a node has accepted a client's token.
    pub(super) fn hold(&mut self, client: usize, token: &Token) {
        self.issued.insert(client, token.issued);
    }

    /// Notes that a client is no longer connected.
    pub(super) fn drop(&mut self, client: usize) {
        self.issued.remove(&client);
    }

    pub(super) fn revoke(&mut self, client: usize, before: u64) {
        self.revoked.insert(user(client), (before, Instant::now()));
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
        let (before, stored) = *self.revoked.get(&user(client))?;
        self.issued.get(&client).filter(|issued| **issued <= before).map(|_| stored)
    }
}

/// The record that revokes the tokens of a client's user.
pub(super) fn revocation(client: usize, before: u64) -> Control {
    let revoke = Revocation { token: None, user: Some(user(client)), before: Some(before), until: before + 2 * LIFE };
    Control { revoke: vec![revoke], ..Control::default() }
}

/// The user of a client: some users have two.
pub(super) fn user(client: usize) -> String {
    format!("user-{}", client % USERS)
}
