//! Every broker as one thing: a log of ordered, replayable partitions.
//!
//! [`Log`] is what a gateway uses: publish with three outcomes, tail with anchored resume. [`Broker`] is
//! what an adapter implements: append, open, read back. All rules of the contract live between the two,
//! written once; an adapter only moves bytes. Knows nothing of sockets or subscribers.

mod backoff;
mod broker;
mod connect;
mod cursor;
mod dedup;
mod envelope;
mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
mod log;
pub mod memory;
mod position;
mod publisher;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod record;
#[cfg(feature = "redis")]
pub mod redis;
mod shared;
mod tail;
mod witness;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod writes;

/// Filter of logs: libraries below the adapters that log as errors what the adapters handle and report themselves.
pub const HANDLED: &str = "lapin=off";

pub use backoff::Backoff;
pub use broker::{
    Append, AppendError, Broker, Capabilities, Entry, LinkError, Opened, Reader, Standing, Start, Stored,
};
pub use connect::{ConnectError, Settings, connect, descriptors};
pub use envelope::{ENVELOPE_OVERHEAD, Unreadable};
pub use file::read_file;
pub use log::{Count, Counters, Log, Timing, wall_clock};
pub use position::{Check, Epoch, InvalidPosition, Offset, Partition, Position, partition_of};
pub use publisher::{Budget, PublishError};
pub use record::{MessageId, NewRecord, Payload, Record};
pub use tail::{Break, BreakReason, Resume, Seen, Tail, TailEvent};
