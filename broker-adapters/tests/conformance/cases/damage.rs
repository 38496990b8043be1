//! The log itself is damaged. Each follower gets a break, and new messages flow.

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Append, Break, BreakReason, Log, Partition, Position, PublishError, Resume, Timing};
use bytes::Bytes;
use law::{History, Outcome};
use tokio::time::Instant;

use super::outage::BACK;
use crate::fixture::Fixture;
use crate::load::{Load, flowing, publish, verdict};
use crate::node::{
    BUDGET, DEADLINE, Follower, SETTINGS, Seen, channel_in, cluster, log, log_without_heartbeats, node, read_back, say,
    text,
};

/// How often a log is wiped, and messages after each time.
const WIPES: usize = 5;
const PUBLISHES: u16 = 40;
/// How often a partition may come up after its log was made anew.
const AGAIN: usize = 4;

fn announced(seen: &Seen, reason: BreakReason) -> usize {
    let mut partitions: Vec<_> =
        seen.breaks.iter().filter(|lost| lost.reason == reason).map(|lost| lost.at.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    partitions.len()
}

pub(crate) async fn a_wiped_log_is_announced_and_goes_on(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    flowing(&followers).await;
    let begin = Instant::now();
    broker.wipe().await;
    for follower in &followers {
        follower.until("every partition was announced", |seen| announced(seen, BreakReason::Reset) == 4).await;
    }
    assert!(begin.elapsed() < BACK, "announced only after {:?}", begin.elapsed());
    flowing(&followers).await;
    load.stop().await;
    verdict("wiped", &history, &logs[0], &followers).await.assert_lawful();
}

pub(crate) async fn a_log_wiped_again_and_again_shows_what_is_acknowledged_afterwards(broker: Arc<dyn Fixture>) {
    // A node's heartbeat. Frequent ones would show an adapter that its connection for appends leads to the old log.
    let timing = Timing::new(Duration::from_secs(2));
    let log = Arc::new(Log::start(broker.connect(0, SETTINGS), SETTINGS.partitions, timing, BUDGET));
    let follower = Follower::of(log.tail_all(Resume::Head), "node 0", &History::default());
    follower.until("every partition is up", Seen::all_up).await;
    for wipe in 0..WIPES {
        let before = follower.seen().breaks.len();
        broker.wipe().await;
        let resets = |seen: &Seen| {
            announced(&Seen { breaks: seen.breaks[before..].to_vec(), ..Seen::default() }, BreakReason::Reset)
        };
        follower.until("every partition was announced", |seen| resets(seen) == 4).await;
        let ups = follower.seen().ups;
        for number in 0..PUBLISHES {
            let text = format!("{wipe}-{number}");
            say(&log, &channel_in(&log, number % SETTINGS.partitions), &text).await;
            follower.until_has(&text).await;
        }
        let (seen, partitions) = (follower.seen(), usize::from(SETTINGS.partitions));
        let (breaks, ups) = (seen.breaks.len() - before, seen.ups - ups);
        println!("{wipe}: {breaks} breaks, {ups} ups");
        assert_eq!(breaks, partitions, "nothing is lost but the old log");
        // One is the new log's. Each acknowledgement of another log than the one that is read would bring another one.
        assert!(ups <= AGAIN * partitions, "the partitions came up {ups} times");
    }
}

pub(crate) async fn a_wiped_log_is_announced_by_the_next_publish(broker: Arc<dyn Fixture>) {
    let log = log_without_heartbeats(&*broker);
    let follower = Follower::of(log.tail_all(Resume::Head), "node 0", &History::default());
    follower.until("every partition is up", Seen::all_up).await;
    broker.wipe().await;
    let begin = Instant::now();
    say(&log, "room", "the first in the new log").await;
    follower
        .until("every partition was announced", |seen| announced(seen, BreakReason::Reset) == 4 && seen.all_up())
        .await;
    assert!(begin.elapsed() < BACK, "announced only after {:?}", begin.elapsed());
    say(&log, "room", "new").await;
    follower.until_has("new").await;
}

pub(crate) async fn a_log_wiped_and_regrown_behind_a_cut_wire_is_announced(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs[1..]);
    flowing(&followers).await;
    broker.cut(0);
    followers[0].until_down(0).await;
    broker.wipe().await;
    regrown(&followers).await;
    broker.mend(0);
    followers[0].until("every partition was announced", |seen| announced(seen, BreakReason::Reset) == 4).await;
    flowing(&followers).await;
    load.stop().await;
    verdict("wiped and regrown", &history, &logs[0], &followers).await.assert_lawful();
}

/// Waits until the log is another one and longer than what node 0 has seen of the old one, so that there is a
/// record where it left off, but not the one it knows.
async fn regrown(followers: &[Follower]) {
    let before: Vec<_> = followers[0].seen().at.into_iter().flatten().collect();
    let all = |seen: &Seen| announced(seen, BreakReason::Reset) == 4;
    followers[1].until("every partition was announced", all).await;
    let regrown = |seen: &Seen| {
        let now = |then: &Position| seen.at[usize::from(then.partition.0)];
        before.iter().all(|then| now(then).is_some_and(|now| now.offset.0 > then.offset.0 + 5))
    };
    followers[1].until("the log has grown past its old end", regrown).await;
}

pub(crate) async fn a_log_set_back_to_an_older_state_is_announced(broker: Arc<dyn Fixture>) {
    set_back(broker, false).await;
}

pub(crate) async fn a_log_set_back_and_regrown_behind_a_cut_wire_is_announced(broker: Arc<dyn Fixture>) {
    set_back(broker, true).await;
}

async fn set_back(broker: Arc<dyn Fixture>, cut: bool) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs[1..]);
    flowing(&followers).await;
    broker.snapshot().await;
    let then: Vec<_> = followers[0].seen().at.into_iter().flatten().collect();
    let later = |seen: &Seen| seen.at.iter().flatten().zip(&then).all(|(now, then)| now.offset.0 > then.offset.0 + 5);
    for follower in &followers {
        follower.until("every partition has gone on", later).await;
    }
    if cut {
        broker.cut(0);
    }
    broker.kill().await;
    broker.roll_back().await;
    broker.start().await;
    if cut {
        regrown(&followers).await;
        broker.mend(0);
    }
    for follower in &followers {
        follower.until("every partition was announced", |seen| announced(seen, BreakReason::Reset) == 4).await;
    }
    flowing(&followers).await;
    load.stop().await;
    verdict("set back", &history, &logs[0], &followers).await.assert_lawful();
}

pub(crate) async fn a_deleted_part_of_a_log_is_announced(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    for partition in (0..SETTINGS.partitions).map(Partition) {
        flowing(&followers).await;
        broker.delete_part(partition, 0).await;
        flowing(&followers).await;
        broker.delete_part(partition, 1).await;
    }
    for follower in &followers {
        follower.until("every partition was announced", |seen| announced(seen, BreakReason::Reset) == 4).await;
    }
    load.stop().await;
    verdict("parts deleted", &history, &logs[0], &followers).await.assert_lawful();
}

pub(crate) async fn a_damaged_partition_is_announced_and_goes_on(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs);
    let partition = Partition(1);
    for way in 0.. {
        flowing(&followers).await;
        let resets = |seen: &Seen| {
            let reset = |lost: &&Break| lost.reason == BreakReason::Reset && lost.at.partition == partition;
            seen.breaks.iter().filter(reset).count()
        };
        let before: Vec<_> = followers.iter().map(|follower| resets(&follower.seen())).collect();
        let begin = Instant::now();
        let Some(done) = broker.spoil(partition, way).await else { break };
        for (follower, before) in followers.iter().zip(before) {
            follower.until(&format!("`{done}` was announced"), |seen| resets(seen) > before && seen.all_up()).await;
        }
        assert!(begin.elapsed() < BACK, "`{done}` was announced only after {:?}", begin.elapsed());
        let channel = channel_in(&logs[0], partition.0);
        let outcome = publish(&history, &logs[0], &channel, &done, DEADLINE).await;
        assert_eq!(outcome, Outcome::Acknowledged, "after `{done}`");
    }
    load.stop().await;
    verdict("spoilt", &history, &logs[0], &followers).await.assert_lawful();
}

pub(crate) async fn a_log_trimmed_behind_a_cut_wire_is_announced(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    let load = Load::start(&history, &logs[1..]);
    flowing(&followers).await;
    broker.cut(0);
    followers[0].until_down(0).await;
    flowing(&followers[1..]).await;
    load.stop().await;
    let last = followers[1].seen().records.last().map(|record| record.position());
    broker.trim(1).await;
    broker.mend(0);
    followers[0].until_up_within(BACK).await;
    let trimmed = |seen: &Seen| seen.breaks.iter().any(|lost| lost.reason == BreakReason::Trimmed);
    followers[0].until("it was announced", trimmed).await;
    assert!(last.is_some());
    let report = verdict("trimmed", &history, &logs[0], &followers).await;
    report.assert_lawful();
    assert!(followers[1].seen().breaks.is_empty(), "a node that had read them has lost nothing");
}

pub(crate) async fn a_position_that_was_trimmed_is_announced(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    for n in 0..100 {
        say(&log, "room", &n.to_string()).await;
    }
    follower.until_has("99").await;
    let old = follower.seen().records[10].position();
    broker.trim(5).await;
    let late = Follower::from(&log, &[(old.partition, Resume::After(old))]);
    say(&log, "room", "new").await;
    late.until_has("new").await;
    let seen = late.seen();
    assert_eq!((seen.breaks.len(), announced(&seen, BreakReason::Trimmed)), (1, 1), "{:?}", seen.breaks);
    assert_eq!(seen.breaks[0].after, old);
    let texts: Vec<u32> = seen.texts().iter().filter_map(|text| text.parse().ok()).collect();
    assert!(texts.windows(2).all(|two| two[0] + 1 == two[1]) && texts.first().is_none_or(|first| *first > 11));
}

pub(crate) async fn a_position_of_a_wiped_log_is_announced(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    say(&log, "room", "old").await;
    follower.until_has("old").await;
    let old = follower.seen().records[0].position();
    broker.wipe().await;
    follower.until("it was announced", |seen| announced(seen, BreakReason::Reset) == 4 && seen.all_up()).await;
    let late = Follower::from(&log, &[(old.partition, Resume::After(old))]);
    late.until("it is up", |seen| seen.up.contains(&old.partition.0)).await;
    say(&log, "room", "new").await;
    late.until_has("new").await;
    assert_eq!((late.seen().texts(), announced(&late.seen(), BreakReason::Reset)), (vec!["new".to_owned()], 1));
    assert!(read_back(&log, old, 10).await.expect("readable").is_empty(), "nothing of the new log passes for the old");
}

pub(crate) async fn a_record_that_cannot_be_read_is_announced_and_skipped(broker: Arc<dyn Fixture>) {
    let (logs, followers) = cluster(&*broker, &History::default()).await;
    let channel = channel_in(&logs[0], 1);
    say(&logs[0], &channel, "before").await;
    let garbage = [&b"garbage"[..], b"", b"F\x02from the future", &[0xff; 100]];
    let writer = broker.connect(1, SETTINGS);
    for bytes in garbage {
        let append = Append { partition: Partition(1), bytes: Bytes::from_static(bytes) };
        let deadline = Instant::now() + Duration::from_secs(5);
        let stored = writer.append(&[append], deadline).await;
        assert!(matches!(stored[..], [Ok(_)]), "{stored:?}");
    }
    say(&logs[0], &channel, "after").await;
    for follower in &followers {
        follower.until_has("after").await;
        let seen = follower.seen();
        assert_eq!(seen.texts(), ["before", "after"]);
        assert!(seen.breaks.iter().all(|lost| lost.reason == BreakReason::Unreadable));
        assert_eq!((seen.breaks.len(), announced(&seen, BreakReason::Unreadable)), (garbage.len(), 1));
    }
}

pub(crate) async fn an_entry_of_another_program_is_announced_and_skipped(broker: Arc<dyn Fixture>) {
    let (logs, followers) = cluster(&*broker, &History::default()).await;
    let channel = channel_in(&logs[0], 1);
    say(&logs[0], &channel, "before").await;
    for round in 0..3 {
        broker.foreign_entry(Partition(1)).await;
        say(&logs[0], &channel, &format!("after {round}")).await;
    }
    for follower in &followers {
        follower.until_has("after 2").await;
        assert_eq!(follower.seen().texts(), ["before", "after 0", "after 1", "after 2"]);
        assert!(announced(&follower.seen(), BreakReason::Unreadable) == 1);
    }
}

pub(crate) async fn a_full_broker_takes_nothing_and_then_goes_on(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    say(&log, "room", "before").await;
    follower.until_has("before").await;
    broker.full(true).await;
    let refused = log.publish(text("room", "too much"), Instant::now() + Duration::from_millis(500)).await;
    assert_eq!(refused, Err(PublishError::Unavailable));
    // A fresh node comes no further than to say so.
    let other = self::log(&*broker, 1);
    let refused = other.publish(text("room", "too much"), Instant::now() + Duration::from_millis(500)).await;
    assert_eq!(refused, Err(PublishError::Unavailable));
    broker.full(false).await;
    say(&log, "room", "after").await;
    follower.until_has("after").await;
    assert_eq!((follower.seen().texts(), follower.seen().breaks.len()), (vec!["before".into(), "after".to_owned()], 0));
}

pub(crate) async fn a_broker_that_fills_up_gives_up_its_oldest_records(broker: Arc<dyn Fixture>) {
    let (log, follower) = node(&*broker, 0, &History::default()).await;
    broker.room(8 << 20).await;
    let large = "x".repeat(16 << 10);
    for n in 0..2000 {
        // Four times what there is room for.
        say(&log, &format!("room-{}", n % 8), &format!("{n} {large}")).await;
    }
    follower.until("all came", |seen| seen.records.len() == 2000).await;
    let seen = follower.seen();
    assert_eq!((seen.records.len(), seen.breaks.len()), (2000, 0), "a node that keeps up loses nothing");
}
