//! Whether this node should be sent new clients.
//!
//! Ready means that records were seen through the broker, on every partition, since the link was last made:
//! not that a socket is open or a ping was answered.

use std::sync::atomic::{AtomicBool, Ordering};

/// The node's state as a balancer sees it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    link: AtomicBool,
    draining: AtomicBool,
}

/// Why a node is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    #[error("the broker's log is not being read yet, or not any more")]
    Link,
    #[error("this node is draining")]
    Draining,
}

impl Health {
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if self.draining.load(Ordering::Acquire) {
            return Err(NotReady::Draining);
        }
        if self.link.load(Ordering::Acquire) { Ok(()) } else { Err(NotReady::Link) }
    }

    /// All partitions show records, or one does not.
    pub(crate) fn set_link(&self, up: bool) {
        self.link.store(up, Ordering::Release);
    }

    /// The node is going away; there is no way back.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
