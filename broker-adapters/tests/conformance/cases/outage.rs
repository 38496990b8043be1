//! The wire between a node and its broker fails; nothing is lost, and each publish has its answer in time.

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Budget, PublishError};
use futures_util::future::join_all;
use law::History;
use real_brokers::Direction;
use tokio::time::{Instant, sleep};

use crate::fixture::Fixture;
use crate::lateness::slack;
use crate::load::{Load, flowing, verdict};
use crate::node::{DEADLINE, Follower, HEARTBEAT, SETTINGS, Seen, cluster, log, log_on, node, read_back, say, text};

/// How soon delivery is back once the broker can be reached.
pub(crate) const BACK: Duration = Duration::from_secs(5);

pub(crate) async fn a_cut_wire_loses_nothing(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    flowing(&followers).await;
    broker.cut(0);
    followers[0].until_down(0).await;
    flowing(&followers[1..]).await;
    broker.mend(0);
    followers[0].until_up_within(BACK).await;
    flowing(&followers).await;
    load.stop().await;
    verdict("cut wire", &history, &logs[0], &followers).await.assert_whole();
}

pub(crate) async fn a_wire_reset_again_and_again_loses_nothing(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    for round in 0..10 {
        flowing(&followers).await;
        for (wire, follower) in followers.iter().enumerate() {
            let before = follower.seen().downs.len();
            broker.cut(wire);
            follower.until_down(before).await;
            broker.mend(wire);
        }
        for follower in &followers {
            follower.until(&format!("it is up after reset {round}"), Seen::all_up).await;
        }
    }
    load.stop().await;
    verdict("ten resets", &history, &logs[0], &followers).await.assert_whole();
}

pub(crate) async fn a_dead_wire_is_found_and_replaced(broker: Arc<dyn Fixture>) {
    dead_wire(broker, &[Direction::ToBroker, Direction::FromBroker]).await;
}

pub(crate) async fn a_wire_dead_towards_the_broker_is_found_and_replaced(broker: Arc<dyn Fixture>) {
    dead_wire(broker, &[Direction::ToBroker]).await;
}

pub(crate) async fn a_wire_dead_from_the_broker_is_found_and_replaced(broker: Arc<dyn Fixture>) {
    dead_wire(broker, &[Direction::FromBroker]).await;
}

async fn dead_wire(broker: Arc<dyn Fixture>, directions: &[Direction]) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    flowing(&followers).await;
    let before = followers[0].seen().downs.len();
    let begin = Instant::now();
    broker.stall(0, directions);
    let found = followers[0].until_down(before).await - begin;
    assert!(found <= 3 * HEARTBEAT + slack(), "found only after {found:?}");
    broker.mend(0);
    followers[0].until_up_within(BACK).await;
    flowing(&followers).await;
    load.stop().await;
    verdict(&format!("dead {directions:?}"), &history, &logs[0], &followers).await.assert_whole();
}

pub(crate) async fn a_node_that_is_cut_off_does_not_disturb_the_other(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    broker.cut(0);
    followers[0].until_down(0).await;
    let before = followers[1].seen().downs.len();
    for n in 0..100 {
        say(&logs[1], "room", &n.to_string()).await;
    }
    followers[1].until_has("99").await;
    assert_eq!(followers[1].seen().downs.len(), before, "{:?}", followers[1].seen().downs);
    broker.mend(0);
    followers[0].until_has("99").await;
    assert_eq!((followers[0].seen().texts(), followers[0].seen().breaks.len()), (followers[1].seen().texts(), 0));
}

pub(crate) async fn a_broker_that_is_away_at_the_start_is_found_when_it_comes(broker: Arc<dyn Fixture>) {
    broker.cut(0);
    let log = log(&*broker, 0);
    let follower = Follower::of(log.tail_all(broker_adapters::Resume::Head), "node 0", &History::default());
    follower.until_down(0).await;
    let begin = Instant::now();
    let failed = log.publish(text("room", "too early"), begin + Duration::from_millis(500)).await;
    assert_eq!(failed, Err(PublishError::Unavailable));
    assert!(begin.elapsed() >= Duration::from_millis(450) && begin.elapsed() < Duration::from_millis(500) + slack());
    broker.mend(0);
    follower.until_up_within(BACK).await;
    assert!(follower.seen().says_each_reason_once(), "{:?}", follower.seen().downs);
    say(&log, "room", "now").await;
    follower.until_has("now").await;
    assert_eq!((follower.seen().texts(), follower.seen().breaks.len()), (vec!["now".to_owned()], 0));
}

pub(crate) async fn publishes_during_an_outage_fail_by_their_deadline(broker: Arc<dyn Fixture>) {
    let (logs, followers) = cluster(&*broker, &History::default()).await;
    say(&logs[0], "room", "before").await;
    broker.cut(0);
    followers[0].until_down(0).await;
    // The link that publishes is another one, and may be found broken only by trying.
    let first = logs[0].publish(text("room", "first"), Instant::now() + DEADLINE / 10).await;
    assert!(first.is_err(), "{first:?}");
    let times = [50, 200, 1000].map(Duration::from_millis);
    let publishes = times.map(|time| {
        let log = &logs[0];
        async move {
            let begin = Instant::now();
            let result = log.publish(text("room", "during"), begin + time).await;
            assert_eq!(result, Err(PublishError::Unavailable), "nothing was sent");
            assert!(begin.elapsed() < time + slack(), "ended only after {:?}", begin.elapsed());
        }
    });
    join_all(publishes).await;
    let patient = tokio::spawn({
        let log = Arc::clone(&logs[0]);
        async move { say(&log, "room", "after").await }
    });
    tokio::task::yield_now().await;
    broker.mend(0);
    patient.await.expect("it waits for the broker until its deadline");
    for follower in &followers {
        follower.until_has("after").await;
        assert_eq!(follower.seen().texts(), ["before", "after"]);
    }
}

pub(crate) async fn reading_back_over_a_dead_wire_fails_in_time(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    for payload in ["one", "two"] {
        say(&log, "room", payload).await;
        follower.until_has(payload).await;
    }
    let last = follower.seen().records[1].position();
    assert!(!read_back(&log, last, 10).await.expect("readable").is_empty());
    broker.stall(0, &[Direction::ToBroker, Direction::FromBroker]);
    let begin = Instant::now();
    assert!(read_back(&log, last, 10).await.is_err());
    assert!(begin.elapsed() < BACK + slack(), "ended only after {:?}", begin.elapsed());
    broker.mend(0);
    follower.until_up_within(BACK).await;
    assert!(!read_back(&log, last, 10).await.expect("readable").is_empty());
}

pub(crate) async fn short_deadlines_are_kept_behind_long_ones(broker: Arc<dyn Fixture>) {
    let (logs, _followers) = cluster(&*broker, &History::default()).await;
    say(&logs[0], "room", "before").await;
    broker.stall(0, &[Direction::ToBroker, Direction::FromBroker]);
    let publish = |within: Duration| {
        let log = Arc::clone(&logs[0]);
        tokio::spawn(async move {
            let begin = Instant::now();
            (log.publish(text("room", "during"), begin + within).await, begin.elapsed())
        })
    };
    // These go out, each by itself, and keep the others waiting.
    let mut long = Vec::new();
    for _ in 0..2 * logs[0].capabilities().pipeline {
        long.push(publish(DEADLINE));
        sleep(Duration::from_millis(5)).await;
    }
    let mut short = Vec::new();
    for _ in 0..100 {
        short.push(publish(Duration::from_millis(50)));
        sleep(Duration::from_millis(5)).await;
    }
    for publish in short {
        let (result, time) = publish.await.expect("no panic");
        assert_eq!(result, Err(PublishError::Unavailable), "never sent");
        assert!(time < Duration::from_millis(50) + slack(), "ended only after {time:?}");
    }
    for publish in long {
        let (result, time) = publish.await.expect("no panic");
        assert!(result.is_err() && time < DEADLINE + slack(), "{result:?} after {time:?}");
    }
}

pub(crate) async fn publishes_beyond_the_budget_are_refused_at_once(broker: Arc<dyn Fixture>) {
    let full = Duration::from_secs(1);
    for (budget, kept) in [
        (Budget { messages: 50, bytes: 1 << 20 }, 50),
        // 1,000 bytes and the envelope's.
        (Budget { messages: 1000, bytes: 20 * 1038 }, 20),
    ] {
        let log = log_on(broker.connect(0, SETTINGS), SETTINGS.partitions, budget);
        broker.cut(0);
        let publishes = (0..80).map(|_| async {
            let begin = Instant::now();
            (log.publish(text("room", &"x".repeat(1000)), begin + full).await, begin.elapsed())
        });
        let results = join_all(publishes).await;
        let refused = results.iter().filter(|(result, _)| matches!(result, Err(PublishError::Overloaded(_))));
        assert!(refused.clone().all(|(_, time)| *time < slack()), "at once: {results:?}");
        assert_eq!(refused.count(), 80 - kept);
        let failed = results.iter().filter(|(result, _)| *result == Err(PublishError::Unavailable)).count();
        assert_eq!(failed, kept);
        broker.mend(0);
        say(&log, "room", "the budget is free again").await;
    }
}
