//! Getting in: users, TLS, and a node that does not fit.

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{PublishError, Settings};
use tokio::time::Instant;

use crate::fixture::Fixture;
use crate::history::History;
use crate::node::{BUDGET, Follower, SETTINGS, Seen, log_on, node, say, text};

/// Why a node is not let in.
async fn refusal(log: &broker_adapters::Log) -> String {
    let follower = Follower::of(log.tail_all(broker_adapters::Resume::Head), "a node outside", &History::default());
    follower.until_down(0).await;
    let refused = log.publish(text("room", "never"), Instant::now() + Duration::from_millis(500)).await;
    assert_eq!(refused, Err(PublishError::Unavailable));
    assert!(follower.seen().up.is_empty());
    follower.seen().downs[0].1.clone()
}

pub(crate) async fn a_wrong_password_is_said_without_saying_it(broker: Arc<dyn Fixture>) {
    let log = log_on(broker.connect_with_wrong_password(SETTINGS), SETTINGS.partitions, BUDGET);
    let why = refusal(&log).await;
    assert!(why.contains("password"), "{why}");
    assert!(!why.contains("a-wrong-one") && !why.contains("hunter2"), "{why}");
}

pub(crate) async fn another_number_of_partitions_is_refused_in_words(broker: Arc<dyn Fixture>) {
    let (right, follower) = node(&*broker, 0, &History::default()).await;
    let wrong = Settings { partitions: 7, ..SETTINGS };
    let log = log_on(broker.connect(1, wrong), wrong.partitions, BUDGET);
    let why = refusal(&log).await;
    assert!(why.contains("4 partitions") && why.contains('7'), "{why}");
    say(&right, "room", "the others go on").await;
    follower.until_has("the others go on").await;
}

pub(crate) async fn partitions_added_by_somebody_are_refused_in_words(broker: Arc<dyn Fixture>) {
    let (running, follower) = node(&*broker, 0, &History::default()).await;
    broker.grow(7).await;
    let log = log_on(broker.connect(1, SETTINGS), SETTINGS.partitions, BUDGET);
    let why = refusal(&log).await;
    assert!(why.contains("7 partitions") && why.contains('4'), "{why}");
    say(&running, "room", "who is in goes on").await;
    follower.until_has("who is in goes on").await;
}

pub(crate) async fn tls_works_with_a_private_ca(broker: Arc<dyn Fixture>) {
    let log = log_on(broker.connect_tls(true, SETTINGS).expect("a good CA"), SETTINGS.partitions, BUDGET);
    let follower = Follower::of(log.tail_all(broker_adapters::Resume::Head), "a node over TLS", &History::default());
    follower.until("it is up", Seen::all_up).await;
    for n in 0..100 {
        say(&log, "room", &n.to_string()).await;
    }
    follower.until_has("99").await;
    assert_eq!((follower.seen().records.len(), follower.seen().breaks.len()), (100, 0));
}

pub(crate) async fn a_certificate_of_another_ca_is_refused(broker: Arc<dyn Fixture>) {
    let log = log_on(broker.connect_tls(false, SETTINGS).expect("a good CA"), SETTINGS.partitions, BUDGET);
    let why = refusal(&log).await;
    assert!(why.contains("TLS") && why.contains("certificate"), "{why}");
}
