//! The content of a message arrives as it was sent. A message beyond the limits is refused in words.

use std::sync::Arc;

use broker_adapters::{ENVELOPE_OVERHEAD, Extension, Extensions, MessageId, NewRecord, Payload, PublishError, Resume};
use bytes::Bytes;
use law::History;
use tokio::time::Instant;

use crate::fixture::Fixture;
use crate::node::{DEADLINE, Follower, node, publish, say};

pub(crate) async fn every_channel_name_arrives_unchanged(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let mut names: Vec<String> = [
        "a",
        " ",
        "a b",
        "*",
        "{}",
        "{1}",
        "a:b/c.d",
        "\0",
        "\r\n",
        "\x1b[0m",
        "日本語",
        "👩‍👩‍👧",
        "ü\u{301}",
        "'\"\\$(x)",
        "%00%n",
    ]
    .map(String::from)
    .into();
    names.push("x".repeat(65_535));
    for name in &names {
        say(&log, name, "hello").await;
    }
    follower.until("all came", |seen| seen.records.len() >= names.len()).await;
    let mut seen: Vec<_> = follower.seen().records.iter().map(|record| record.channel().to_owned()).collect();
    seen.sort();
    names.sort();
    assert!(seen == names, "other names came than were sent");
}

pub(crate) async fn a_channel_name_over_65535_bytes_is_refused(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let refused = publish(&log, &"x".repeat(65_536), "never").await;
    assert!(matches!(refused, Err(PublishError::Rejected(_))), "{refused:?}");
    say(&log, "room", "after").await;
    follower.until_has("after").await;
    assert_eq!(follower.seen().texts(), ["after"]);
}

pub(crate) async fn every_kind_of_payload_arrives_unchanged(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let payloads = [
        Payload::Json(Bytes::from_static(br#"{"a":[1,"\u00fc",null]}"#)),
        Payload::Json(Bytes::new()),
        Payload::Text(Bytes::from("line\r\nline\0日本")),
        Payload::Text(Bytes::new()),
        Payload::Binary(every_byte.into()),
        Payload::Binary(Bytes::new()),
    ];
    for payload in payloads.clone() {
        let record = NewRecord::new(MessageId::random(), "room".into(), payload);
        log.publish(record, Instant::now() + DEADLINE).await.expect("it is stored");
    }
    follower.until("all came", |seen| seen.records.len() == payloads.len()).await;
    assert!(follower.seen().records.iter().map(|record| record.payload.clone()).eq(payloads));
}

pub(crate) async fn extensions_arrive_unchanged_and_count_against_the_largest_record(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let texts = ["user", "client", "", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"];
    let add = |list: Extensions, (tag, text)| list.with(tag, text).expect("short enough");
    let extensions = Extension::ALL.into_iter().zip(texts).fold(Extensions::default(), add);
    let most = log.capabilities().max_bytes - ENVELOPE_OVERHEAD - "room".len() - 2 - extensions.size();
    let record = |size: usize| {
        let payload = Payload::Binary(vec![b'x'; size].into());
        NewRecord { extensions: extensions.clone(), ..NewRecord::new(MessageId::random(), "room".into(), payload) }
    };
    let deadline = || Instant::now() + 5 * DEADLINE;
    let refused = log.publish(record(most + 1), deadline()).await;
    assert!(matches!(refused, Err(PublishError::Rejected(_))), "{refused:?}");
    for size in [0, most] {
        log.publish(record(size), deadline()).await.expect("it is stored");
    }
    follower.until("both came", |seen| seen.records.len() == 2).await;
    let seen = follower.seen().records;
    assert!(seen.iter().all(|record| record.extensions == extensions) && seen[1].payload.bytes().len() == most);
    assert!(Extension::ALL.into_iter().zip(texts).all(|(tag, text)| seen[0].extensions.get(tag) == Some(text)));
}

pub(crate) async fn the_largest_payload_arrives_and_one_byte_more_is_refused(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let most = log.capabilities().max_bytes - ENVELOPE_OVERHEAD - "room".len();
    let record = |size: usize| {
        let payload = Payload::Binary(vec![b'x'; size].into());
        NewRecord::new(MessageId::random(), "room".into(), payload)
    };
    let deadline = || Instant::now() + 5 * DEADLINE;
    let refused = log.publish(record(most + 1), deadline()).await;
    assert!(matches!(refused, Err(PublishError::Rejected(_))), "{refused:?}");
    log.publish(record(most), deadline()).await.expect("it is stored");
    say(&log, "room", "after").await;
    follower.until_has("after").await;
    let sizes: Vec<_> = follower.seen().records.iter().map(|record| record.payload.bytes().len()).collect();
    assert_eq!((sizes, follower.seen().breaks.len()), (vec![most, "after".len()], 0));
}

pub(crate) async fn records_that_the_broker_compresses_are_read(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    // Long enough to be worth compressing.
    let long = "compressed ".repeat(500);
    let codecs = ["gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        broker.compress(codec).await;
        for n in 0..20 {
            say(&log, "room", &format!("{codec} {n} {long}")).await;
        }
        follower.until("all came", |seen| seen.texts().last().is_some_and(|last| last.starts_with(codec))).await;
    }
    follower.until("all came", |seen| seen.records.len() == 20 * codecs.len()).await;
    // Read from the broker's disk, by a node that is new.
    let fresh = Follower::of(log.tail_all(Resume::Recent(1000)), "a new node", &History::default());
    fresh.until("all came", |seen| seen.texts() == follower.seen().texts()).await;
    assert!(fresh.seen().breaks.is_empty() && follower.seen().downs.is_empty());
}
