//! Clients of Kafka: how they are set up, and what must hold before one is used.
//!
//! Everything here blocks: it is called on threads made for it. The settings' reasons stand beside them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::ThreadedProducer;
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;

use super::url::Address;
use super::watch::{DEBUG, Watch};
use crate::broker::LinkError;

/// The longest wait for one answer, before looking at what the client has told meanwhile.
const GLANCE: Duration = Duration::from_millis(200);
/// The pause before asking again for what Kafka is just making.
const SOON: Duration = Duration::from_millis(20);

/// Common to all clients.
const COMMON: &[(&str, &str)] = &[
    ("client.id", "fanfare"),
    ("debug", DEBUG),
    // The broker would make a topic of its own taste; this adapter makes it as its URL says.
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
    // A record that is not confirmed by then is unknown, and tried again above (default 5 min).
    ("message.timeout.ms", "3000"),
    // A connection that owes an answer for that long is replaced (default 60 s).
    ("socket.timeout.ms", "2000"),
    // What comes together is sent together anyway; nobody waits for more to come.
    ("linger.ms", "0"),
    // The log's budget is the bound; this is above what it lets out at a time (default 1 GiB).
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
    // Bounds what a slow owner piles up per reader (defaults 100,000 and 64 MiB).
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.max.bytes", "8388608"),
];

/// Makes clients.
pub(super) struct Dialer {
    pub(super) address: Address,
    pub(super) partitions: u16,
    /// It is not sure that Kafka can be reached: look before sending.
    pub(super) doubt: Arc<AtomicBool>,
}

impl Dialer {
    /// A client that reads. With `ends` it also tells when it has come to the end of a partition.
    pub(super) fn consumer(&self, ends: bool) -> Result<BaseConsumer<Watch>, LinkError> {
        self.client(CONSUMER, &[("enable.partition.eof", if ends { "true" } else { "false" })])
    }

    /// A client that writes.
    pub(super) fn producer(&self) -> Result<ThreadedProducer<Watch>, LinkError> {
        self.client(PRODUCER, &[])
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
        let watch = Watch::new(&self.address.topic, Arc::clone(&self.doubt));
        config.create_with_context(watch).map_err(|error| self.named(&explain(&error)))
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
                        why
                    }
                },
                Err(error) => match watch.take_trouble() {
                    Some(why) => return Err(self.named(&why)),
                    None => watch.last_trouble().unwrap_or_else(|| explain(&error)),
                },
            };
            if Instant::now() >= until {
                return Err(self.named(&why));
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
                self.make_topic(runtime, until)?;
                Ok(Some(format!("topic `{name}` is being made")))
            }
            Some(code) => Ok(Some(format!("topic `{name}`: {code}"))),
            None if topic.partitions().len() == usize::from(here) => Ok(None),
            None => Err(self.named(&format!(
                "topic `{name}` has {there} partitions, this node is set to {here}: set this node to {there}, or \
                 start a new log with another topic in the broker's URL",
                there = topic.partitions().len()
            ))),
        }
    }

    fn make_topic(&self, runtime: &Handle, until: Instant) -> Result<(), LinkError> {
        let Address { topic, replication, retention, .. } = &self.address;
        let refused = |why: String| {
            let partitions = self.partitions;
            self.named(&format!("topic `{topic}` cannot be made: {why}; make it yourself with {partitions} partitions"))
        };
        let copies = replication.map_or(-1, i32::from);
        let mut wanted = NewTopic::new(topic, self.partitions.into(), TopicReplication::Fixed(copies));
        wanted = wanted.set("cleanup.policy", "delete");
        let retention = retention.map(super::url::Retention::milliseconds);
        if let Some(retention) = &retention {
            wanted = wanted.set("retention.ms", retention);
        }
        if copies >= 3 {
            // What is acknowledged stands on two brokers.
            wanted = wanted.set("min.insync.replicas", "2");
        }
        let admin: AdminClient<DefaultClientContext> =
            self.address.client().create().map_err(|error| refused(explain(&error)))?;
        let options = AdminOptions::new().request_timeout(Some(until.saturating_duration_since(Instant::now())));
        let made = runtime.block_on(admin.create_topics([&wanted], &options));
        match made.map_err(|error| refused(explain(&error)))?.into_iter().next() {
            Some(Ok(_)) => {
                tracing::info!(topic, partitions = self.partitions, "topic made");
                Ok(())
            }
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(refused(code.to_string())),
            None => Err(refused("no answer".into())),
        }
    }

    /// An error that says which Kafka it is about.
    pub(super) fn named(&self, why: &str) -> LinkError {
        LinkError(format!("Kafka at {}: {why}", self.address.hosts))
    }
}

/// The error without any setting's value: one of them is the password.
pub(super) fn explain(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("the setting {key}: {why}"),
        KafkaError::ClientCreation(why) | KafkaError::AdminOpCreation(why) => why.clone(),
        other => match other.rdkafka_error_code() {
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut) => {
                "no answer in time".into()
            }
            Some(code) => code.to_string(),
            None => other.to_string(),
        },
    }
}
