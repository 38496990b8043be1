//! The entrance of a node: listening sockets, the limits on new connections, and the byte stream of a socket.
//!
//! Knows neither HTTP routes nor workers: it hands over accepted sockets.

pub(crate) mod ingress;
pub(crate) mod listener;
pub(crate) mod stream;

/// Connections that the kernel completes and keeps until the node accepts them (the accept queue).
pub(crate) const BACKLOG: i32 = 4096;
