//! How often a tail tries again, on a broker that never lets it in.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{Instant, sleep};

use super::*;
use crate::broker::{AppendError, Broker, Capabilities, Opened, Start, Stored};
use crate::log::Timing;
use crate::stored::position::Offset;

/// A broker that answers with one error, and counts how often it is asked.
struct Shut {
    error: LinkError,
    asked: AtomicUsize,
}

#[async_trait::async_trait]
impl Broker for Shut {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "shut", durable: false, max_bytes: 1 << 20, pipeline: 1 }
    }

    async fn append(&self, batch: &[Append], _: Instant) -> Vec<Result<Stored, AppendError>> {
        batch.iter().map(|_| Err(AppendError::NotStored(self.error.clone()))).collect()
    }

    async fn open(&self, _: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(self.error.clone())
    }

    async fn read_back(&self, _: Partition, _: Offset, _: usize) -> Result<Vec<Entry>, LinkError> {
        Err(self.error.clone())
    }

    async fn redial(&self) {}

    async fn close(&self) {}
}

/// How often a tail tries in ten minutes, and its first events.
async fn tries(error: LinkError) -> (usize, Vec<TailEvent>) {
    let broker = Arc::new(Shut { error, asked: AtomicUsize::new(0) });
    let shared = Shared::new(Arc::clone(&broker) as Arc<dyn Broker>, 1, Timing::new(Duration::from_secs(2)));
    let mut tail = start(Arc::new(shared), &[(Partition(0), Resume::Head)]);
    sleep(Duration::from_secs(600)).await;
    (broker.asked.load(Ordering::Relaxed), tail.next().await.expect("it goes on"))
}

#[tokio::test(start_paused = true)]
async fn a_link_that_needs_a_change_is_tried_slowly_and_others_every_second() {
    for (error, least, most) in [
        (LinkError::new("nothing listens there"), 500, 1300),
        (LinkError::protocol("not the answers of a broker"), 500, 1300),
        (LinkError::refused("wrong password"), 20, 50),
        (LinkError::set_up("another number of partitions"), 20, 50),
    ] {
        let (tries, events) = tries(error.clone()).await;
        assert!((least..=most).contains(&tries), "{tries} tries after {error:?}");
        assert!(matches!(&events[..], [TailEvent::Down { why }] if *why == error.why), "{events:?}");
    }
}
