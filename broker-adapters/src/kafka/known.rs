//! What all clients of the adapter know together.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::stored::position::Epoch;
use crate::writes::Writes;

/// Bytes that a batch takes beside its first record's payload, rounded up.
const FRAME: usize = 128;
/// The largest batch, with its frame, where the topic takes that much; librdkafka's default.
const BATCH: usize = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Known {
    /// It is not sure that Kafka can be reached: look before sending.
    pub(super) doubt: AtomicBool,
    pub(super) writes: Writes,
    /// The epoch of the last topic that passed the examination; 0 for none.
    good: AtomicU64,
    /// Bytes of the largest batch that the topic takes, without its frame; 0 if that cannot be seen.
    largest: AtomicUsize,
}

impl Known {
    /// Whether this topic was examined and found good.
    pub(super) fn is_good(&self, epoch: Epoch) -> bool {
        self.good.load(Ordering::Acquire) == epoch.0
    }

    /// Whether there is a topic that was found good.
    pub(super) fn is_any_good(&self) -> bool {
        self.good.load(Ordering::Acquire) != 0
    }

    /// This topic was examined and found good. If it is another one than before, the producer is looked at before the next
    /// record.
    pub(super) fn good(&self, epoch: Epoch) {
        let before = self.good.swap(epoch.0, Ordering::AcqRel);
        if before != 0 && before != epoch.0 {
            self.doubt.store(true, Ordering::Release);
        }
    }

    /// Something is wrong with the topic: examine it again before the next record.
    pub(super) fn examine_again(&self) {
        self.good.store(0, Ordering::Release);
        self.doubt.store(true, Ordering::Release);
    }

    /// Bytes of the largest batch that the topic takes, without its frame, if that can be seen.
    pub(super) fn largest(&self) -> Option<usize> {
        Some(self.largest.load(Ordering::Acquire)).filter(|bytes| *bytes > 0)
    }

    /// Bytes of the largest batch that is sent.
    pub(super) fn batch(&self) -> usize {
        self.largest().unwrap_or(BATCH)
    }

    /// The topic takes batches of up to so many bytes.
    pub(super) fn set_largest(&self, bytes: usize) {
        // Below 1,000 librdkafka refuses to be set up.
        self.largest.store(bytes.min(BATCH).saturating_sub(FRAME).max(1000), Ordering::Release);
    }
}
