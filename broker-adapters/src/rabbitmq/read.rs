//! Reading: one consumer per partition, all on a connection of the reader's own; and back, from an offset.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::append;
use super::dial::Dialer;
use super::lane::{Begin, Lane};
use super::link::Link;
use super::url::Address;
use super::words;
use crate::broker::{Append, AppendError, Entry, LinkError, OPEN_TIMEOUT, Opened, Reader, Standing, Start};
use crate::line::{Dial, Line};
use crate::log::wall_clock;
use crate::stored::envelope;
use crate::stored::position::{Offset, Partition};
use crate::stored::record::MessageId;

/// About how many entries are given at a time.
const MOST: usize = 512;
/// How long RabbitMQ may take to find a record that there should be.
const FIND: Duration = Duration::from_secs(2);
/// How long a record that was just appended may take to come back, before another one is appended.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn open(
    dialer: &Arc<Dialer>,
    appends: &Line<Dialer>,
    from: &[(Partition, Start)],
) -> Result<Opened, LinkError> {
    let link = dialer.dial().await?;
    let named = |error: LinkError| dialer.named(error);
    let partitions: Vec<_> = from.iter().map(|&(partition, _)| partition).collect();
    let lasts = lasts(&link, &dialer.address, appends, &partitions).await.map_err(named)?;
    let standing =
        |(&partition, last): (&Partition, &Offset)| Standing { partition, epoch: link.epoch, next: last.next() };
    let standings = partitions.iter().zip(&lasts).map(standing).collect();
    let lanes = from.iter().zip(&lasts).map(|(&(partition, start), &last)| {
        let begin = Begin::At(start.first(last.next()));
        let stream = dialer.address.stream(partition.0);
        let link = &link;
        async move { Lane::open(link, &stream, partition, begin).await }
    });
    let lanes = try_join_all(lanes).await.map_err(named)?;
    Ok(Opened { standings, reader: Box::new(RabbitReader::new(dialer, link, lanes)?) })
}

/// The last record of each partition: a heartbeat that is appended for this purpose and read back.
///
/// AMQP has no other reliable way to learn where a stream ends.
async fn lasts(
    link: &Link,
    address: &Address,
    appends: &Line<Dialer>,
    partitions: &[Partition],
) -> Result<Vec<Offset>, LinkError> {
    let lanes = partitions.iter().map(|&partition| {
        let stream = address.stream(partition.0);
        async move { Lane::open(link, &stream, partition, Begin::Next).await }
    });
    let mut lanes = try_join_all(lanes).await?;
    try_join_all(lanes.iter_mut().map(|lane| last(lane, appends))).await
}

async fn last(lane: &mut Lane, appends: &Line<Dialer>) -> Result<Offset, LinkError> {
    loop {
        let mark =
            Append { partition: lane.partition, bytes: envelope::heartbeat(MessageId::random(), wall_clock(), None) };
        let appended = append::append(appends, std::slice::from_ref(&mark), Instant::now() + OPEN_TIMEOUT).await;
        match appended.into_iter().find_map(Result::err) {
            None => {}
            Some(AppendError::NotStored(error)) => return Err(error),
            Some(AppendError::Unknown(why) | AppendError::Rejected(why)) => return Err(words::said(why)),
        }
        // RabbitMQ confirms a consumer a moment before the consumer gets records.
        if let Ok(found) = timeout(AGAIN, find(lane, &mark.bytes)).await {
            return found;
        }
    }
}

async fn find(lane: &mut Lane, mark: &Bytes) -> Result<Offset, LinkError> {
    loop {
        if let Some(found) = lane.next().await?.iter().find(|entry| entry.bytes == mark) {
            return Ok(found.offset);
        }
    }
}

struct RabbitReader {
    /// The lanes, what ends when the log is another one, and what ends when this node may not write.
    lanes: SelectAll<BoxStream<'static, Result<Vec<Entry>, LinkError>>>,
    _link: Link,
}

impl RabbitReader {
    fn new(dialer: &Arc<Dialer>, link: Link, lanes: Vec<Lane>) -> Result<Self, LinkError> {
        let watch = link.take_watch().ok_or_else(|| LinkError::new("closed"))?;
        let ended = stream::once(watch.map(Err));
        let (refuses, dialer) = (dialer.writes.refuses(), Arc::clone(dialer));
        let refused = stream::once(refuses.map(move |error| Err(dialer.named(error))));
        let lanes = lanes.into_iter().map(|lane| {
            let next = |mut lane: Lane| async move { Some((lane.next().await, lane)) };
            stream::unfold(lane, next).boxed()
        });
        Ok(Self { lanes: lanes.chain([ended.boxed(), refused.boxed()]).collect(), _link: link })
    }
}

#[async_trait::async_trait]
impl Reader for RabbitReader {
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        let over = || LinkError::new("closed");
        let mut entries = self.lanes.next().await.ok_or_else(over)??;
        while entries.len() < MOST
            && let Some(more) = self.lanes.next().now_or_never()
        {
            // After an error nothing more would come: what was taken before it is read again.
            entries.extend(more.ok_or_else(over)??);
        }
        Ok(entries)
    }
}

pub(super) async fn read_back(
    line: &Line<Dialer>,
    partition: Partition,
    before: Offset,
    most: usize,
) -> Result<Vec<Entry>, LinkError> {
    let first = Offset(before.0.saturating_sub(most as u64).max(1));
    if first >= before {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let link = line.link(deadline).await?;
    let stream = line.dialer.address.stream(partition.0);
    let find = async {
        let mut lane = Lane::open(&link, &stream, partition, Begin::At(first)).await?;
        let mut entries: Vec<Entry> = Vec::new();
        while entries.last().is_none_or(|last| last.offset.next() < before) {
            entries.extend(lane.next().await?);
        }
        entries.retain(|entry| (first..before).contains(&entry.offset));
        Ok(entries)
    };
    let late = || LinkError::new(format!("stream `{stream}` showed no record up to {} in time", before.0 - 1));
    let found = timeout_at(deadline.min(Instant::now() + FIND), find).await.unwrap_or_else(|_| Err(late()));
    if found.is_err() {
        link.give_up();
    }
    found
}
