//! What a tail says, and where it begins.

use std::fmt;

use crate::stored::position::{Check, Offset, Partition, Position};
use crate::stored::record::Record;

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// With the next record to come.
    Head,
    /// With so many records before the end, or all that are kept. They come before the first `Up`.
    Recent(u64),
    /// With the record after this one.
    After(Position),
}

/// An event of a tail. Events of one partition come in order.
#[derive(Debug, Clone)]
pub enum TailEvent {
    /// The partition has shown a new record. The next events come after `at`.
    Up {
        /// The last record known.
        at: Position,
    },
    /// The link is gone, or cannot be made for another reason than before. This alone loses nothing.
    Down {
        /// The reason, in words.
        why: String,
    },
    /// The next records, messages or not: the log is alive.
    Records {
        /// Where they stand.
        partition: Partition,
        /// In order, at least one.
        seen: Vec<Seen>,
    },
    /// The records between two positions cannot be read any more.
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
    /// The message. `None` for a heartbeat, a record for the nodes, a message whose id came before, and a record that only
    /// newer releases know.
    pub message: Option<Record>,
    /// A record for the nodes themselves, unless its id came before.
    pub control: Option<Box<Record>>,
    /// It held a message whose id came before. Not set for records that were read back.
    pub repeated: bool,
}

/// A place where the log does not follow what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// The last record before it.
    pub after: Position,
    /// The next records come after this position.
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
