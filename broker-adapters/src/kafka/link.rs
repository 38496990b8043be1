//! A client that reads some partitions: what must hold before it is used, where it begins, and what its errors mean.
//!
//! Kafka counts from 0 and the log from 1: Kafka's offset is one less than the log's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset as Raw, TopicPartitionList};
use tokio::runtime::Handle;

use super::dial::Dialer;
use super::ours;
use super::watch::Watch;
use super::words::{explain, failed};
use crate::broker::{Entry, LinkError, Start};
use crate::copies::Copies;
use crate::stored::position::{Epoch, Offset, Partition};

/// The longest wait for one answer about offsets.
const ANSWER: Duration = Duration::from_secs(1);
/// The time to handle the client's events.
const EVENTS: Duration = Duration::from_millis(1);

/// A client that reads some partitions. Lives on the thread of its reader.
pub(super) struct Link {
    pub(super) dialer: Arc<Dialer>,
    pub(super) consumer: BaseConsumer<Watch>,
    pub(super) epoch: Epoch,
}

/// Where a partition begins and ends, in the log's offsets; `next` is behind the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: u64,
    pub(super) next: u64,
}

impl Extent {
    /// The offset from which to read.
    pub(super) fn begin(self, start: Start) -> u64 {
        start.first(Offset(self.next)).0.clamp(self.first, self.next)
    }
}

impl Link {
    /// Connects, and makes sure that the topic holds this log.
    pub(super) fn dial(dialer: Arc<Dialer>, ends: bool, runtime: &Handle, until: Instant) -> Result<Self, LinkError> {
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
        let latest = Instant::now() + ANSWER;
        let epoch = loop {
            match consumer.context().epoch() {
                Some(epoch) => break epoch,
                None if Instant::now() < latest => poll(),
                None => {
                    return Err(dialer.named(LinkError::set_up("it gives topics no ids, as Kafka does from 2.8 on")));
                }
            }
        };
        Ok(Self { dialer, consumer, epoch })
    }

    /// Asks the leaders with two requests for all partitions. A new topic has no leaders at first.
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

    pub(super) fn entry(&self, message: &BorrowedMessage<'_>, copies: &mut Copies) -> Result<Entry, LinkError> {
        let (partition, offset) = (u16::try_from(message.partition()), u64::try_from(message.offset()));
        let (Ok(partition), Ok(offset)) = (partition, offset) else {
            return Err(self.dialer.named(LinkError::protocol("it gave a record without a place")));
        };
        Ok(Entry {
            partition: Partition(partition),
            epoch: Some(self.epoch),
            offset: Offset(offset.saturating_add(1)),
            previous: None,
            bytes: copies.of(message.payload().unwrap_or_default()),
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
