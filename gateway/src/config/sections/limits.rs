//! `[limits]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, duration, number, size};

/// What one client, and all clients together, may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum size of a message from a client, all its fragments together. A larger one closes the connection with 1009. It
    /// must be at most half of `outbox`, and not more than the broker accepts.
    #[serde(deserialize_with = "size::at_most::<_, 0x4000_0000>")]
    pub message: ByteSize,
    /// Maximum number of frames of one message. Lower it against clients that send many empty frames.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub fragments: usize,
    /// Maximum time from the first byte of a message to its last. Raise it for large messages over slow networks.
    #[serde(with = "duration")]
    pub message_time: Duration,
    /// Maximum number of open connections from one address (IPv6: one /64); more get 429. The default is half of
    /// `http.max_connections`. Lower it where each client has its own address. Connections of `trusted_proxies` count for the
    /// clients behind them.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000_000>")]
    pub connections_per_address: u32,
    /// Bytes of messages that may wait for one client, with 64 more for each message. A client that is further behind is
    /// closed with 4410. The message that is being written and the newest one do not count, so one message may be larger than
    /// this. Raise it to survive longer stalls, at the cost of memory.
    pub outbox: ByteSize,
    /// Bytes of messages that may wait for all clients of the node together. A message that waits for many clients counts once
    /// per worker; the largest message does not count. Above this limit, the clients that have taken nothing for longest are
    /// closed with 4410. Set it to the memory that the node may spend on slow clients.
    pub outbox_total: ByteSize,
    /// Pings of a client that are answered one by one per second. More are answered together; ten times as many close the
    /// connection with 1008.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub pings_per_second: u32,
    /// Maximum number of channels that one connection may be subscribed to. Each costs memory on the node.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub channels_per_connection: usize,
    /// Maximum number of subscriptions that all connections of one user on this node have together; at least
    /// `channels_per_connection`.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000_000>")]
    pub channels_per_user: u32,
    /// Messages per second that one connection may publish; 0 means no limit. After a pause, twice as many may come at once; more are
    /// refused (`rate_limited`). A connection that goes on, until ten times as many are refused, is closed with 4429. Raise it
    /// for clients that publish for others, such as backends and load tests. An app's own messages do not count.
    #[serde(deserialize_with = "number::between::<_, _, 0, 10_000>")]
    pub publishes_per_second: u32,
    /// Subscriptions per second that one connection may begin; 0 means no limit. After a pause it may begin twice as many at once, and in any
    /// case `channels_per_connection`, at once. More are refused as above.
    #[serde(deserialize_with = "number::between::<_, _, 0, 10_000>")]
    pub subscribes_per_second: u32,
    /// Requests per second for older messages that one connection may make; 0 means no limit. More are refused as above. Each
    /// may read the broker.
    #[serde(deserialize_with = "number::between::<_, _, 0, 10_000>")]
    pub history_per_second: u32,
    /// All connections of one user on this node together may do so many times as much per second as one connection may; 0 means
    /// no limit.
    #[serde(deserialize_with = "number::between::<_, _, 0, 10_000>")]
    pub rates_per_user: u32,
    /// The same for all connections from one address (IPv6: one /64). Behind a proxy that is not in `http.trusted_proxies` all
    /// clients have one address.
    #[serde(deserialize_with = "number::between::<_, _, 0, 10_000>")]
    pub rates_per_address: u32,
    /// Maximum length of a channel's name, in bytes of UTF-8; at most "65535B".
    #[serde(deserialize_with = "size::at_most::<_, 0xffff>")]
    pub channel_name: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: ByteSize::kib(64),
            fragments: 16_384,
            message_time: Duration::from_secs(30),
            connections_per_address: 50_000,
            outbox: ByteSize::mib(1),
            outbox_total: ByteSize::mib(256),
            pings_per_second: 20,
            channels_per_connection: 100,
            channels_per_user: 1_000,
            publishes_per_second: 10_000,
            subscribes_per_second: 1_000,
            history_per_second: 100,
            rates_per_user: 10,
            rates_per_address: 100,
            channel_name: ByteSize::new(255),
        }
    }
}
