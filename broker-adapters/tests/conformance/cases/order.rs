//! Publishes that do not wait for each other keep their order, whatever becomes of the connections.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Broker, PublishError, Resume};
use law::History;
use tokio::time::{Instant, sleep};

use crate::fixture::{Fixture, PATIENCE};
use crate::node::{BUDGET, Follower, SETTINGS, Seen, log_on, text};

/// Messages of one publisher.
const MESSAGES: usize = 6_000;
/// Publishes that have no answer yet, at most: as many as a socket's.
const AHEAD: usize = 256;

pub(crate) async fn new_connections_keep_the_order_of_publishes(broker: Arc<dyn Fixture>) {
    keeps_order(&*broker, Disturbance::Redial).await;
}

pub(crate) async fn a_wire_reset_again_and_again_keeps_the_order_of_publishes(broker: Arc<dyn Fixture>) {
    keeps_order(&*broker, Disturbance::Reset).await;
}

pub(crate) async fn a_broker_that_stands_still_keeps_the_order_of_publishes(broker: Arc<dyn Fixture>) {
    keeps_order(&*broker, Disturbance::Pause).await;
}

pub(crate) async fn a_broker_killed_again_and_again_keeps_the_order_of_publishes(broker: Arc<dyn Fixture>) {
    keeps_order(&*broker, Disturbance::Kill).await;
}

#[derive(Clone, Copy)]
enum Disturbance {
    /// The node itself makes new connections.
    Redial,
    /// Its connections are reset.
    Reset,
    /// The broker stands still for about as long as an answer may take.
    Pause,
    /// The broker dies and is started again.
    Kill,
}

impl Disturbance {
    /// After how many answers it comes again.
    fn pace(self) -> usize {
        match self {
            Self::Redial | Self::Reset => 300,
            Self::Pause | Self::Kill => 2_000,
        }
    }

    async fn strike(self, broker: &dyn Fixture, connection: &dyn Broker) {
        match self {
            Self::Redial => connection.redial().await,
            Self::Reset => {
                broker.cut(0);
                broker.mend(0);
            }
            Self::Pause => {
                broker.pause().await;
                sleep(Duration::from_millis(fastrand::u64(900..1200))).await;
                broker.resume().await;
            }
            Self::Kill => {
                broker.kill().await;
                broker.start().await;
            }
        }
    }
}

/// One publisher that does not wait for its answers, while the broker is disturbed again and again.
async fn keeps_order(broker: &dyn Fixture, disturbance: Disturbance) {
    let connection = broker.connect(0, SETTINGS);
    let log = log_on(Arc::clone(&connection), SETTINGS.partitions, BUDGET);
    let follower = Follower::of(log.tail_all(Resume::Head), "node 0", &History::default());
    follower.until("every partition is up", Seen::all_up).await;
    let (mut stored, mut under_way) = (0, VecDeque::new());
    for n in 0..MESSAGES + AHEAD {
        if n < MESSAGES {
            under_way.push_back(Box::pin(log.publish(text("room", &format!("{n:>1000}")), Instant::now() + PATIENCE)));
        }
        let Some(number) = n.checked_sub(AHEAD) else { continue };
        let Some(answer) = under_way.pop_front() else { continue };
        match answer.await {
            Ok(_) => stored += 1,
            Err(PublishError::Rejected(why)) => panic!("{number}: {why}"),
            Err(_) => {}
        }
        if number.is_multiple_of(disturbance.pace()) {
            disturbance.strike(broker, &*connection).await;
        }
    }
    follower.until("all that was stored is there", |seen| seen.records.len() >= stored).await;
    let texts = follower.seen().texts();
    let numbers: Vec<usize> = texts.iter().map(|text| text.trim().parse().expect("a number")).collect();
    let wrong: Vec<_> = numbers.windows(2).filter(|two| two[0] > two[1]).collect();
    assert!(wrong.is_empty(), "{} places are out of order: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}
