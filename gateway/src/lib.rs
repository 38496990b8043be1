//! A clustered WebSocket gateway, as a library and as the program `fanfare`.
//!
//! Clients connect to any node. The nodes share one broker, an ordered log that they read again after every fault, so a message
//! published on one node reaches the subscribers of all nodes, in one order.
//!
//! # A first app
//!
//! Pages with [`App::get`], sockets with [`App::ws`], then [`App::run`]. With `--broker redis://host`, several processes of this
//! program are one chat:
//!
//! ```no_run
//! use fanfare::{App, ExitCode, Html, Socket};
//!
//! fn main() -> ExitCode {
//!     let mut app = App::new();
//!     app.get("/", async || Html("<h1>A chat</h1>"));
//!     app.ws("/chat", async |socket: Socket| {
//!         socket.send(format!("Welcome to {}", socket.node()))?;
//!         socket.each(async |socket, message| socket.broadcast(message).await).await
//!     });
//!     app.run("127.0.0.1:3000")
//! }
//! ```
//!
//! The app has the same flags, configuration, health pages and commands as `fanfare`, which is [`App::gateway`].
//!
//! # Layout
//!
//! - [`app`]: the API above. [`program`]: the command line around it. [`config`]: the settings.
//! - [`node`]: builds all parts of a node and stops them in order.
//! - `door`, [`http`], `gate`: what comes before a connection speaks: sockets and TLS, requests and handshakes, decisions.
//! - `auth`: a token's text to a proven identity. `hooks`: the application's backend, asked by the gate. `webhooks`: the same, notified. `api`: the HTTP API for backends.
//! - [`codec`], `protocol`: bytes to events to commands, and back. Pure.
//! - `worker`: one thread with its connections. `relay`, `window`, `message`: records on their way from the log to the workers.
//! - [`close`]: the table of all ends. [`client`]: a WebSocket from the client's side. [`probe`], [`capacity`]: the commands that
//!   look at a deployment.
//!
//! ARCHITECTURE.md in the repository is the map, with the invariants and the way of one message.

mod api;
pub mod app;
mod auth;
pub mod capacity;
pub mod client;
mod clock;
pub mod close;
mod cluster;
pub mod codec;
mod columns;
pub mod config;
mod door;
mod errors_page;
mod fetch;
mod field;
mod gate;
mod hooks;
pub mod http;
mod message;
pub mod node;
mod presence;
pub mod probe;
pub mod program;
mod protocol;
mod relay;
#[cfg(test)]
mod simulation;
mod sparingly;
mod webhooks;
mod window;
mod worker;

pub use std::process::ExitCode;

pub use api::ApiError;
pub use app::message::Message;
pub use app::rooms::Publisher;
pub use app::socket::{Socket, SocketError};
pub use app::{App, Outcome, SocketRoute, UpgradeRequest};
pub use auth::AuthError;
pub use axum;
pub use axum::response::{Html, Redirect};
pub use door::ingress::TlsError;
pub use hooks::HooksError;
pub use webhooks::WebhooksError;
