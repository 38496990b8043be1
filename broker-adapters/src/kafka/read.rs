//! Reading: a client and a thread for each reader, which begins at offsets of its own; and back by ranges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::append;
use super::dial::Dialer;
use super::line::Line;
use super::link::{Extent, Link};
use crate::broker::{Append, AppendError, Entry, LinkError, Opened, Reader, Standing, Start};
use crate::copies::Copies;
use crate::log::wall_clock;
use crate::stored::envelope;
use crate::stored::position::{Offset, Partition};
use crate::stored::record::MessageId;

/// The longest that opening may take. A bit less than the caller waits, so that the caller gets the reason.
const DIAL: Duration = Duration::from_millis(4500);
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
                // The caller may not wait any more.
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
        // The caller may not wait any more.
        let _ = done.send(read);
    })?;
    answer.await.map_err(|_| LinkError::new("the reader's thread has ended"))?
}

fn on_a_thread(work: impl FnOnce() + Send + 'static) -> Result<(), LinkError> {
    let thread = std::thread::Builder::new().name("kafka-reader".into());
    thread.spawn(work).map(drop).map_err(LinkError::new)
}

impl Link {
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

    /// Reads until it fails or the records are not wanted any more.
    fn follow(self, batches: &mpsc::Sender<Batch>) {
        let mut copies = Copies::default();
        while !batches.is_closed() {
            let batch = match self.dialer.known.writes.refusal() {
                Some(refusal) => Err(self.dialer.named(refusal)),
                None => self.batch(&mut copies),
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

    /// The records that are there, after a short wait for the first one.
    fn batch(&self, copies: &mut Copies) -> Batch {
        let (mut entries, mut bytes, mut wait) = (Vec::new(), 0, IDLE);
        while entries.len() < COUNT && bytes < BYTES {
            match self.consumer.poll(std::mem::take(&mut wait)) {
                None => break,
                Some(Ok(message)) => {
                    if self.consumer.context().replaced() {
                        return Err(self.dialer.named("the topic was deleted and made anew"));
                    }
                    bytes += message.payload_len();
                    entries.push(self.entry(&message, copies)?);
                }
                Some(Err(error)) => self.judge(&error)?,
            }
        }
        if entries.is_empty() && self.consumer.context().replaced() {
            return Err(self.dialer.named("the topic was deleted and made anew"));
        }
        Ok(entries)
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
        let (mut entries, mut copies) = (Vec::new(), Copies::default());
        loop {
            match link.consumer.poll(IDLE) {
                Some(Ok(message)) => {
                    let entry = link.entry(&message, &mut copies)?;
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
