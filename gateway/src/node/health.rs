//! Whether this node should be sent new clients.
//!
//! Ready means that records were seen through the broker, on every partition, since the link was last made, and that all
//! parts of the node work: not that a socket is open or a ping was answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::node::vitals::{PATIENCE, Vital, Vitals};

/// Characters of a reason that are shown.
const WORDS: usize = 300;

/// The node's state as a balancer sees it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    link: AtomicBool,
    /// Why there is no link, in the broker's own words, once it was tried.
    down: Mutex<Option<String>>,
    draining: AtomicBool,
    pub(crate) vitals: Arc<Vitals>,
    /// The longest time in which a working tail shows no record, while its link is up.
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
    /// Of a node whose silent partitions get a heartbeat after so long.
    pub(crate) fn new(heartbeat: Duration) -> Self {
        // The tail itself ends a link after three of them.
        Self { silence: Some(4 * heartbeat + PATIENCE), ..Self::default() }
    }

    /// The tail, and the relay that listens to it.
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
        Err(NotReady::Link(down.unwrap_or_else(|| "no record has come yet".to_owned())))
    }

    /// All partitions show records, or one does not.
    pub(crate) fn set_link(&self, up: bool) {
        self.link.store(up, Ordering::Release);
    }

    /// The link is gone, or cannot be made, for this reason. A part of it may be the broker's: one short line is kept.
    pub(crate) fn set_down(&self, why: &str) {
        let why = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.set_link(false);
    }

    /// The node is going away; there is no way back.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
