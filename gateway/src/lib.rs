//! A clustered WebSocket gateway: clients connect to any node, and one ordered log connects the nodes.
//!
//! Build an app with [`App`], or run the program `fanfare`. ARCHITECTURE.md describes the modules.

pub mod app;
pub mod capacity;
mod clock;
pub mod close;
pub mod codec;
mod columns;
pub mod config;
mod door;
mod field;
mod gate;
pub mod http;
mod message;
pub mod node;
pub mod probe;
pub mod program;
mod protocol;
mod relay;
#[cfg(test)]
mod simulation;
mod sparingly;
mod window;
mod worker;

pub use app::message::Message;
pub use app::socket::{Socket, SocketError};
pub use app::{App, Outcome, SocketRoute};
pub use axum::response::{Html, Redirect};
pub use door::ingress::TlsError;
