//! Measured costs in memory and CPU time.
//!
//! docs/benchmarks.md names the machine and says how each cost was measured. Memory is the same on other machines. CPU time
//! is for one core of that machine with one message at a time. That is the worst case: waiting messages share writes.

use serde::Serialize;

use crate::window::OVERHEAD;

/// One measured constant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// What was measured, in words.
    pub name: &'static str,
    /// Its cost, in `unit`.
    pub value: f64,
    /// The unit: `bytes` or `µs`.
    pub unit: &'static str,
}

const fn cost(name: &'static str, value: f64, unit: &'static str) -> Cost {
    Cost { name, value, unit }
}

/// `VmRSS` of a node on Redis without connections.
pub(super) const NODE: Cost = cost("a node without connections", 13e6, "bytes");
/// 1.7 MB for each of 16 partitions, after 65,536 messages per partition.
pub(super) const IDS: Cost = cost("ids of recent messages, in a node", 27e6, "bytes");
/// `RssAnon` with 15,000 native connections, one subscription each.
pub(super) const CONNECTION: Cost = cost("a connection in a node", 1_230.0, "bytes");
/// Kernel slabs for one end of a TCP connection, with its file and poll entry.
pub(super) const SOCKET: Cost = cost("a socket in the kernel", 4_900.0, "bytes");
/// HAProxy without connections.
pub(super) const BALANCER: Cost = cost("HAProxy without connections", 10e6, "bytes");
/// `RssAnon` of HAProxy 2.6 with 8,000 tunnels.
pub(super) const TUNNEL: Cost = cost("a tunnel in HAProxy", 4_800.0, "bytes");
/// `RssAnon` of HAProxy 2.6 with 3,000 tunnels, TLS 1.3 towards the client.
pub(super) const TLS_TUNNEL: Cost = cost("a tunnel with TLS in HAProxy", 19_700.0, "bytes");
/// 39,600 messages of 64 B, 6,480 of 1 KiB.
pub(super) const RECORD: Cost = cost("a message in the window, beside twice its size", OVERHEAD as f64, "bytes");

/// One publisher, one subscriber, one message at a time.
pub(super) const PUBLISH: Cost = cost("a message, on every node", 50.0, "µs");
/// 1,000 subscribers, one message at a time.
pub(super) const DELIVERY: Cost = cost("a delivery, on its node", 5.5, "µs");
/// 0.615 µs per connection and second with a ping every 25 s.
pub(super) const PING: Cost = cost("a ping and its answer, on the node", 15.4, "µs");
/// With a native subscription.
pub(super) const HANDSHAKE: Cost = cost("a handshake and subscription, on the node", 45.0, "µs");
/// 1,000 subscribers, one message at a time.
pub(super) const FORWARD: Cost = cost("a message through HAProxy", 14.6, "µs");
/// 5,000 connections.
pub(super) const OPEN: Cost = cost("a handshake through HAProxy", 70.0, "µs");
/// TLS 1.3, ECDSA P-256, without session resumption. RSA 2048 takes 620 µs.
pub(super) const TLS_OPEN: Cost = cost("a TLS handshake in HAProxy (ECDSA; RSA 620)", 430.0, "µs");

/// All measured costs.
pub(super) const ALL: [Cost; 15] = [
    NODE, IDS, CONNECTION, SOCKET, BALANCER, TUNNEL, TLS_TUNNEL, RECORD, PUBLISH, DELIVERY, PING, HANDSHAKE, FORWARD,
    OPEN, TLS_OPEN,
];

impl Cost {
    /// CPU seconds, for a cost in microseconds.
    pub(super) fn seconds(self) -> f64 {
        self.value / 1e6
    }
}
