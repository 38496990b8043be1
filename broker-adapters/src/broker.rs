//! What an adapter implements: append bytes, open a reader, read back.
//!
//! An adapter never retries, never hides a reconnect and never decides what was lost. It reports, and
//! [`Log`](crate::Log) applies the rules. It owns its connections to the broker and nothing else.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::stored::position::{Check, Epoch, Offset, Partition};

/// A broker: a number of ordered partitions. Records are appended to them, and read from any offset that is still kept.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// What this broker can promise. Constant for the life of the value.
    fn capabilities(&self) -> Capabilities;

    /// Appends a batch. Gives the outcome of each record, in the batch's order.
    ///
    /// Order: records of one partition are stored in the order given, and of two calls polled by one task the
    /// one first polled is applied first as long as both succeed. An append that finds the connection replaced waits for
    /// those before it, and is [`AppendError::NotStored`] if one of them failed. Waits for the broker's acknowledgement, at
    /// most until `deadline`; it may give up before. Dropping the future takes nothing back. May be called
    /// concurrently. What was surely not sent is [`AppendError::NotStored`]; every record whose fate is not
    /// proven is [`AppendError::Unknown`].
    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>>;

    /// Opens a reader on a fresh connection and says how each partition stands.
    ///
    /// Called again after each failure of a reader; dropping the reader closes its connection.
    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError>;

    /// Up to `most` records right before `before`, oldest first; fewer when the log begins there.
    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError>;

    /// Has later appends and read-backs use fresh connections: the present ones may lead to another server than the
    /// readers' do. Appends under way may end as [`AppendError::Unknown`].
    async fn redial(&self);

    /// Lets go of all connections but the readers', which end when dropped. Appends under way end as
    /// [`AppendError::Unknown`]; later calls fail.
    async fn close(&self);
}

/// Reads the partitions it was opened for.
#[async_trait]
pub trait Reader: Send {
    /// The next records, in rising order of offsets within each partition; waits until there is at least one.
    ///
    /// Loses nothing when the future is dropped: the same records come again. After an error the reader is
    /// of no more use.
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError>;
}

/// What a broker can promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The adapter's name, for people.
    pub name: &'static str,
    /// Acknowledged records survive a restart of the broker, if it is set up as its manual says.
    pub durable: bool,
    /// The largest envelope it takes, in bytes.
    pub max_bytes: usize,
    /// How many appends to have under way at a time: few large ones where each is one request with one answer, many small
    /// ones where the client library sends record by record and joins them itself. At least 1.
    pub pipeline: usize,
}

/// One envelope to be appended.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where to.
    pub partition: Partition,
    /// The envelope.
    pub bytes: Bytes,
}

/// The broker's acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Where the record stands, if the broker says so (RabbitMQ's confirms do not).
    pub at: Option<(Epoch, Offset)>,
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The broker will never take it: trying again is of no use.
    #[error("the broker refused the record: {0}")]
    Rejected(String),
    /// Surely not stored: it may be tried again.
    #[error("the record was not stored: {0}")]
    NotStored(LinkError),
    /// Perhaps stored: it may be tried again under the same message id.
    #[error("the record may or may not be stored: {0}")]
    Unknown(String),
}

/// The link to the broker failed, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct LinkError {
    /// Whether a retry may help, or a change is needed.
    pub kind: LinkErrorKind,
    /// The reason, in words. Never holds a password.
    pub why: String,
}

/// The kinds of failures of a link, by what helps against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkErrorKind {
    /// The broker does not answer, or takes nothing for now: the next try may work.
    Unreachable,
    /// The broker does not let this node in, or the user of the URL lacks a right.
    Refused,
    /// The broker, its data or this node is set up in a way in which the log cannot work.
    SetUp,
    /// The server's answers are not those of this kind of broker: the next try may work.
    Protocol,
}

impl LinkErrorKind {
    /// Whether an operator must change something before a try can work.
    #[must_use]
    pub fn needs_change(self) -> bool {
        matches!(self, Self::Refused | Self::SetUp)
    }
}

impl LinkError {
    /// The broker does not answer: the next try may work.
    pub fn new(why: impl std::fmt::Display) -> Self {
        Self::of(LinkErrorKind::Unreachable, why)
    }

    /// The broker does not let this node in, or the user of the URL lacks a right.
    pub fn refused(why: impl std::fmt::Display) -> Self {
        Self::of(LinkErrorKind::Refused, why)
    }

    /// The broker, its data or this node is set up in a way in which the log cannot work.
    pub fn set_up(why: impl std::fmt::Display) -> Self {
        Self::of(LinkErrorKind::SetUp, why)
    }

    /// The server's answers are not those of this kind of broker.
    pub fn protocol(why: impl std::fmt::Display) -> Self {
        Self::of(LinkErrorKind::Protocol, why)
    }

    /// An error of any kind.
    pub fn of(kind: LinkErrorKind, why: impl std::fmt::Display) -> Self {
        Self { kind, why: why.to_string() }
    }
}

impl From<String> for LinkError {
    fn from(why: String) -> Self {
        Self::new(why)
    }
}

impl From<&str> for LinkError {
    fn from(why: &str) -> Self {
        Self::new(why)
    }
}

/// Where a reader begins in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the last record, inclusive; in an empty log, at the first one to come.
    Head,
    /// At this record, inclusive, or the first one after it that is still kept.
    At(Offset),
    /// So many records before the end, or the first one that is still kept.
    Back(u64),
}

impl Start {
    /// The offset to read first in a partition whose next record will be `next`. The first record that is kept may come
    /// after it.
    #[must_use]
    pub fn first(self, next: Offset) -> Offset {
        match self {
            Self::At(offset) => offset,
            Self::Head => Offset(next.0.saturating_sub(1)),
            Self::Back(records) => Offset(next.0.saturating_sub(records).max(1)),
        }
    }
}

/// How a partition stands when a reader is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The partition.
    pub partition: Partition,
    /// The identity of its log.
    pub epoch: Epoch,
    /// The offset that the next record will get; 1 in a log that never had one.
    pub next: Offset,
}

/// A reader and how its partitions stand.
pub struct Opened {
    /// One for each partition asked for, in that order, read before the reader's first record.
    pub standings: Vec<Standing>,
    /// The reader.
    pub reader: Box<dyn Reader>,
}

/// One envelope as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition.
    pub partition: Partition,
    /// The identity of the log, where the broker keeps it with each record.
    pub epoch: Option<Epoch>,
    /// Its place.
    pub offset: Offset,
    /// The fingerprint of the record that stood before it when it was appended, where the broker keeps it with each
    /// record.
    pub previous: Option<Check>,
    /// The envelope; not trusted.
    pub bytes: Bytes,
}

/// The longest a broker may take to open a reader or to read back.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
