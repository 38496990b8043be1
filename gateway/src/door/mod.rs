//! The way into a node: listening sockets, who may come in, and the bytes of a socket that came.
//!
//! Knows neither HTTP routes nor workers: it hands over accepted sockets.

pub(crate) mod ingress;
pub(crate) mod listener;
pub(crate) mod stream;

/// Connections that the kernel completes before the node has accepted them.
pub(crate) const BACKLOG: i32 = 4096;
