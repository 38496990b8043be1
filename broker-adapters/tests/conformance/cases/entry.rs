//! Getting in: users, TLS, and a node that does not fit.

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Broker, LinkErrorKind, Partition, PublishError, Resume, Settings, Start};
use law::History;
use tokio::time::Instant;

use crate::fixture::{Fixture, PATIENCE};
use crate::load::Load;
use crate::node::{BUDGET, Follower, HEARTBEAT, SETTINGS, Seen, log, log_on, node, publish, say, text};

/// Why a node is not let in.
async fn refusal(log: &broker_adapters::Log) -> String {
    let follower = Follower::of(log.tail_all(broker_adapters::Resume::Head), "a node outside", &History::default());
    follower.until_down(0).await;
    let refused = log.publish(text("room", "never"), Instant::now() + Duration::from_millis(500)).await;
    assert_eq!(refused, Err(PublishError::Unavailable));
    assert!(follower.seen().up.is_empty());
    follower.seen().downs[0].1.clone()
}

/// What helps against what keeps a connection out.
async fn helps(door: &dyn Broker) -> LinkErrorKind {
    door.open(&[(Partition(0), Start::Head)]).await.err().expect("it does not open").kind
}

pub(crate) async fn a_wrong_password_is_named_as_the_reason_and_never_shown(broker: Arc<dyn Fixture>) {
    let door = broker.connect_with_wrong_password(SETTINGS);
    assert_eq!(helps(&*door).await, LinkErrorKind::Refused);
    let log = log_on(door, SETTINGS.partitions, BUDGET);
    let why = refusal(&log).await;
    assert!(why.contains("password"), "{why}");
    assert!(!why.contains("a-wrong-one") && !why.contains("hunter2"), "{why}");
}

pub(crate) async fn a_log_of_another_program_is_refused_and_left_as_it_is(broker: Arc<dyn Fixture>) {
    broker.squat().await;
    let before = broker.kept().await;
    assert_eq!(helps(&*broker.connect(0, SETTINGS)).await, LinkErrorKind::SetUp);
    let why = refusal(&log(&*broker, 0)).await;
    assert!(why.contains("another program") && why.contains("adopt=true"), "{why}");
    assert_eq!(broker.kept().await, before, "nothing is written");
    let adopting = log_on(broker.connect_adopting(SETTINGS), SETTINGS.partitions, BUDGET);
    let follower = Follower::of(adopting.tail_all(Resume::Head), "a node that adopts it", &History::default());
    follower.until("it is up", Seen::all_up).await;
    say(&adopting, "room", "adopted").await;
    follower.until_has("adopted").await;
    // Now it is Fanfare's too.
    let (other, follower) = node(&*broker, 1, &History::default()).await;
    say(&other, "room", "joined").await;
    follower.until_has("joined").await;
}

pub(crate) async fn a_node_that_may_not_write_is_not_up_and_says_why(broker: Arc<dyn Fixture>) {
    let (right, _follower) = node(&*broker, 0, &History::default()).await;
    let door = broker.connect_guest(SETTINGS).await;
    let guest = log_on(Arc::clone(&door), SETTINGS.partitions, BUDGET);
    let follower = Follower::of(guest.tail_all(Resume::Head), "a guest", &History::default());
    follower.until("it is up", Seen::all_up).await;
    say(&guest, "room", "as long as it may").await;
    broker.let_guest_write(false).await;
    let begin = Instant::now();
    while publish(&guest, "room", "never").await.is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it still may");
    }
    // What others write keeps the log alive for who may read.
    let load = Load::start(&History::default(), &[right]);
    follower.until("it is down", |seen| seen.up.is_empty()).await;
    let opened = door.open(&[(Partition(0), Start::Head)]).await;
    let error = opened.err().expect("it does not open");
    assert!(error.why.contains("may not write") || error.why.contains("`write`"), "{error}");
    assert_eq!(error.kind, LinkErrorKind::Refused);
    let ups = follower.seen().ups;
    tokio::time::sleep(10 * HEARTBEAT).await;
    assert_eq!(follower.seen().ups, ups, "it stays down");
    load.stop().await;
    broker.let_guest_write(true).await;
    follower.until("it is up again", Seen::all_up).await;
    say(&guest, "room", "again").await;
    follower.until_has("again").await;
}

pub(crate) async fn another_number_of_partitions_is_refused_in_words(broker: Arc<dyn Fixture>) {
    let (right, follower) = node(&*broker, 0, &History::default()).await;
    let wrong = Settings { partitions: 7, ..SETTINGS };
    let door = broker.connect(1, wrong);
    assert_eq!(helps(&*door).await, LinkErrorKind::SetUp);
    let log = log_on(door, wrong.partitions, BUDGET);
    let why = refusal(&log).await;
    assert!(why.contains("4 partitions") && why.contains('7'), "{why}");
    say(&right, "room", "the others go on").await;
    follower.until_has("the others go on").await;
}

pub(crate) async fn partitions_added_later_are_refused_in_words(broker: Arc<dyn Fixture>) {
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
    let door = broker.connect_tls(false, SETTINGS).expect("a good CA");
    assert_eq!(helps(&*door).await, LinkErrorKind::SetUp);
    let log = log_on(door, SETTINGS.partitions, BUDGET);
    let why = refusal(&log).await;
    assert!(why.contains("TLS") && why.contains("certificate"), "{why}");
}
