//! Every broker as one thing: a log of ordered, replayable partitions.
//!
//! [`Log`] is what a gateway uses: publish with three outcomes, tail with anchored resume. [`Broker`] is
//! what an adapter implements: append, open, read back. All rules of the contract live between the two,
//! written once; an adapter only moves bytes. Knows nothing of sockets or subscribers.

mod broker;
mod connect;
#[cfg(any(feature = "redis", feature = "kafka"))]
mod copies;
mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(any(feature = "rabbitmq", feature = "redis"))]
mod line;
mod log;
pub mod memory;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
mod stored;
#[cfg(any(feature = "rabbitmq", feature = "redis"))]
mod tls;
#[cfg(any(feature = "kafka", feature = "rabbitmq", feature = "redis"))]
mod turns;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod writes;

/// Filter of logs: libraries below the adapters that log as errors what the adapters handle and report themselves.
pub const HANDLED: &str = "lapin=off";

pub use broker::{
    Append, AppendError, Broker, Capabilities, Entry, LinkError, LinkErrorKind, Opened, Reader, Standing, Start, Stored,
};
pub use connect::{ConnectError, Settings, connect, descriptors};
pub use file::read_file;
pub use log::backoff::Backoff;
pub use log::event::{Break, BreakReason, Resume, Seen, TailEvent};
pub use log::publisher::{Budget, PublishError};
pub use log::tail::Tail;
pub use log::{Count, Counters, Earlier, Log, Timing, wall_clock};
pub use stored::envelope::{ENVELOPE_OVERHEAD, Unreadable};
pub use stored::extensions::{Extension, Extensions, ExtensionsTooLong};
pub use stored::position::{Check, Epoch, InvalidPosition, Offset, Partition, Position, partition_of};
pub use stored::record::{MessageId, NewRecord, Payload, Record};
