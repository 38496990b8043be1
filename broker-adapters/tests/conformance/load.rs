//! Publishers that go on through a fault, and the verdict at its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker_adapters::{Log, PublishError};
use law::{History, Outcome, Report};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::PATIENCE;
use crate::lateness::slack;
use crate::node::{DEADLINE, Follower, SETTINGS, channel_in, text};

/// Publishers per node.
const PUBLISHERS: usize = 6;
/// The pause of a publisher between two messages.
const PACE: Duration = Duration::from_millis(4);

/// Publishes on several channels, from all nodes, until it is stopped.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    publishers: Vec<JoinHandle<()>>,
    numbers: Arc<Numbers>,
}

#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) acked: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    pub(crate) unknown: AtomicUsize,
}

impl Load {
    pub(crate) fn start(history: &History, nodes: &[Arc<Log>]) -> Self {
        Self::with_deadline(history, nodes, DEADLINE)
    }

    pub(crate) fn with_deadline(history: &History, nodes: &[Arc<Log>], deadline: Duration) -> Self {
        let (stop, numbers) = (watch::Sender::new(false), Arc::<Numbers>::default());
        let publisher = |number: usize| {
            let (log, history) = (Arc::clone(&nodes[number % nodes.len()]), history.clone());
            let (stopped, numbers) = (stop.subscribe(), Arc::clone(&numbers));
            tokio::spawn(async move {
                // Two publishers share a channel.
                let channel = format!("room-{}", number / 2);
                let mut count = 0;
                while !*stopped.borrow() {
                    count += 1;
                    numbers.count(publish(&history, &log, &channel, &format!("{number}-{count}"), deadline).await);
                    sleep(PACE).await;
                }
            })
        };
        let publishers = (0..PUBLISHERS * nodes.len()).map(publisher).collect();
        Self { stop, publishers, numbers }
    }

    /// Stops and gives the numbers, once all publishes have ended.
    pub(crate) async fn stop(self) -> Arc<Numbers> {
        self.stop.send_replace(true);
        for publisher in self.publishers {
            publisher.await.expect("no publisher panics");
        }
        self.numbers
    }
}

impl Numbers {
    fn count(&self, outcome: Outcome) {
        let number = match outcome {
            Outcome::Acknowledged => &self.acked,
            Outcome::Failed => &self.failed,
            Outcome::Unknown => &self.unknown,
        };
        number.fetch_add(1, Ordering::Relaxed);
    }
}

/// Publishes one message as a part of the history; it must end by its deadline.
pub(crate) async fn publish(history: &History, log: &Log, channel: &str, payload: &str, within: Duration) -> Outcome {
    let id = history.publish(&log.partition_of(channel).0.to_string(), payload);
    let begin = Instant::now();
    let outcome = match log.publish(text(channel, payload), begin + within).await {
        Ok(_) => Outcome::Acknowledged,
        Err(PublishError::Unknown) => Outcome::Unknown,
        Err(PublishError::Unavailable | PublishError::Overloaded(_)) => Outcome::Failed,
        Err(error @ PublishError::Rejected(_)) => panic!("`{payload}`: {error}"),
    };
    history.ended(id, outcome);
    assert!(begin.elapsed() < within + slack(), "`{payload}` ended only after {:?}, {outcome:?}", begin.elapsed());
    outcome
}

/// Waits until more messages came through than so far: the load is flowing.
pub(crate) async fn flowing(followers: &[Follower]) {
    for follower in followers {
        let before = follower.seen().records.len();
        follower.until("messages flow", |seen| seen.records.len() > before + 100).await;
    }
}

/// Publishes a last message in every partition, until all followers have seen them, and judges the run.
pub(crate) async fn verdict(case: &str, history: &History, log: &Log, followers: &[Follower]) -> Report {
    let begin = Instant::now();
    for round in 0.. {
        assert!(begin.elapsed() < PATIENCE, "the last messages do not arrive everywhere");
        let mut last = Vec::new();
        for partition in 0..SETTINGS.partitions {
            let payload = format!("last-{partition}-{round}");
            let outcome = publish(history, log, &channel_in(log, partition), &payload, DEADLINE).await;
            last.extend((outcome == Outcome::Acknowledged).then_some(payload));
        }
        let arrive = async {
            for follower in followers {
                follower.until("the last messages arrive", |seen| last.iter().all(|last| seen.has(last))).await;
            }
        };
        if last.len() == usize::from(SETTINGS.partitions) && timeout(DEADLINE, arrive).await.is_ok() {
            break;
        }
    }
    let report = history.report();
    println!("{case}: {report}");
    report
}
