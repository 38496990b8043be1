//! The broker's process dies, stands still, comes back; its connections come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker_adapters::PublishError;
use law::History;
use tokio::time::{Instant, sleep};

use super::outage::BACK;
use crate::fixture::{Fixture, PATIENCE};
use crate::load::{Load, flowing, verdict};
use crate::node::{Follower, Seen, cluster, log, node, say, text};

pub(crate) async fn a_killed_and_restarted_broker_loses_nothing(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    for round in 0..3 {
        flowing(&followers).await;
        let before = [0, 1].map(|node: usize| followers[node].seen().downs.len());
        broker.kill().await;
        for (follower, before) in followers.iter().zip(before) {
            follower.until_down(before).await;
        }
        // Once long enough for publishes to fail, else at once.
        if round == 1 {
            sleep(Duration::from_secs(4)).await;
        }
        broker.start().await;
        for follower in &followers {
            follower.until_up_within(BACK).await;
        }
    }
    flowing(&followers).await;
    let numbers = load.stop().await;
    verdict("killed and restarted three times", &history, &logs[0], &followers).await.assert_whole();
    let ended = numbers.failed.load(Ordering::Relaxed) + numbers.unknown.load(Ordering::Relaxed);
    assert!(ended > 0, "none waited out its deadline: {numbers:?}");
}

pub(crate) async fn a_paused_broker_delivers_nothing_twice(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::with_deadline(&history, &logs, Duration::from_secs(1));
    flowing(&followers).await;
    broker.pause().await;
    sleep(Duration::from_secs(2)).await;
    broker.resume().await;
    for follower in &followers {
        follower.until("it is up", Seen::all_up).await;
    }
    flowing(&followers).await;
    let numbers = load.stop().await;
    verdict("paused for 2 s", &history, &logs[0], &followers).await.assert_whole();
    assert!(numbers.unknown.load(Ordering::Relaxed) > 0, "none was left unknown: {numbers:?}");
}

pub(crate) async fn a_broker_that_starts_after_the_node_is_found(broker: Arc<dyn Fixture>) {
    broker.kill().await;
    let log = log(&*broker, 0);
    let follower = Follower::of(log.tail_all(broker_adapters::Resume::Head), "node 0", &History::default());
    follower.until_down(0).await;
    let failed = log.publish(text("room", "too early"), Instant::now() + Duration::from_millis(500)).await;
    assert_eq!(failed, Err(PublishError::Unavailable));
    broker.start().await;
    follower.until_up_within(BACK).await;
    say(&log, "room", "now").await;
    follower.until_has("now").await;
    assert!(follower.seen().says_each_reason_once(), "{:?}", follower.seen().downs);
    assert_eq!(follower.seen().texts(), ["now"]);
}

pub(crate) async fn a_lost_disk_is_announced_and_the_log_goes_on(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    flowing(&followers).await;
    broker.kill().await;
    broker.lose_disk().await;
    broker.start().await;
    for follower in &followers {
        follower.until("every partition was announced", |seen| seen.breaks.len() >= 4 && seen.all_up()).await;
    }
    flowing(&followers).await;
    load.stop().await;
    verdict("disk lost", &history, &logs[0], &followers).await.assert_lawful();
}

pub(crate) async fn connections_closed_by_the_broker_lose_nothing(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    for _ in 0..5 {
        flowing(&followers).await;
        let before = [0, 1].map(|node: usize| followers[node].seen().downs.len());
        broker.close_connections().await;
        for (follower, before) in followers.iter().zip(before) {
            follower.until_down(before).await;
            follower.until_up_within(BACK).await;
        }
    }
    flowing(&followers).await;
    load.stop().await;
    verdict("closed by the broker", &history, &logs[0], &followers).await.assert_whole();
}

pub(crate) async fn no_connection_is_left_behind(broker: Arc<dyn Fixture>) {
    until_connections(&*broker, 0).await;
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let with_one_tail = broker.connections().await;
    for _ in 0..20 {
        let more = Follower::of(log.tail_all(broker_adapters::Resume::Head), "one more", &History::default());
        more.until("it is up", Seen::all_up).await;
        assert!(broker.connections().await > with_one_tail);
        drop(more);
        until_connections(&*broker, with_one_tail).await;
    }
    for _ in 0..5 {
        let before = follower.seen().downs.len();
        broker.cut(0);
        follower.until_down(before).await;
        broker.mend(0);
        follower.until("it is up", Seen::all_up).await;
        say(&log, "room", "hello").await;
    }
    until_connections(&*broker, with_one_tail).await;
    drop((log, follower));
    until_connections(&*broker, 0).await;
}

pub(crate) async fn a_failover_with_connections_open_loses_nothing(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    flowing(&followers).await;
    broker.fail_over().await;
    let begin = Instant::now();
    flowing(&followers).await;
    assert!(begin.elapsed() < BACK, "messages flow only after {:?}", begin.elapsed());
    load.stop().await;
    verdict("failed over", &history, &logs[0], &followers).await.assert_whole();
}

/// Waits until there are this many connections.
async fn until_connections(broker: &dyn Fixture, wanted: usize) {
    let begin = Instant::now();
    loop {
        let now = broker.connections().await;
        if now == wanted {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{now} connections instead of {wanted}");
    }
}
