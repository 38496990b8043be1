//! A WebSocket from the client's side: DNS, TCP, TLS, the handshake, frames, commands. `probe`, `subscribe` and `publish` use it.
//!
//! Each step has a deadline, and a failure says what it means and what to look at.

mod backoff;
mod certificate;
mod door;
mod endpoint;
mod head;
mod session;
mod socket;
mod trouble;
mod trust;
pub(crate) mod upgrade;

pub(crate) use backoff::Backoff;
pub(crate) use door::{Door, STEP, connect, resolve, secure};
pub use endpoint::{Endpoint, Header, Host, Target};
pub(crate) use head::{Greeting, PROBE, Response};
pub(crate) use session::{Closed, Frame, Session};
pub(crate) use socket::{End, Incoming, Socket, Stream};
pub(crate) use trouble::{Good, Trouble, tame};
pub(crate) use trust::Tls;
