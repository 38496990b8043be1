//! How much waits for all of a worker's clients, and when one of them has had its share.

use std::cell::Cell;

/// What any client may have queued even when the worker as a whole is over its budget.
const SPARED: usize = 16 << 10;

/// The weight of all outboxes of a worker. Frames that several clients wait for count for each of them.
#[derive(Debug)]
pub(crate) struct Backlog {
    queued: Cell<usize>,
    /// The most for one client.
    each: usize,
    /// The most for all of them.
    all: usize,
}

impl Backlog {
    pub(crate) fn new(each: usize, all: usize) -> Self {
        Self { queued: Cell::new(0), each, all }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.queued.set(self.queued.get().saturating_sub(bytes));
    }

    /// Whether a client with so much queued must go.
    pub(crate) fn is_over(&self, queued: usize) -> bool {
        queued > self.each || (self.queued.get() > self.all && queued > SPARED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_bounded_and_all_together_are() {
        let backlog = Backlog::new(100 << 10, 200 << 10);
        assert!(!backlog.is_over(100 << 10));
        assert!(backlog.is_over((100 << 10) + 1));
        backlog.add((200 << 10) + 1);
        assert!(backlog.is_over(SPARED + 1));
        assert!(!backlog.is_over(SPARED), "who is hardly behind is spared");
        backlog.sub(1);
        assert!(!backlog.is_over(100 << 10));
    }
}
