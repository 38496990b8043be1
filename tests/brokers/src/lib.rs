//! Real brokers for tests, each set up as `deploy/brokers/` sets it up, and the wires to them.
//!
//! A [`Server`] keeps its ports and its directory for as long as it lives, running or not. Its process dies with the
//! test program, however that ends; what then stays of its files is removed by the next one that uses this library.

mod certificates;
mod home;
mod kafka;
mod port;
mod process;
mod rabbitmq;
mod redis;
mod scratch;
mod server;
mod wire;

pub use certificates::openssl;
pub use kafka::Kafka;
pub use port::{Port, established};
pub use process::{Process, inherited, signal};
pub use rabbitmq::RabbitMq;
pub use redis::Redis;
pub use scratch::Scratch;
pub use server::{PASSWORD, Server, USER};
pub use wire::{Direction, Wire};
