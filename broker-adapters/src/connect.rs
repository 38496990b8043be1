//! Picks the adapter by the URL's scheme. The only place that knows all adapters.

use std::sync::Arc;

use crate::broker::Broker;
use crate::memory::Memory;

/// What every adapter must know about the log.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Number of partitions; the same on all nodes.
    pub partitions: u16,
    /// Records to keep per partition; a broker may keep somewhat more.
    pub retention: usize,
}

/// The URL cannot be used. Never holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No adapter has this scheme.
    #[error("no broker speaks `{0}:`; use one of {known}", known = SCHEMES.join(", "))]
    Scheme(String),
    /// The rest of the URL is wrong.
    #[error("the broker's URL cannot be used: {0}")]
    Url(String),
}

/// The schemes that [`connect`] takes.
const SCHEMES: &[&str] = &[
    "memory:",
    #[cfg(feature = "kafka")]
    "kafka://",
    #[cfg(feature = "kafka")]
    "kafka+ssl://",
    #[cfg(feature = "rabbitmq")]
    "amqp://",
    #[cfg(feature = "rabbitmq")]
    "amqps://",
    #[cfg(feature = "rabbitmq")]
    "rabbitmq://",
    #[cfg(feature = "redis")]
    "redis://",
    #[cfg(feature = "redis")]
    "rediss://",
];

/// Descriptors that the adapter of this URL may hold at a time: its connections, and those that replace them.
#[must_use]
pub fn descriptors(url: &str) -> usize {
    match url.split(':').next().unwrap_or_default() {
        #[cfg(feature = "redis")]
        "redis" | "rediss" => crate::redis::DESCRIPTORS,
        #[cfg(feature = "kafka")]
        "kafka" | "kafka+ssl" => crate::kafka::DESCRIPTORS,
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" | "rabbitmq" => crate::rabbitmq::DESCRIPTORS,
        _ => 0,
    }
}

/// Makes the broker that `url` names, without waiting for it to be up.
pub fn connect(url: &str, settings: Settings) -> Result<Arc<dyn Broker>, ConnectError> {
    let (scheme, rest) = url.split_at(url.find(':').unwrap_or(url.len()));
    // RFC 3986 §3.1: a scheme is the same in any case.
    let scheme = scheme.to_ascii_lowercase();
    let url = &(scheme.clone() + rest);
    match scheme.as_str() {
        "memory" => Ok(Arc::new(Memory::new(settings))),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => Ok(Arc::new(crate::redis::Redis::new(url, settings)?)),
        #[cfg(feature = "kafka")]
        "kafka" | "kafka+ssl" => Ok(Arc::new(crate::kafka::Kafka::new(url, settings)?)),
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" | "rabbitmq" => Ok(Arc::new(crate::rabbitmq::RabbitMq::new(url, settings)?)),
        _ => Err(ConnectError::Scheme(scheme)),
    }
}
