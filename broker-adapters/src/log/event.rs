//! What a tail says, and where it begins.

use std::fmt;

use crate::stored::position::{Check, Offset, Partition, Position};
use crate::stored::record::Record;

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// With the next record to come.
    Head,
    /// With so many records before the end, or all that are kept. They are told before the first `Up`.
    Recent(u64),
    /// With the record after this one.
    After(Position),
}

/// What a tail tells, in order within each partition.
#[derive(Debug, Clone)]
pub enum TailEvent {
    /// The partition has shown a new record; what follows comes after `at`.
    Up {
        /// The last record known.
        at: Position,
    },
    /// The link is gone, or cannot be made for another reason than before. Nothing is lost by it yet.
    Down {
        /// What happened, for people.
        why: String,
    },
    /// The next records, messages or not: the log is alive.
    Records {
        /// Where they stand.
        partition: Partition,
        /// In order, at least one.
        seen: Vec<Seen>,
    },
    /// Records between two positions cannot be had any more.
    Lost(Break),
}

/// One record as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its place.
    pub offset: Offset,
    /// Its fingerprint.
    pub check: Check,
    /// When it was sent, in milliseconds since 1970 by its publisher's clock.
    pub time: u64,
    /// The message; none for a heartbeat, for a message whose id came before, and for what only newer releases know.
    pub message: Option<Record>,
    /// It held a message whose id came before. What was read back is not looked at for this.
    pub repeated: bool,
}

/// A place where the log does not go on from what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// The last record before it.
    pub after: Position,
    /// What follows comes after this position.
    pub at: Position,
    /// Why.
    pub reason: BreakReason,
}

/// Why records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakReason {
    /// The broker no longer keeps them.
    Trimmed,
    /// The reader passed over them.
    Skipped,
    /// A record could not be read.
    Unreadable,
    /// The log is another one: wiped, made anew, or rolled back.
    Reset,
}

impl fmt::Display for BreakReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trimmed => "trimmed",
            Self::Skipped => "skipped",
            Self::Unreadable => "unreadable",
            Self::Reset => "reset",
        })
    }
}
