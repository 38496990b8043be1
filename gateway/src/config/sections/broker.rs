//! `[broker]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{BrokerUrl, ByteSize, duration, number};

/// The log that connects the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Broker {
    /// URL of the broker; nodes with the same URL are one cluster. `memory:` is a log inside this one node. The others, which
    /// docs/brokers.md describes with their options, are
    /// `redis[s]://[[user]:password@]host[:port][/database][?prefix=&adopt=&ca=]`,
    /// `kafka[+ssl]://[user:password@]host[:port][,host…][/topic][?replication=&retention=&sasl=&ca=&adopt=]`, and
    /// `amqp[s]://[user[:password]@]host[:port][/vhost][?prefix=&max-bytes=&ca=&adopt=]` for RabbitMQ.
    pub url: BrokerUrl,
    /// Number of partitions of the log, over which channels are spread. It must be the same on all nodes; to change it, stop all
    /// of them. Raise it for many nodes and channels.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1024>")]
    pub partitions: u16,
    /// Number of records that Redis or the log in memory keeps per partition, for clients that resume. Raise it for longer
    /// absences, at the cost of memory. Kafka keeps records by time and RabbitMQ by size, as their URLs say.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000_000>")]
    pub retention: u64,
    /// Time after which a publish fails that the broker has not confirmed. Raise it to let publishers wait through longer
    /// outages.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// Maximum number of publishes that wait for the broker; more are refused at once.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000_000>")]
    pub in_flight: usize,
    /// Maximum size of these publishes together. It limits the memory that an outage of the broker takes.
    pub in_flight_bytes: ByteSize,
    /// Time without a record in a partition after which a node writes a heartbeat. After three heartbeats without a record the
    /// link counts as dead. Raise it for brokers far away.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: BrokerUrl::default(),
            partitions: 16,
            retention: 20_000,
            publish_timeout: Duration::from_secs(3),
            in_flight: 10_000,
            in_flight_bytes: ByteSize::mib(64),
            heartbeat: Duration::from_secs(2),
        }
    }
}
