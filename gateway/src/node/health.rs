//! Whether this node is ready for new clients.
//!
//! Ready means that a record of every partition was read since the broker was last connected, and that all parts of the
//! node work. An open socket or an answered ping is not enough.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::node::vitals::{PATIENCE, Vital, Vitals};

/// The most characters of a reason that are shown.
const WORDS: usize = 300;

/// The node's state as a balancer sees it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Whether all partitions are being read.
    link: AtomicBool,
    /// Why there is no link, in the broker's own words, after the first failed attempt.
    down: Mutex<Option<String>>,
    draining: AtomicBool,
    pub(crate) vitals: Arc<Vitals>,
    /// The longest time without a record in which a tail counts as working, while its link is up.
    silence: Option<Duration>,
}

/// Why a node is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    #[error("the broker's log is not being read: {0}")]
    Link(String),
    #[error("this node is draining")]
    Draining,
    #[error("{0}")]
    Part(String),
}

impl Health {
    /// The health of a node whose silent partitions get a heartbeat after `heartbeat`.
    pub(crate) fn new(heartbeat: Duration) -> Self {
        // The tail itself ends a link after three heartbeats without a record.
        Self { silence: Some(4 * heartbeat + PATIENCE), ..Self::default() }
    }

    /// The vitals of the broker's tail and of the relay.
    pub(crate) fn relay(&self) -> (Vital, Vital) {
        (self.vitals.part("the broker's tail", self.silence), self.vitals.part("the relay", Some(PATIENCE)))
    }

    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if self.draining.load(Ordering::Acquire) {
            return Err(NotReady::Draining);
        }
        if let Some(trouble) = self.vitals.trouble() {
            return Err(NotReady::Part(trouble));
        }
        if self.link.load(Ordering::Acquire) {
            return Ok(());
        }
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(NotReady::Link(down.unwrap_or_else(|| "no record has been read yet".to_owned())))
    }

    /// Sets whether all partitions are being read.
    pub(crate) fn set_link(&self, up: bool) {
        self.link.store(up, Ordering::Release);
    }

    /// Notes why the link was lost or cannot be made. The text may come from the broker, so only one short line is
    /// kept.
    pub(crate) fn set_down(&self, why: &str) {
        let why = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.set_link(false);
    }

    /// Notes that the node drains, which is final.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
