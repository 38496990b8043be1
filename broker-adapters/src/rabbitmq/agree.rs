//! What all nodes of a log agree on: the first record of its settings stream, written by the first node.
//!
//! A stream has one order for all, so of several first records proposed at once all nodes see the same one
//! win. Each connection keeps a consumer on it, and so notices when it is deleted, which begins a new epoch.
//! The streams of the partitions are made before the settings: if one is missing later, it was deleted.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::time::timeout;

use super::lane::first_offset;
use super::ours;
use super::url::Address;
use super::words::{failed, failed_on};
use crate::broker::LinkError;
use crate::stored::position::Epoch;

/// How long a settings stream may show nothing before this node writes to it. A needless write does no harm.
const EMPTY: Duration = Duration::from_millis(100);
/// The part of a stream that one file holds: streams are trimmed by whole files.
const FILE_SHARE: u64 = 16;
/// The largest file of a stream.
const LARGEST_FILE: u64 = 64 << 20;

/// The settings of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Agreed {
    partitions: u16,
    epoch: Epoch,
}

/// Makes sure that the log is there and has this many partitions. Gives its epoch, and a consumer that ends
/// with it.
pub(super) async fn agree(
    connection: &Connection,
    address: &Address,
    partitions: u16,
) -> Result<(Epoch, Consumer), LinkError> {
    let settings = address.settings_stream();
    let streams: Vec<_> = (0..partitions).map(|partition| address.stream(partition)).collect();
    let mut is_free = address.adopt;
    if !is_free && !are_there(connection, std::slice::from_ref(&settings)).await? {
        ours::examine(connection, &streams).await?;
        is_free = true;
    }
    make(connection, &settings, None).await?;
    let channel = open(connection).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await.map_err(|error| failed(&error))?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(settings.as_str().into(), "".into(), options, first_offset()).await;
    let mut consumer = consumer.map_err(|error| failed_on(&settings, &error))?;
    let first = match timeout(EMPTY, consumer.next()).await {
        Ok(first) => first,
        Err(_) => {
            if !is_free {
                ours::examine(connection, &streams).await?;
            }
            try_join_all(streams.iter().map(|stream| make(connection, stream, Some(address.max_bytes)))).await?;
            let text = Agreed { partitions, epoch: Epoch(fastrand::u64(1..)) }.write();
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let stream = settings.as_str().into();
            let sent = channel.basic_publish("".into(), stream, options, text.as_bytes(), properties).await;
            sent.map_err(|error| failed(&error))?;
            consumer.next().await
        }
    };
    let first = first.ok_or_else(deleted)?.map_err(|error| failed(&error))?;
    acknowledge(&first).await?;
    let unreadable = || {
        LinkError::set_up(format!(
            "the stream `{settings}` does not begin with settings that this program can read, and nothing was written: \
             name another `?prefix=` in the broker's URL"
        ))
    };
    let agreed = Agreed::read(&first.data).ok_or_else(unreadable)?;
    if agreed.partitions != partitions {
        let there = agreed.partitions;
        return Err(LinkError::set_up(format!(
            "the log there has {there} partitions, this node is set to {partitions}: set this node to {there}, or \
             start a new log with another `?prefix=`"
        )));
    }
    if !are_there(connection, &streams).await? {
        let channel = open(connection).await?;
        let deleted = channel.queue_delete(settings.as_str().into(), QueueDeleteOptions::default()).await;
        deleted.map_err(|error| failed(&error))?;
        return Err(LinkError::new("a partition's stream was deleted: the log begins a new epoch"));
    }
    Ok((agreed.epoch, consumer))
}

/// Waits until the settings stream is deleted or the connection fails, and says which.
pub(super) async fn watch(mut settings: Consumer) -> LinkError {
    loop {
        match settings.next().await {
            // A proposal that came too late. Unacknowledged, it would let RabbitMQ close the channel after a while.
            Some(Ok(late)) => {
                if let Err(error) = acknowledge(&late).await {
                    return error;
                }
            }
            Some(Err(error)) => return failed(&error),
            None => return deleted(),
        }
    }
}

fn deleted() -> LinkError {
    LinkError::new("the log's settings were deleted")
}

async fn acknowledge(delivery: &Delivery) -> Result<(), LinkError> {
    delivery.ack(BasicAckOptions::default()).await.map(drop).map_err(|error| failed(&error))
}

pub(super) async fn open(connection: &Connection) -> Result<Channel, LinkError> {
    connection.create_channel().await.map_err(|error| failed(&error))
}

/// Makes a stream if it is missing. One that is there may have other settings.
async fn make(connection: &Connection, stream: &String, max_bytes: Option<u64>) -> Result<(), LinkError> {
    if are_there(connection, std::slice::from_ref(stream)).await? {
        return Ok(());
    }
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let number = |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    arguments.insert("x-queue-type".into(), text("stream"));
    arguments.insert("x-queue-leader-locator".into(), text("balanced"));
    if let Some(max_bytes) = max_bytes {
        arguments.insert("x-max-length-bytes".into(), number(max_bytes));
        let file = (max_bytes / FILE_SHARE).min(LARGEST_FILE);
        arguments.insert("x-stream-max-segment-size-bytes".into(), number(file));
    }
    let channel = open(connection).await?;
    let declared = channel.queue_declare(stream.as_str().into(), QueueDeclareOptions::durable(), arguments).await;
    declared.map(drop).map_err(|error| failed(&error))
}

async fn are_there(connection: &Connection, streams: &[String]) -> Result<bool, LinkError> {
    let channel = open(connection).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let ask = |stream: &String| channel.queue_declare(stream.as_str().into(), options, FieldTable::default());
    unless_missing(try_join_all(streams.iter().map(ask)).await).map(|there| there.is_some())
}

/// The answer, or `None` if RabbitMQ knows no such queue.
pub(super) fn unless_missing<T>(asked: lapin::Result<T>) -> Result<Option<T>, LinkError> {
    match asked {
        Ok(there) => Ok(Some(there)),
        // A stream whose node is away is `not found` too.
        Err(error) => {
            Some(failed(&error)).filter(|error| !error.why.starts_with("NOT_FOUND - no queue")).map_or(Ok(None), Err)
        }
    }
}

impl Agreed {
    fn write(self) -> String {
        let Self { partitions, epoch: Epoch(epoch) } = self;
        format!("fanfare log 1\npartitions {partitions}\nepoch {epoch:016x}\n")
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        if value("fanfare")? != "log 1" {
            return None;
        }
        let partitions = value("partitions")?.parse().ok()?;
        let epoch = u64::from_str_radix(value("epoch")?, 16).ok()?;
        Some(Self { partitions, epoch: Epoch(epoch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_as_they_were_written() {
        let agreed = Agreed { partitions: 16, epoch: Epoch(0xabc) };
        assert_eq!(agreed.write(), "fanfare log 1\npartitions 16\nepoch 0000000000000abc\n");
        assert_eq!(Agreed::read(agreed.write().as_bytes()), Some(agreed));
    }

    #[test]
    fn other_texts_are_no_settings() {
        for wrong in ["", "garbage", "fanfare log 2\n", "fanfare log 1\npartitions x\n", "fanfare log 1\nepoch 1\n"] {
            assert_eq!(Agreed::read(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Agreed::read(&[0xff]), None);
    }
}
