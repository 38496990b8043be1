//! `[timing]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::duration;

/// Time-outs of connections, and the pace of a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Time between two pings to a client. Keep it below the idle time-out of every proxy between the node and its clients;
    /// raise it to save the batteries of mobile clients.
    #[serde(with = "duration")]
    pub ping: Duration,
    /// Time that a client has to answer a ping before the node drops it. It must be shorter than `ping`. It counts from the last
    /// bytes that a slow client took, so a ping that waits behind messages closes no connection.
    #[serde(with = "duration")]
    pub pong: Duration,
    /// Time after which a connection without a subscription and without a message is closed; "off" means never. Set it to
    /// close connections that are not used.
    #[serde(with = "duration::or_off")]
    pub idle: Option<Duration>,
    /// After a stop signal, how long the node keeps serving while it reports not ready, so that balancers notice. Set it to
    /// twice the interval of their checks; Kubernetes needs about "10s". "off" is for nodes without a balancer. SIGINT (Ctrl-C)
    /// skips this time.
    #[serde(with = "duration::or_off")]
    pub drain_wait: Option<Duration>,
    /// After that, the time over which the node closes its clients, in random order and at an even pace. Few clients take less.
    /// Supervisors must allow for `drain_wait`, `drain`, `broker.publish_timeout` and 5 s more (Docker allows 10 s by default,
    /// Kubernetes 30 s).
    #[serde(with = "duration")]
    pub drain: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            idle: None,
            drain_wait: Some(Duration::from_secs(3)),
            drain: Duration::from_secs(10),
        }
    }
}
