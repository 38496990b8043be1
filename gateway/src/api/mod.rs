//! The HTTP API, by which backends publish, read history and end tokens: a listener of its own, keys, problems as RFC 9457.
//!
//! Runs on the main thread's runtime; no request blocks a worker. A backend's rights are those of its key, and the gate decides.
//! Never shows a key again after it was made.

mod answer;
mod body;
mod connections;
mod history;
mod keys;
mod listener;
mod me;
mod messages;
mod nodes;
#[cfg(test)]
mod openapi;
mod presence;
mod problem;
mod publish;
mod revoke;
mod routes;
mod shed;
mod tickets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

pub use self::keys::ApiError;
pub(crate) use self::keys::Keys;
pub(crate) use self::listener::{CONNECTIONS, Listener};
use crate::gate::{Guesses, Rate};
use crate::http::handshake::Hosts;
use crate::node::health::Health;
use crate::node::shared::Shared;
use crate::sparingly::Sparingly;

/// The most bytes of all bodies that are being read or carried out, in KiB.
const BODIES: usize = 64 << 10;

/// The shortest time between two lines of the log about refused requests.
const LINES: Duration = Duration::from_secs(10);

/// One value per node.
pub(crate) struct Api {
    shared: Arc<Shared>,
    health: Arc<Health>,
    keys: Keys,
    /// The node's own host names, as pages of other names must not reach it (DNS rebinding).
    hosts: Hosts,
    guesses: Guesses,
    /// What one key may publish per second.
    rate: Option<Rate>,
    started: Instant,
    bodies: Semaphore,
    lines: Sparingly,
}

impl Api {
    pub(crate) fn new(shared: Arc<Shared>, health: Arc<Health>, keys: Keys, hosts: Hosts) -> Self {
        let started = crate::clock::now();
        Self {
            rate: Rate::new(shared.config.api.publishes_per_second),
            shared,
            health,
            keys,
            hosts,
            guesses: Guesses::new(started),
            started,
            bodies: Semaphore::new(BODIES),
            lines: Sparingly::per(LINES),
        }
    }
}
