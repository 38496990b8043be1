//! librdkafka's idempotent producer without linger, and a consumer with a thread of its own.
//!
//! Wants `kafka://HOSTS/TOPIC`, and uses the topic `TOPIC-raw`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::{oneshot, watch};

use super::{ENVELOPE, Error, Publish, SETTINGS, Side};

/// Gives the outcome of a record to its waiter.
struct Context;

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<KafkaResult<()>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, reply: Self::DeliveryOpaque) {
        let _ = reply.send(result.as_ref().map(drop).map_err(|(error, _)| error.clone()));
    }
}

struct Raw {
    producer: ThreadedProducer<Context>,
    topic: String,
}

#[async_trait]
impl Publish for Raw {
    async fn publish(&self, channel: String) -> Result<(), Error> {
        let partition = i32::from(super::partition(&channel));
        let (reply, done) = oneshot::channel();
        let record = BaseRecord::<(), _, _>::with_opaque_to(&self.topic, Box::new(reply));
        let sent = self.producer.send(record.partition(partition).payload(&[7_u8; ENVELOPE]));
        sent.map_err(|(error, _)| error)?;
        Ok(done.await??)
    }
}

pub(super) async fn side(url: &str) -> Result<Side, Error> {
    let rest = url.strip_prefix("kafka://").ok_or("a plain kafka:// URL, please")?;
    let (hosts, topic) = rest.split_once('/').unwrap_or((rest, "fanfare"));
    let topic = format!("{}-raw", topic.split('?').next().unwrap_or_default());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", hosts);
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let new = NewTopic::new(&topic, SETTINGS.partitions.into(), TopicReplication::Fixed(-1));
    // It may be there already.
    let _ = admin.create_topics([&new], &AdminOptions::new()).await?;

    let mut producer = config.clone();
    producer.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
    let producer = producer.create_with_context(Context)?;
    config.set("group.id", "raw").set("enable.auto.commit", "false").set("fetch.queue.backoff.ms", "1");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::from(SETTINGS.partitions) {
        let end = loop {
            match consumer.fetch_watermarks(&topic, partition, Duration::from_secs(5)) {
                Ok((_, end)) => break end,
                // The topic is being made.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        list.add_partition_offset(&topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&list)?;
    let (count, received) = watch::channel(0);
    std::thread::spawn(move || {
        while !count.is_closed() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => count.send_modify(|count| *count += 1),
                Some(Err(error)) => eprintln!("the raw reader: {error}"),
                None => {}
            }
        }
    });
    Ok(Side { publisher: Arc::new(Raw { producer, topic }), received })
}
