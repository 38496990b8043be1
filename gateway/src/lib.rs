//! A clustered WebSocket gateway: sockets on any node, one ordered log between the nodes.
//!
//! Build an app with [`App`], or run the program `fanfare`. ARCHITECTURE.md is the map.

mod agent;
pub mod app;
pub mod capacity;
pub mod cli;
mod clock;
pub mod close;
pub mod codec;
mod columns;
pub mod config;
mod descriptors;
mod drain;
mod field;
pub mod handshake;
mod health;
mod http;
mod ingress;
mod listener;
mod message;
mod metrics;
pub mod node;
pub mod probe;
pub mod program;
mod protocol;
mod refusals;
mod relay;
#[cfg(test)]
mod simulation;
pub mod socket;
mod sparingly;
mod stream;
mod telemetry;
mod vitals;
mod window;
mod worker;

pub use app::{App, Outcome, SocketRoute};
pub use axum::response::{Html, Redirect};
pub use ingress::TlsError;
pub use socket::{Message, Socket, SocketError};
