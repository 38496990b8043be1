//! HTTP on one socket: pages and probes, and the upgrade to a WebSocket.
//!
//! Knows the app's routes and the rules of the handshake. After the upgrade the socket belongs to the worker.

pub mod handshake;
pub(crate) mod refusals;
mod refuse;
pub(crate) mod server;
pub(crate) mod site;
mod upgrade;
mod worded;
