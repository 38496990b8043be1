//! Reading: a client and a thread for each reader, which begins at offsets of its own; and back by ranges.
//!
//! Kafka counts from 0 and the log from 1: Kafka's offset is one less than the log's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset as Raw, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::link::Dialer;
use super::watch::Watch;
use super::words::{explain, failed};
use super::writer::Line;
use super::{append, ours};
use crate::broker::{Append, AppendError, Entry, LinkError, Opened, Reader, Standing, Start};
use crate::log::wall_clock;
use crate::stored::envelope;
use crate::stored::position::{Epoch, Offset, Partition};
use crate::stored::record::MessageId;

/// The longest that opening may take; a bit less than whoever opens waits, so that the reason is told.
const DIAL: Duration = Duration::from_millis(4500);
/// The longest wait for one answer about offsets.
const ANSWER: Duration = Duration::from_secs(1);
/// For handling what a client has told meanwhile.
const EVENTS: Duration = Duration::from_millis(1);
/// How long the thread waits for a record before it looks whether it is still wanted.
const IDLE: Duration = Duration::from_millis(100);
/// Records of one batch.
const COUNT: usize = 512;
/// Bytes that one batch should not exceed by far.
const BYTES: usize = 1 << 20;
/// Batches that wait for the reader's owner; when full, the thread waits, and then librdkafka stops reading.
const QUEUE: usize = 2;

type Batch = Result<Vec<Entry>, LinkError>;

/// Opens a reader, once this node's own records are stored.
pub(super) async fn open(
    dialer: &Arc<Dialer>,
    appends: &Line,
    from: &[(Partition, Start)],
) -> Result<Opened, LinkError> {
    if !dialer.known.writes.are_stored() {
        write_first(dialer, appends, from).await?;
    }
    let (dialer, from, runtime) = (Arc::clone(dialer), from.to_vec(), Handle::current());
    let (opened, opens) = oneshot::channel();
    let (sender, batches) = mpsc::channel(QUEUE);
    on_a_thread(move || {
        let link = match Link::open(dialer, &from, &runtime) {
            Ok((link, standings)) => opened.send(Ok(standings)).is_ok().then_some(link),
            Err(error) => {
                // Nobody listens any more.
                let _ = opened.send(Err(error));
                None
            }
        };
        if let Some(link) = link {
            link.follow(&sender);
        }
    })?;
    let standings = opens.await.map_err(|_| LinkError::new("the reader's thread has ended"))??;
    Ok(Opened { standings, reader: Box::new(KafkaReader { batches }) })
}

/// Appends a heartbeat to each partition. If that fails it says why, and examines the topic for a better reason.
async fn write_first(dialer: &Arc<Dialer>, appends: &Line, from: &[(Partition, Start)]) -> Result<(), LinkError> {
    let heartbeat = |&(partition, _): &(Partition, Start)| {
        let bytes = envelope::heartbeat(MessageId::random(), wall_clock(), None);
        Append { partition, bytes }
    };
    let batch: Vec<_> = from.iter().map(heartbeat).collect();
    let until = tokio::time::Instant::now() + DIAL;
    let failed = append::append(appends, &batch, until).await.into_iter().find_map(Result::err);
    let Some(failed) = failed else { return Ok(()) };
    let why = match failed {
        // Kafka did not answer, or it refused, or the topic was found to be no log.
        AppendError::NotStored(error) => return Err(dialer.named(error)),
        AppendError::Rejected(why) => return Err(dialer.named(why)),
        AppendError::Unknown(why) => why,
    };
    let (dialer, runtime) = (Arc::clone(dialer), Handle::current());
    dialer.known.examine_again();
    let examined = tokio::task::spawn_blocking(move || {
        examine(&dialer, &runtime, until.into_std())
            .and_then(|()| Err(dialer.named(format!("it stores nothing: {why}"))))
    });
    examined.await.unwrap_or_else(|error| Err(LinkError::new(error)))
}

/// Examines the topic, unless it was found good.
pub(super) fn examine(dialer: &Arc<Dialer>, runtime: &Handle, until: Instant) -> Result<(), LinkError> {
    Link::dial(Arc::clone(dialer), false, runtime, until).map(drop)
}

struct KafkaReader {
    batches: mpsc::Receiver<Batch>,
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self) -> Batch {
        self.batches.recv().await.unwrap_or_else(|| Err(LinkError::new("the reader has failed before")))
    }
}

/// Up to `most` records right before `before`.
pub(super) async fn read_back(
    dialer: &Arc<Dialer>,
    threads: &Arc<Semaphore>,
    partition: Partition,
    before: Offset,
    most: usize,
) -> Batch {
    let Ok(permit) = Arc::clone(threads).acquire_owned().await else { return Err(LinkError::new("closed")) };
    let (dialer, runtime) = (Arc::clone(dialer), Handle::current());
    let (done, answer) = oneshot::channel();
    on_a_thread(move || {
        let read = Link::read_back(dialer, partition, before, most, &runtime);
        drop(permit);
        // Nobody listens any more.
        let _ = done.send(read);
    })?;
    answer.await.map_err(|_| LinkError::new("the reader's thread has ended"))?
}

fn on_a_thread(work: impl FnOnce() + Send + 'static) -> Result<(), LinkError> {
    let thread = std::thread::Builder::new().name("kafka-reader".into());
    thread.spawn(work).map(drop).map_err(LinkError::new)
}

/// A client that reads some partitions. Lives on the thread of its reader.
pub(super) struct Link {
    pub(super) dialer: Arc<Dialer>,
    pub(super) consumer: BaseConsumer<Watch>,
    epoch: Epoch,
}

/// Where a partition begins and ends, in the log's offsets; `next` is behind the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: u64,
    pub(super) next: u64,
}

impl Extent {
    /// The offset from which to read.
    fn begin(self, start: Start) -> u64 {
        start.first(Offset(self.next)).0.clamp(self.first, self.next)
    }
}

impl Link {
    /// Connects, and makes sure that the topic holds this log.
    fn dial(dialer: Arc<Dialer>, ends: bool, runtime: &Handle, until: Instant) -> Result<Self, LinkError> {
        let link = Self::connect(dialer, ends, runtime, until)?;
        link.dialer.examined(link.epoch, || ours::examine(&link, runtime, until))?;
        Ok(link)
    }

    /// A client that knows the topic's epoch and reads nothing yet.
    pub(super) fn connect(
        dialer: Arc<Dialer>,
        ends: bool,
        runtime: &Handle,
        until: Instant,
    ) -> Result<Self, LinkError> {
        let consumer = dialer.consumer(ends)?;
        // Nothing is assigned yet: there are only events.
        let poll = || drop(consumer.poll(EVENTS));
        dialer.agree(consumer.client(), consumer.context(), poll, runtime, until)?;
        let told = Instant::now() + ANSWER;
        let epoch = loop {
            match consumer.context().epoch() {
                Some(epoch) => break epoch,
                None if Instant::now() < told => poll(),
                None => {
                    return Err(dialer.named(LinkError::set_up("it gives topics no ids, as Kafka does from 2.8 on")));
                }
            }
        };
        Ok(Self { dialer, consumer, epoch })
    }

    fn open(
        dialer: Arc<Dialer>,
        from: &[(Partition, Start)],
        runtime: &Handle,
    ) -> Result<(Self, Vec<Standing>), LinkError> {
        let until = Instant::now() + DIAL;
        let link = Self::dial(dialer, false, runtime, until)?;
        let partitions: Vec<_> = from.iter().map(|&(partition, _)| partition).collect();
        let extents = link.extents(&partitions, until)?;
        let begins = from.iter().zip(&extents).map(|(&(partition, start), extent)| (partition, extent.begin(start)));
        link.assign(begins)?;
        let standing = |(&partition, extent): (&Partition, &Extent)| Standing {
            partition,
            epoch: link.epoch,
            next: Offset(extent.next),
        };
        let standings = partitions.iter().zip(&extents).map(standing).collect();
        Ok((link, standings))
    }

    /// Asks the leaders, all partitions in two questions. A new topic has none at first.
    pub(super) fn extents(&self, partitions: &[Partition], until: Instant) -> Result<Vec<Extent>, LinkError> {
        loop {
            let first = self.offsets(partitions, Raw::Beginning);
            let next = first.and_then(|first| Ok((first, self.offsets(partitions, Raw::End)?)));
            let why = match next {
                Ok((first, next)) => {
                    let extents = first.into_iter().zip(next).map(|(first, next)| Extent { first, next });
                    return Ok(extents.collect());
                }
                Err(why) => why,
            };
            drop(self.consumer.poll(EVENTS));
            if let Some(trouble) = self.consumer.context().take_trouble() {
                return Err(self.dialer.named(trouble));
            }
            if Instant::now() >= until {
                return Err(self.dialer.named(why));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn offsets(&self, partitions: &[Partition], which: Raw) -> Result<Vec<u64>, String> {
        let topic = &self.dialer.address.topic;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(topic, partition.0.into(), which).map_err(|error| explain(&error))?;
        }
        let answer = self.consumer.offsets_for_times(list, ANSWER).map_err(|error| explain(&error))?;
        let offset = |partition: &Partition| {
            let found = answer.find_partition(topic, partition.0.into());
            let found = found.ok_or_else(|| format!("nothing is said of partition {}", partition.0))?;
            found.error().map_err(|error| format!("partition {}: {}", partition.0, explain(&error)))?;
            match found.offset() {
                Raw::Offset(offset) => Ok(u64::try_from(offset).unwrap_or(0).saturating_add(1)),
                other => Err(format!("partition {} has {other:?} for an offset", partition.0)),
            }
        };
        partitions.iter().map(offset).collect()
    }

    /// Begins to read, once in a client's life: librdkafka ends the process when an assignment is replaced twice before the
    /// first one has stopped (its issue 5573).
    pub(super) fn assign(&self, begins: impl Iterator<Item = (Partition, u64)>) -> Result<(), LinkError> {
        let failed = |error: KafkaError| self.dialer.named(failed(&error));
        let mut list = TopicPartitionList::new();
        for (partition, begin) in begins {
            let begin = Raw::Offset(i64::try_from(begin.saturating_sub(1)).unwrap_or(i64::MAX));
            list.add_partition_offset(&self.dialer.address.topic, partition.0.into(), begin).map_err(failed)?;
        }
        self.consumer.assign(&list).map_err(failed)
    }

    /// Reads until it fails or nobody wants the records any more.
    fn follow(self, batches: &mpsc::Sender<Batch>) {
        while !batches.is_closed() {
            let batch = match self.dialer.known.writes.refusal() {
                Some(refusal) => Err(self.dialer.named(refusal)),
                None => self.batch(),
            };
            let failed = batch.is_err();
            if matches!(&batch, Ok(entries) if entries.is_empty()) {
                continue;
            }
            if batches.blocking_send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// What is there, after a short wait for the first record.
    fn batch(&self) -> Batch {
        let (mut entries, mut bytes, mut wait) = (Vec::new(), 0, IDLE);
        while entries.len() < COUNT && bytes < BYTES {
            match self.consumer.poll(std::mem::take(&mut wait)) {
                None => break,
                Some(Ok(message)) => {
                    if self.consumer.context().replaced() {
                        return Err(self.dialer.named("the topic was deleted and made anew"));
                    }
                    bytes += message.payload_len();
                    entries.push(self.entry(&message)?);
                }
                Some(Err(error)) => self.judge(&error)?,
            }
        }
        if entries.is_empty() && self.consumer.context().replaced() {
            return Err(self.dialer.named("the topic was deleted and made anew"));
        }
        Ok(entries)
    }

    fn entry(&self, message: &BorrowedMessage<'_>) -> Result<Entry, LinkError> {
        let (partition, offset) = (u16::try_from(message.partition()), u64::try_from(message.offset()));
        let (Ok(partition), Ok(offset)) = (partition, offset) else {
            return Err(self.dialer.named(LinkError::protocol("it gave a record without a place")));
        };
        Ok(Entry {
            partition: Partition(partition),
            epoch: Some(self.epoch),
            offset: Offset(offset.saturating_add(1)),
            previous: None,
            bytes: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        })
    }

    /// Whether the client is of no more use.
    pub(super) fn judge(&self, error: &KafkaError) -> Result<(), LinkError> {
        use RDKafkaErrorCode as Code;
        if let Some(trouble) = self.consumer.context().take_trouble() {
            return Err(self.dialer.named(trouble));
        }
        match error.rdkafka_error_code() {
            // One broker of several, for which librdkafka finds another; or the group, which is not used.
            Some(
                Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::Resolve
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::GroupAuthorizationFailed,
            ) => Ok(()),
            _ if matches!(error, KafkaError::PartitionEOF(_)) => Ok(()),
            Some(Code::TopicAuthorizationFailed) => Err(self.dialer.named(self.dialer.no_right("read"))),
            Some(Code::UnknownTopicOrPartition) => Err(self.dialer.named("the topic was deleted")),
            Some(Code::AutoOffsetReset) => Err(self.dialer.named("the position is gone from the topic")),
            _ => Err(self.dialer.named(failed(error))),
        }
    }

    fn read_back(dialer: Arc<Dialer>, partition: Partition, before: Offset, most: usize, runtime: &Handle) -> Batch {
        let until = Instant::now() + DIAL;
        let link = Self::dial(dialer, true, runtime, until)?;
        let extent = link.extents(&[partition], until)?.into_iter().next().unwrap_or(Extent { first: 1, next: 1 });
        let end = before.0.min(extent.next);
        let begin = end.saturating_sub(u64::try_from(most).unwrap_or(u64::MAX)).max(extent.first);
        if begin >= end {
            return Ok(Vec::new());
        }
        link.assign(std::iter::once((partition, begin)))?;
        let mut entries = Vec::new();
        loop {
            match link.consumer.poll(IDLE) {
                Some(Ok(message)) => {
                    let entry = link.entry(&message)?;
                    let last = entry.offset.0 + 1 >= end;
                    if entry.offset.0 < end {
                        entries.push(entry);
                    }
                    if last {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => link.judge(&error)?,
                None => {}
            }
            if link.consumer.context().replaced() {
                return Err(link.dialer.named("the topic was deleted and made anew"));
            }
            if Instant::now() >= until {
                return Err(link.dialer.named("the records did not come in time"));
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_at_what_is_kept() {
        for (first, next, start, begin) in [
            (1, 1, Start::Head, 1),
            (1, 8, Start::Head, 7),
            (8, 8, Start::Head, 8),
            (5, 8, Start::At(Offset(3)), 5),
            (5, 8, Start::At(Offset(6)), 6),
            (5, 8, Start::At(Offset(8)), 8),
            (5, 8, Start::At(Offset(20)), 8),
            (1, 1, Start::At(Offset(0)), 1),
            (1, 8, Start::Back(3), 5),
            (5, 8, Start::Back(100), 5),
        ] {
            assert_eq!(Extent { first, next }.begin(start), begin, "{first}..{next} {start:?}");
        }
    }
}
