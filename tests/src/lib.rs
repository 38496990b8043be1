//! The language of the end-to-end tests: programs, clients and clusters that are real and leave nothing behind.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests print what they measured")]

pub mod agent;
pub mod api;
pub mod audience;
pub mod backend;
pub mod balancer;
mod broker;
pub mod browser;
pub mod certificate;
pub mod client;
pub mod cluster;
mod conditions;
pub mod crowd;
pub mod door;
pub mod events;
mod every_broker;
pub mod history;
pub mod http;
pub mod latency;
pub mod lateness;
pub mod measure;
pub mod names;
pub mod nginx;
mod program;
mod returning;
pub mod tokens;
pub mod tunnel;
pub mod wire;
pub mod without_ipv6;

pub use broker::Broker;
pub use client::{Client, Ended, Frame};
pub use cluster::Cluster;
pub use conditions::{Conditions, Log};
pub use program::{PATIENCE, Program, binary};
pub use returning::Returning;
