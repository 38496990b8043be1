//! What only Kafka can do to a log, on a real server. All that it shares with others is in the conformance suite.

#![allow(clippy::print_stdout, reason = "tests print the reasons that brokers give")]
#![cfg(feature = "kafka")]

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Append, AppendError, Broker, Partition, Settings, Start, connect};
use bytes::Bytes;
use real_brokers::{Kafka, PASSWORD, Server, USER};
use tokio::sync::OnceCell;
use tokio::time::Instant;

const SETTINGS: Settings = Settings { partitions: 2, retention: 1000 };
const PATIENCE: Duration = Duration::from_secs(60);
const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";

/// One for all tests: each has a topic of its own.
async fn kafka() -> &'static Kafka {
    static KAFKA: OnceCell<Kafka> = OnceCell::const_new();
    let started = KAFKA.get_or_init(async || {
        let kafka = Kafka::new(2).expect("a Kafka");
        kafka.start().await.expect("Kafka starts");
        kafka
    });
    started.await
}

fn broker(url: &str) -> Arc<dyn Broker> {
    connect(url, SETTINGS).expect("a good URL")
}

async fn tool(words: &[&str]) {
    kafka().await.tool(words).await.expect("Kafka obeys");
}

/// Makes a topic with a setting.
async fn topic(name: &str, setting: &str) -> Arc<dyn Broker> {
    tool(&[TOPICS, "--create", "--topic", name, "--partitions", "2", "--config", setting]).await;
    broker(&kafka().await.named_url(name))
}

/// Changes a setting of a topic.
async fn set(topic: &str, setting: &str) {
    tool(&[CONFIGS, "--alter", "--topic", topic, "--add-config", setting]).await;
}

async fn open(broker: &dyn Broker) -> Result<(), String> {
    broker.open(&[(Partition(0), Start::Head), (Partition(1), Start::Head)]).await.map(drop).map_err(|error| error.why)
}

/// Why no reader opens and nothing is stored, which must be the same.
async fn refusal(broker: &dyn Broker) -> String {
    let why = open(broker).await.expect_err("it does not open");
    let stored = broker.append(&[append(0, 10)], Instant::now() + Duration::from_secs(4)).await;
    assert!(matches!(stored[..], [Err(AppendError::NotStored(_))]), "{stored:?}");
    println!("{why}");
    why
}

fn append(partition: u16, bytes: usize) -> Append {
    Append { partition: Partition(partition), bytes: Bytes::from(vec![b' '; bytes]) }
}

async fn until_open(broker: &dyn Broker) {
    let begin = Instant::now();
    while let Err(why) = open(broker).await {
        assert!(begin.elapsed() < PATIENCE, "{why}");
    }
}

/// The refusal that has these words. On a busy machine an earlier attempt may only have run out of time.
async fn refusal_with(broker: &dyn Broker, words: &[&str]) -> String {
    let begin = Instant::now();
    loop {
        let why = refusal(broker).await;
        if words.iter().all(|word| why.contains(word)) {
            return why;
        }
        assert!(begin.elapsed() < PATIENCE, "{why}");
    }
}

#[tokio::test]
async fn a_url_that_does_not_fit_the_port_is_refused_with_what_to_change() {
    let kafka = kafka().await;
    let plain = kafka.inside();
    let ca = kafka.process().file("ca.pem").display().to_string();
    let tls = kafka.tls_url(&ca);
    let tls_port = tls.split(['@', '?']).nth(1).expect("a host");
    for (url, words) in [
        (format!("kafka+ssl://{plain}/a?ca={ca}"), &["kafka://"][..]),
        (format!("kafka://{tls_port}/a"), &["kafka+ssl://"]),
        (format!("kafka://{USER}:{PASSWORD}@{plain}/a"), &["no log-in", "user:password@"]),
        (kafka.url(1).replace(&format!("{USER}:{PASSWORD}@"), "") + "/a", &["user:password@"]),
        (kafka.url(1) + "/a?sasl=scram-sha-256", &["PLAIN", "SCRAM-SHA-512", "?sasl="]),
    ] {
        let why = refusal_with(&*broker(&url), words).await;
        assert!(!why.contains(PASSWORD), "{why}");
    }
}

#[tokio::test]
async fn more_copies_than_brokers_are_refused_with_both_numbers() {
    let url = kafka().await.named_url("copies");
    refusal_with(&*broker(&format!("{url}?replication=3")), &["`?replication=3`", "`?replication=1`", "has 1"]).await;
}

#[tokio::test]
async fn a_compacted_topic_is_refused() {
    let broker = topic("compacted", "cleanup.policy=compact").await;
    refusal_with(&*broker, &["cleanup.policy", "`delete`"]).await;
    set("compacted", "cleanup.policy=delete").await;
    until_open(&*broker).await;
    // A node in use notices it by its next record.
    set("compacted", "cleanup.policy=[compact,delete]").await;
    let stored = broker.append(&[append(0, 10)], Instant::now() + Duration::from_secs(4)).await;
    assert!(matches!(stored[..], [Err(AppendError::NotStored(_))]), "{stored:?}");
    refusal_with(&*broker, &["cleanup.policy"]).await;
}

#[tokio::test]
async fn batches_fit_into_what_the_topic_takes() {
    let broker = topic("small", "max.message.bytes=50000").await;
    until_open(&*broker).await;
    let soon = || Instant::now() + PATIENCE;
    let many: Vec<_> = (0..100).map(|_| append(0, 5000)).collect();
    let stored = broker.append(&many, soon()).await;
    assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    let stored = broker.append(&[append(0, 60_000), append(0, 5000)], soon()).await;
    assert!(matches!(stored[..], [Err(AppendError::Rejected(_)), Ok(_)]), "{stored:?}");
    // Changed while it is in use: what fits is stored when it is sent again, in smaller batches.
    set("small", "max.message.bytes=20000").await;
    let begin = Instant::now();
    while !broker.append(&many, soon()).await.iter().all(Result::is_ok) {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn appends_at_a_stalled_kafka_end_with_their_producer_and_publishing_comes_back() {
    let kafka = Kafka::new(1).expect("a Kafka");
    kafka.start().await.expect("Kafka starts");
    let broker = broker(&kafka.url(0));
    until_open(&*broker).await;
    let under_way = |within: Duration| {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move { broker.append(&[append(0, 10)], Instant::now() + within).await })
    };
    for replaced in [false, true] {
        let begin = Instant::now();
        loop {
            until_stored(&*broker).await;
            kafka.freeze().await.expect("Kafka runs");
            // Without a confirmation in so long a producer is given up; librdkafka itself waits for 3 s.
            let (short, long) = (under_way(Duration::from_secs(2)), under_way(Duration::from_secs(20)));
            // Until both are sent: all tasks share this thread.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            if replaced {
                broker.redial().await;
            }
            let (short, long) = (short.await.expect("no panic"), long.await.expect("no panic"));
            kafka.thaw().await.expect("Kafka runs");
            // librdkafka may report trouble of the earlier stall at any time: nothing is sent before Kafka was asked again.
            if matches!(
                (&short[..], &long[..]),
                ([Err(AppendError::NotStored(_))], _) | (_, [Err(AppendError::NotStored(_))])
            ) {
                assert!(begin.elapsed() < PATIENCE, "{short:?} {long:?}");
                continue;
            }
            for outcome in [&long].into_iter().chain(replaced.then_some(&short)) {
                let given_up = |why: &str| why.contains("Purge");
                assert!(matches!(&outcome[..], [Err(AppendError::Unknown(why))] if given_up(why)), "{outcome:?}");
            }
            break;
        }
    }
    until_stored(&*broker).await;
}

/// Appends again and again until a record is stored at once: a producer that confirms late is given up.
async fn until_stored(broker: &dyn Broker) {
    let begin = Instant::now();
    loop {
        let sent = Instant::now();
        let stored = broker.append(&[append(0, 10)], sent + Duration::from_secs(4)).await;
        if stored.iter().all(Result::is_ok) && sent.elapsed() < Duration::from_secs(1) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{stored:?}");
    }
}
