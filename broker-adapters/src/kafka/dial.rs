//! Clients of Kafka: how they are set up, and what must hold before one is used.
//!
//! Everything here blocks: it is called on threads made for it. The settings' reasons stand beside them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::ThreadedProducer;
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;

use super::known::Known;
use super::url::Address;
use super::watch::{DEBUG, Watch};
use super::words::failed;
use crate::broker::LinkError;
use crate::stored::position::Epoch;

/// The longest wait for one answer, before the client's events are handled.
const GLANCE: Duration = Duration::from_millis(200);
/// The pause before asking again for a topic that Kafka is making.
const SOON: Duration = Duration::from_millis(20);

/// Common to all clients.
const COMMON: &[(&str, &str)] = &[
    ("client.id", "fanfare"),
    ("debug", DEBUG),
    // This adapter makes the topic as its URL says; the broker would make it with its defaults.
    ("allow.auto.create.topics", "false"),
    ("enable.metrics.push", "false"),
    ("socket.nagle.disable", "true"),
    ("socket.connection.setup.timeout.ms", "2000"),
    // Back soon after Kafka is (default: up to 10 s).
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "500"),
    ("retry.backoff.ms", "50"),
    ("retry.backoff.max.ms", "500"),
    // A topic that Kafka does not know is believed to be missing after this (default 30 s).
    ("topic.metadata.propagation.max.ms", "1000"),
];

const PRODUCER: &[(&str, &str)] = &[
    // One order per partition, and no record twice, through librdkafka's own retries.
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Never reached: librdkafka would let one record expire and still send the next. The adapter gives all of them up together.
    ("message.timeout.ms", "60000"),
    // A connection that owes an answer for that long is replaced (default 60 s).
    ("socket.timeout.ms", "2000"),
    // Records that come together are sent together anyway; a record does not wait for others.
    ("linger.ms", "0"),
    // The log's budget is the bound. This is more than the log sends at a time (default 1 GiB).
    ("queue.buffering.max.kbytes", "32768"),
];

const CONSUMER: &[(&str, &str)] = &[
    // librdkafka wants a name; no group is joined and nothing is ever committed.
    ("group.id", "fanfare"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // A position that is gone is an error, not a jump to the end.
    ("auto.offset.reset", "error"),
    // A foreign transaction that hangs must not hold up the log.
    ("isolation.level", "read_uncommitted"),
    ("socket.timeout.ms", "5000"),
    // The broker answers at the first record; this only bounds an idle request.
    ("fetch.wait.max.ms", "500"),
    ("fetch.error.backoff.ms", "50"),
    // How long reading pauses when the queue was full (default 1 s).
    ("fetch.queue.backoff.ms", "1"),
    // Bounds the records that wait for a slow owner, per reader (defaults 100,000 and 64 MiB).
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.max.bytes", "8388608"),
];

/// Makes clients.
pub(super) struct Dialer {
    pub(super) address: Address,
    pub(super) partitions: u16,
    pub(super) known: Arc<Known>,
    /// Held while a topic is examined. Others wait for the result.
    examining: Mutex<()>,
}

impl Dialer {
    pub(super) fn new(address: Address, partitions: u16) -> Self {
        Self { address, partitions, known: Arc::default(), examining: Mutex::default() }
    }

    /// A client that reads. With `ends` it also reports the end of a partition.
    pub(super) fn consumer(&self, ends: bool) -> Result<BaseConsumer<Watch>, LinkError> {
        self.client(CONSUMER, &[("enable.partition.eof", if ends { "true" } else { "false" })])
    }

    /// A client that writes. No batch of it is larger than what the topic takes: Kafka refuses those as a whole.
    pub(super) fn producer(&self, largest: usize) -> Result<ThreadedProducer<Watch>, LinkError> {
        let largest = largest.to_string();
        self.client(PRODUCER, &[("message.max.bytes", &largest), ("batch.size", &largest)])
    }

    fn client<C: FromClientConfigAndContext<Watch>>(
        &self,
        settings: &[(&str, &str)],
        more: &[(&str, &str)],
    ) -> Result<C, LinkError> {
        let mut config = self.address.client();
        for (key, value) in COMMON.iter().chain(settings).chain(more) {
            config.set(*key, *value);
        }
        config.set_log_level(RDKafkaLogLevel::Debug);
        let watch = Watch::new(&self.address.topic, Arc::clone(&self.known));
        config.create_with_context(watch).map_err(|error| self.named(failed(&error)))
    }

    /// Examines this topic, unless it was found good before.
    pub(super) fn examined(
        &self,
        epoch: Epoch,
        examine: impl FnOnce() -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let _one_at_a_time = self.examining.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.known.is_good(epoch) {
            examine()?;
            self.known.good(epoch);
        }
        Ok(())
    }

    /// Waits until Kafka answers, and makes sure that the topic is there and fits. `poll` serves the client.
    pub(super) fn agree<C: ClientContext>(
        &self,
        client: &Client<C>,
        watch: &Watch,
        poll: impl Fn(),
        runtime: &Handle,
        until: Instant,
    ) -> Result<(), LinkError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = client.fetch_metadata(Some(&self.address.topic), left.min(GLANCE));
            poll();
            let why = match answer {
                Ok(metadata) => match self.fits(&metadata, runtime, until)? {
                    None => {
                        // It has found a way in.
                        watch.take_trouble();
                        return Ok(());
                    }
                    Some(why) => {
                        std::thread::sleep(SOON);
                        LinkError::new(why)
                    }
                },
                Err(error) => match watch.take_trouble() {
                    Some(trouble) => return Err(self.named(trouble)),
                    None => watch.last_trouble().map_or_else(|| failed(&error), LinkError::new),
                },
            };
            if Instant::now() >= until {
                return Err(self.named(why));
            }
        }
    }

    /// Says what is still missing.
    fn fits(
        &self,
        metadata: &rdkafka::metadata::Metadata,
        runtime: &Handle,
        until: Instant,
    ) -> Result<Option<String>, LinkError> {
        let name = &self.address.topic;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(Some("it does not speak of the topic".into()));
        };
        let here = self.partitions;
        match topic.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                self.make_topic(metadata.brokers().len(), runtime, until)?;
                Ok(Some(format!("topic `{name}` is being made")))
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(self.named(self.no_right("see"))),
            Some(code) => Ok(Some(format!("topic `{name}`: {code}"))),
            None if topic.partitions().len() == usize::from(here) => Ok(None),
            None => Err(self.named(LinkError::set_up(format!(
                "topic `{name}` has {there} partitions, this node is set to {here}: set this node to {there}, or \
                 start a new log with another topic in the broker's URL",
                there = topic.partitions().len()
            )))),
        }
    }

    /// An error that says which Kafka it is about.
    pub(super) fn named(&self, error: impl Into<LinkError>) -> LinkError {
        let LinkError { kind, why } = error.into();
        let name = format!("Kafka at {}: ", self.address.hosts);
        // The check before an append names it already.
        LinkError::of(kind, if why.starts_with(&name) { why } else { name + &why })
    }
}
