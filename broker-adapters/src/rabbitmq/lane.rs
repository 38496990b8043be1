//! One stream as a consumer sees it: deliveries that flow as long as they are acknowledged.
//!
//! A lane holds at most its prefetch of records that were not taken yet. It has a channel of its own, so that
//! acknowledging its last record acknowledges all.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::FutureExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, Consumer};

use super::link::Link;
use super::words::{failed, failed_on};
use crate::broker::{Entry, LinkError};
use crate::stored::envelope;
use crate::stored::position::{Epoch, Offset, Partition};
use crate::stored::record::MessageId;

/// Records that RabbitMQ sends ahead. Few, so that a link that can only receive falls silent soon.
const PREFETCH: u16 = 64;
/// After how many records they are acknowledged.
const ACKNOWLEDGE: u16 = PREFETCH / 2;

/// Where a lane begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// With what comes after the consumer.
    Next,
    /// With this record, or the first one after it.
    At(Offset),
}

/// A consumer of one stream.
pub(super) struct Lane {
    pub(super) partition: Partition,
    epoch: Epoch,
    channel: Channel,
    consumer: Consumer,
    /// The last offset that was taken.
    last: Option<Offset>,
    /// Taken and not acknowledged: how many, and the tag of the last one.
    taken: (u16, u64),
}

impl Lane {
    pub(super) async fn open(link: &Link, stream: &str, partition: Partition, begin: Begin) -> Result<Self, LinkError> {
        let channel = link.channel().await?;
        let failed = |error: lapin::Error| failed_on(stream, &error);
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(failed)?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(stream.into(), "".into(), options, begin.arguments()).await;
        let consumer = consumer.map_err(failed)?;
        Ok(Self { partition, epoch: link.epoch, channel, consumer, last: None, taken: (0, 0) })
    }

    /// The next records, at least one and about as many as are acknowledged at a time.
    ///
    /// Loses nothing when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        let (count, tag) = self.taken;
        if count >= ACKNOWLEDGE {
            // Never twice, even if the future is dropped: that would close the channel.
            self.taken.0 = 0;
            let acknowledged = self.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await;
            acknowledged.map_err(|error| failed(&error))?;
        }
        let mut entries = Vec::new();
        let mut delivery = self.consumer.next().await;
        loop {
            let taken = delivery.ok_or_else(|| LinkError::new("RabbitMQ ended a consumer: its stream was deleted"))?;
            self.take(taken.map_err(|error| failed(&error))?, &mut entries)?;
            let more = if self.taken.0 < ACKNOWLEDGE { self.consumer.next().now_or_never() } else { None };
            let Some(more) = more else { return Ok(entries) };
            delivery = more;
        }
    }

    fn take(&mut self, delivery: Delivery, entries: &mut Vec<Entry>) -> Result<(), LinkError> {
        self.taken = (self.taken.0 + 1, delivery.delivery_tag);
        let offset =
            offset(&delivery).ok_or_else(|| LinkError::protocol("RabbitMQ gave a record without its offset"))?;
        let Self { partition, epoch, .. } = *self;
        let entry =
            |offset: Offset, bytes: Bytes| Entry { partition, epoch: Some(epoch), offset, previous: None, bytes };
        // Each file of a stream begins with a record of RabbitMQ's own, which is not delivered. It stands for
        // itself as a heartbeat. Files that were trimmed away in between leave a wider gap: at least two such
        // records and one of ours.
        if self.last.is_some_and(|last| offset == last.next().next()) {
            let place = Offset(offset.0 - 1);
            entries.push(entry(place, envelope::heartbeat(MessageId(0), 0, None)));
        }
        self.last = Some(offset);
        entries.push(entry(offset, Bytes::from(delivery.data)));
        Ok(())
    }
}

impl Begin {
    fn arguments(self) -> FieldTable {
        let value = match self {
            Self::Next => AMQPValue::LongString(LongString::from("next")),
            // RabbitMQ counts from 0, and knows signed numbers only.
            Self::At(Offset(offset)) => {
                AMQPValue::LongLongInt(i64::try_from(offset.saturating_sub(1)).unwrap_or(i64::MAX))
            }
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), value);
        arguments
    }
}

/// From the first record that is kept.
pub(super) fn first_offset() -> FieldTable {
    Begin::At(Offset(0)).arguments()
}

/// A record's place: RabbitMQ's offset and one.
fn offset(delivery: &Delivery) -> Option<Offset> {
    let headers = delivery.properties.headers().as_ref()?;
    let AMQPValue::LongLongInt(offset) = headers.inner().get("x-stream-offset")? else { return None };
    Some(Offset(u64::try_from(*offset).ok()?).next())
}
