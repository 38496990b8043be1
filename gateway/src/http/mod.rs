//! HTTP on one socket: pages and probes, the upgrade to a WebSocket, and event streams.
//!
//! Knows the app's routes and the rules of the handshake. After the upgrade the socket belongs to the worker.

pub mod handshake;
mod publish;
mod query;
pub(crate) mod refusals;
mod refuse;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod site;
mod stream;
mod upgrade;
mod worded;
