//! The language of the end-to-end tests: programs, clients and clusters that are real and leave nothing behind.

pub mod balancer;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod crowd;
pub mod history;
pub mod http;
pub mod latency;
pub mod measure;
mod program;
mod returning;
pub mod wire;

pub use client::{Client, Ended, Frame};
pub use cluster::{Broker, Cluster};
pub use program::{PATIENCE, Program, binary};
pub use returning::Returning;
