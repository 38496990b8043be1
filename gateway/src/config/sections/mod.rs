//! One file per section: its keys, their doc comments, their defaults.
//!
//! A doc comment here is also the key's text in `deploy/fanfare.toml` and `docs/configuration.md`; see
//! [`reference`](super::reference).

mod agent;
mod api;
mod auth;
mod broker;
mod channels;
mod cluster;
mod hooks;
mod http;
mod limits;
mod log;
mod node;
mod presence;
mod timing;
mod tls;
mod webhooks;
mod window;

pub use self::{
    agent::Agent,
    api::{Api, ApiListen},
    auth::{Anonymous, Auth},
    broker::Broker,
    channels::{Channel, Who},
    cluster::Cluster,
    hooks::{Hook, Hooks},
    http::Http,
    limits::Limits,
    log::Log,
    node::Node,
    presence::Presence,
    timing::Timing,
    tls::Tls,
    webhooks::{WebhookEvent, Webhooks},
    window::Window,
};
