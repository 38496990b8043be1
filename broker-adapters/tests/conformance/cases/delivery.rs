//! Messages arrive: once, in order, everywhere, from where one asks.

use std::collections::HashSet;
use std::sync::Arc;

use broker_adapters::{Offset, Partition, Position, Resume};
use law::History;
use tokio::time::Instant;

use crate::fixture::Fixture;
use crate::load::{Load, flowing, verdict};
use crate::node::{
    DEADLINE, Follower, SETTINGS, Seen, channel_in, cluster, log, node, publish, read_back, say, text, text_of,
};

pub(crate) async fn messages_arrive_once_and_in_one_order_on_every_node(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    for _ in 0..10 {
        flowing(&followers).await;
    }
    let numbers = load.stop().await;
    verdict("no fault", &history, &logs[0], &followers).await.assert_whole();
    assert_eq!((numbers.failed.load(std::sync::atomic::Ordering::Relaxed), followers[0].seen().breaks.len()), (0, 0));
}

pub(crate) async fn a_repeated_id_is_delivered_once(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let record = text("room", "once");
    for log in [&logs[0], &logs[1], &logs[0]] {
        log.publish(record.clone(), Instant::now() + DEADLINE).await.expect("it is stored");
    }
    say(&logs[1], "room", "after").await;
    for (follower, log) in followers.iter().zip(&logs) {
        follower.until_has("after").await;
        assert_eq!(follower.seen().texts(), ["once", "after"]);
        assert_eq!(log.counters().duplicates.value(), 2);
    }
}

pub(crate) async fn ten_thousand_channels_work_side_by_side(broker: Arc<dyn Fixture>) {
    let (logs, followers) = cluster(&*broker, &History::default()).await;
    let publishers = (0..100).map(|publisher| {
        let log = Arc::clone(&logs[publisher % 2]);
        tokio::spawn(async move {
            for n in 0..100 {
                let channel = format!("channel/{publisher}/{n}");
                say(&log, &channel, &format!("to {channel}")).await;
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.expect("all are stored");
    }
    for follower in &followers {
        follower.until("all came", |seen| seen.records.len() >= 10_000).await;
        let seen = follower.seen();
        let channels: HashSet<_> = seen.records.iter().map(|record| record.channel().to_owned()).collect();
        assert_eq!((channels.len(), seen.records.len()), (10_000, 10_000));
        assert!(seen.records.iter().all(|record| text_of(record) == format!("to {}", record.channel())));
    }
}

pub(crate) async fn a_late_tail_starts_at_the_end(broker: Arc<dyn Fixture>) {
    let log = log(&*broker, 0);
    for n in 0..50 {
        say(&log, &format!("room-{n}"), "early").await;
    }
    let (_, late) = node(&*broker, 1, &History::default()).await;
    for partition in 0..SETTINGS.partitions {
        say(&log, &channel_in(&log, partition), "late").await;
    }
    late.until("the new ones came", |seen| seen.records.len() >= usize::from(SETTINGS.partitions)).await;
    assert!(late.seen().texts().iter().all(|text| text == "late"), "{:?}", late.seen().texts());
    assert_eq!(late.seen().breaks, []);
}

pub(crate) async fn a_tail_resumes_right_after_a_position(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    for n in 0..10 {
        say(&log, "room", &n.to_string()).await;
    }
    follower.until_has("9").await;
    let positions: Vec<_> = follower.seen().records.iter().map(|record| record.position()).collect();
    let partition = log.partition_of("room");
    for (n, position) in positions.into_iter().enumerate() {
        let again = Follower::from(&log, &[(partition, Resume::After(position))]);
        if n < 9 {
            again.until_has("9").await;
        } else {
            again.until("it is up", |seen| seen.up.contains(&partition.0)).await;
        }
        let expected: Vec<_> = (n + 1..10).map(|n| n.to_string()).collect();
        assert_eq!((again.seen().texts(), again.seen().breaks.len()), (expected, 0), "after {n}");
    }
}

pub(crate) async fn a_tail_follows_only_its_partitions(broker: Arc<dyn Fixture>) {
    let log = log(&*broker, 0);
    let one = Follower::from(&log, &[(Partition(2), Resume::Head)]);
    one.until("it is up", |seen| seen.up.contains(&2)).await;
    for round in 0..3 {
        for partition in 0..SETTINGS.partitions {
            say(&log, &channel_in(&log, partition), &format!("{partition} {round}")).await;
        }
    }
    one.until_has("2 2").await;
    assert_eq!(one.seen().texts(), ["2 0", "2 1", "2 2"]);
}

pub(crate) async fn older_records_can_be_read_back(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    for n in 0..100 {
        say(&log, "room", &n.to_string()).await;
    }
    follower.until_has("99").await;
    let last = follower.seen().records[99].position();
    let older = async |before: Position, most| {
        let seen = read_back(&log, before, most).await.expect("readable");
        seen.into_iter().filter_map(|seen| seen.message).collect::<Vec<_>>()
    };
    let all = older(last, 1000).await;
    let texts: Vec<_> = all.iter().map(text_of).collect();
    assert_eq!(texts, (0..99).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(all[7].position(), follower.seen().records[7].position());
    let some = older(all[50].position(), 10).await;
    assert!(!some.is_empty() && some.len() <= 10 && some.iter().map(text_of).eq(texts[50 - some.len()..50].to_vec()));
    let before_all = Position { offset: Offset(1), ..last };
    assert!(older(before_all, 10).await.is_empty());
}

pub(crate) async fn records_are_read_from_an_offset_on_and_the_head_is_the_last(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    for n in 0..100 {
        say(&log, "room", &n.to_string()).await;
    }
    follower.until_has("99").await;
    let records = follower.seen().records;
    let (partition, first) = (records[0].partition, records[0].offset);
    let from = async |offset, most| log.read_from(partition, offset, most).await.expect("readable");
    let all = from(first, 100).await;
    let (offset, check) = (all[0].offset, all[0].check);
    assert_eq!(Position { partition, offset, check }, records[0].position());
    let dense = all.windows(2).all(|two| two[0].offset.next() == two[1].offset);
    let texts: Vec<_> = all.iter().filter_map(|seen| seen.message.as_ref()).map(text_of).collect();
    assert!(dense && all.len() <= 100 && texts.starts_with(&["0".to_owned(), "1".to_owned()]), "{texts:?}");
    let some = from(records[50].offset, 10).await;
    assert_eq!((some.len(), some[0].offset), (10, records[50].offset));
    let head = log.head(partition).await.expect("it answers");
    assert!(head >= records[99].offset, "{head:?} is before {:?}", records[99].offset);
}

pub(crate) async fn records_are_read_up_to_an_offset_and_the_beginning_of_the_log_is_proven(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    for n in 0..100 {
        say(&log, "room", &n.to_string()).await;
    }
    follower.until_has("99").await;
    let records = follower.seen().records;
    let (partition, last) = (records[0].partition, records[50].position());
    let up_to = async |offset, most| log.read_up_to(partition, offset, most).await.expect("readable");
    let some = up_to(last.offset, 10).await;
    let newest = some.seen.last().expect("the last is there");
    assert_eq!((some.seen.len(), newest.offset, newest.check, some.begins), (10, last.offset, last.check, false));
    let all = up_to(last.offset, 1000).await;
    assert!(all.begins && all.seen[0].offset == Offset(1), "{:?} begins {}", all.seen.first(), all.begins);
    assert!(all.seen.windows(2).all(|two| two[0].offset.next() == two[1].offset));
    broker.trim(5).await;
    let head = log.head(partition).await.expect("it answers");
    let kept = up_to(head, 1000).await;
    // Brokers trim by the piece: what they keep varies, and so does whether they have trimmed yet.
    assert!(kept.begins && kept.seen.len() as u64 + kept.seen[0].offset.0 == head.0 + 1, "{}", kept.seen.len());
    if kept.seen[0].offset > Offset(1) {
        let gone = up_to(Offset(kept.seen[0].offset.0 - 1), 10).await;
        assert!(gone.seen.is_empty() && !gone.begins, "{:?}", gone.seen.first());
    }
}

pub(crate) async fn recent_records_come_before_a_tail_is_up(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let channel = channel_in(&log, 1);
    for n in 0..50 {
        say(&log, &channel, &n.to_string()).await;
    }
    follower.until_has("49").await;
    let late = Follower::from(&log, &[(Partition(1), Resume::Recent(1_000_000))]);
    late.until("it is up", |seen| seen.up.contains(&1)).await;
    assert_eq!(late.seen().texts(), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    say(&log, &channel, "new").await;
    late.until_has("new").await;
    assert!(late.seen().breaks.is_empty());
    let last = Follower::from(&log, &[(Partition(1), Resume::Recent(1))]);
    last.until("it is up", |seen| seen.up.contains(&1)).await;
    assert!(last.seen().records.len() <= 1);
}

pub(crate) async fn an_acknowledgement_names_the_place_of_the_record(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let mut places = Vec::new();
    for n in 0..20 {
        places.push(say(&log, &format!("room-{}", n % 5), &n.to_string()).await);
    }
    follower.until("all came", |seen| seen.records.len() == 20).await;
    for (n, place) in places.into_iter().enumerate() {
        let seen = follower.seen();
        let record = seen.records.iter().find(|record| text_of(record) == n.to_string()).expect("it came");
        // Some brokers do not tell.
        assert_eq!(place.unwrap_or(record.position()), record.position());
    }
}

pub(crate) async fn a_silent_log_stays_alive(broker: Arc<dyn Fixture>) {
    let (_log, follower) = node(&*broker, 0, &History::default()).await;
    let begin: Vec<_> = follower.seen().at.into_iter().flatten().collect();
    let beats = |seen: &Seen| seen.at.iter().flatten().zip(&begin).all(|(now, then)| now.offset.0 >= then.offset.0 + 8);
    follower.until("eight heartbeats came", beats).await;
    assert!(follower.seen().records.is_empty() && follower.seen().breaks.is_empty());
}

pub(crate) async fn closing_a_log_ends_its_tails(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    let publishes: Vec<_> = (0..100)
        .map(|n| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { publish(&log, "room", &n.to_string()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    log.close(Instant::now() + DEADLINE).await;
    for publish in publishes {
        publish.await.expect("no panic").expect("what was under way is stored");
    }
    follower.until("the tail has ended", |seen| seen.ended).await;
}
