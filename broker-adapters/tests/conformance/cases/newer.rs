//! Newer nodes write records that this release does not know: those that may be skipped are no loss, others are one each.

use std::sync::Arc;

use broker_adapters::{Append, BreakReason, Broker, Partition, Position, Resume};
use bytes::Bytes;
use law::History;
use tokio::time::Instant;

use crate::fixture::Fixture;
use crate::node::{DEADLINE, Follower, SETTINGS, Seen, channel_in, cluster, read_back, say, text_of};

const PARTITION: Partition = Partition(1);
/// The lowest flag: a reader that does not know the record may skip it.
const SKIPPABLE: u8 = 1;
/// Version, kind and flags of records that this release does not know.
const HEADS: [[u8; 3]; 3] = [[1, 200, 0], [2, 0, 0], [1, 2, 1 << 6]];

/// Stores a record as a newer release may write it: a head that all releases read, then what only newer ones read.
async fn store(writer: &dyn Broker, [version, kind, flags]: [u8; 3], id: u128) {
    let (id, time) = (id.to_be_bytes(), 1_u64.to_be_bytes());
    let bytes = [&[b'F', version, kind, flags], &id[..], &time[..], b"what only newer releases read"].concat();
    let append = Append { partition: PARTITION, bytes: Bytes::from(bytes) };
    let stored = writer.append(&[append], Instant::now() + DEADLINE).await;
    assert!(matches!(stored[..], [Ok(_)]), "{stored:?}");
}

/// Stores `0`, a record of each head with these flags behind its number, and `3`.
async fn store_between(broker: &dyn Fixture, logs: &[Arc<broker_adapters::Log>; 2], flags: u8) -> String {
    let (channel, writer) = (channel_in(&logs[0], PARTITION.0), broker.connect(1, SETTINGS));
    for (n, [version, kind, more]) in HEADS.into_iter().enumerate() {
        say(&logs[n % 2], &channel, &n.to_string()).await;
        store(&*writer, [version, kind, more | flags], n as u128).await;
    }
    say(&logs[0], &channel, "3").await;
    channel
}

/// Cuts a follower off and connects it again.
async fn reconnect(broker: &dyn Fixture, follower: &Follower) {
    broker.cut(0);
    follower.until_down(0).await;
    broker.mend(0);
    follower.until("every partition is up again", Seen::all_up).await;
}

pub(crate) async fn newer_records_that_may_be_skipped_are_no_loss(broker: Arc<dyn Fixture>) {
    let (logs, followers) = cluster(&*broker, &History::default()).await;
    let channel = store_between(&*broker, &logs, SKIPPABLE).await;
    for (follower, log) in followers.iter().zip(&logs) {
        follower.until_has("3").await;
        assert_eq!((follower.seen().texts(), follower.seen().breaks.len()), (words(0..4), 0));
        assert_eq!(log.counters().skipped.value(), 3);
    }
    let records = followers[0].seen().records;
    let (first, last) = (records[0].position(), records[3].position());
    let most = usize::try_from(last.offset.0 - first.offset.0).expect("few records") + 1;
    let all = logs[0].read_from(PARTITION, first.offset, most).await.expect("readable");
    assert_eq!((all.len(), all.iter().filter(|seen| seen.message.is_some()).count()), (most, 4));
    let older = read_back(&logs[0], last, most as u64).await.expect("readable");
    let older: Vec<_> = older.into_iter().filter_map(|seen| seen.message).collect();
    assert_eq!(older.iter().map(text_of).collect::<Vec<_>>(), words(0..3), "nothing is a hole");
    // Before, at and after each record that was skipped.
    for seen in &all {
        let position = Position { partition: PARTITION, offset: seen.offset, check: seen.check };
        let missed: Vec<_> = records.iter().filter(|record| record.offset > seen.offset).map(text_of).collect();
        let late = Follower::from(&logs[1], &[(PARTITION, Resume::After(position))]);
        late.until("it has what it missed", |seen| seen.texts() == missed && seen.up.contains(&PARTITION.0)).await;
        assert!(late.seen().breaks.is_empty(), "after {position}: {:?}", late.seen().breaks);
    }
    reconnect(&*broker, &followers[0]).await;
    say(&logs[1], &channel, "4").await;
    let fresh = Follower::of(logs[1].tail_all(Resume::Recent(1000)), "a new node", &History::default());
    for follower in followers.iter().chain([&fresh]) {
        follower.until_has("4").await;
        assert_eq!((follower.seen().texts(), follower.seen().breaks.len()), (words(0..5), 0));
    }
}

pub(crate) async fn a_newer_record_that_may_not_be_skipped_is_announced_once(broker: Arc<dyn Fixture>) {
    let (logs, followers) = cluster(&*broker, &History::default()).await;
    let channel = store_between(&*broker, &logs, 0).await;
    followers[0].until_has("3").await;
    reconnect(&*broker, &followers[0]).await;
    say(&logs[1], &channel, "4").await;
    for follower in &followers {
        follower.until_has("4").await;
        let seen = follower.seen();
        let reasons: Vec<_> = seen.breaks.iter().map(|lost| (lost.at.partition, lost.reason)).collect();
        assert_eq!((seen.texts(), reasons), (words(0..5), vec![(PARTITION, BreakReason::Unreadable); 3]));
    }
    assert_eq!(logs[0].counters().skipped.value(), 0);
}

fn words(numbers: std::ops::Range<u8>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}
