//! Whether the broker takes what this node writes. Appends note it; readers act on it.
//!
//! A node that can read but not write would be ready while each of its publishes fails. So a refusal that needs a change
//! ends the readers with its reason, and a reader opens only after something was stored again.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::broker::LinkError;

/// The outcome of the last write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Untried,
    Stored,
    /// It may work the next time: a broker that was away, replicas that were missing.
    Failed,
    /// It will not work until an operator changes something at the broker.
    Refused(LinkError),
}

/// The outcome of this node's writes. Shared by all connections of an adapter.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    last: watch::Sender<Last>,
    /// A copy of `last == Stored`, which is read for every record.
    stored: AtomicBool,
}

impl Writes {
    /// Something was stored.
    pub(crate) fn stored(&self) {
        if !self.stored.load(Ordering::Acquire) {
            self.set(Last::Stored);
        }
    }

    /// Something was not stored, and may be the next time.
    pub(crate) fn failed(&self) {
        if self.refusal().is_none() {
            self.set(Last::Failed);
        }
    }

    /// The broker refuses what this node writes.
    pub(crate) fn refused(&self, why: LinkError) {
        self.set(Last::Refused(why));
    }

    /// Whether the last thing that was written was stored.
    pub(crate) fn are_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire)
    }

    /// Why the broker refuses what this node writes.
    pub(crate) fn refusal(&self) -> Option<LinkError> {
        if let Last::Refused(why) = &*self.last.borrow() { Some(why.clone()) } else { None }
    }

    /// Waits until the broker refuses, and says why.
    #[cfg(feature = "rabbitmq")]
    pub(crate) fn refuses(&self) -> impl Future<Output = LinkError> + Send + use<> {
        let mut last = self.last.subscribe();
        async move {
            match last.wait_for(|last| matches!(last, Last::Refused(_))).await.as_deref() {
                Ok(Last::Refused(error)) => error.clone(),
                // The adapter was dropped.
                _ => LinkError::new("closed"),
            }
        }
    }

    fn set(&self, last: Last) {
        self.stored.store(last == Last::Stored, Ordering::Release);
        self.last.send_replace(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_until_something_is_stored() {
        let writes = Writes::default();
        assert_eq!((writes.are_stored(), writes.refusal()), (false, None));
        writes.stored();
        assert!(writes.are_stored());
        let refusal = LinkError::refused("no right");
        writes.refused(refusal.clone());
        writes.failed();
        assert_eq!((writes.are_stored(), writes.refusal()), (false, Some(refusal)));
        writes.stored();
        assert_eq!((writes.are_stored(), writes.refusal()), (true, None));
        writes.failed();
        assert_eq!((writes.are_stored(), writes.refusal()), (false, None));
    }
}
