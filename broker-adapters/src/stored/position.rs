//! Where a record stands: partition, offset, and a fingerprint of the record; and which partition a channel is in.
//!
//! A position is an opaque string to clients. It stays valid on every node and after a node's restart. It is invalid once
//! the log holds another record at its offset, or none: when the log was wiped, made anew, or rolled back.

use std::fmt;
use std::str::FromStr;

/// The number of a partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

/// The place of a record in its partition: dense, rising by one, never reused within an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset right after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The identity of a partition's log. A log that was wiped or made anew has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// A fingerprint of the record at a position, by its message id. On every broker it proves that the log is still the
/// same one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Check(pub u64);

impl Check {
    /// Of a record that was never read; equals that of no record.
    pub const UNKNOWN: Self = Self(0);
}

/// A place in the log of one partition. The record at `offset` is the last one known there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which partition.
    pub partition: Partition,
    /// Which record of it.
    pub offset: Offset,
    /// That it is this record.
    pub check: Check,
}

/// The text is not a position that this program made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position: use one that the server sent, unchanged")]
pub struct InvalidPosition;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.check.0, self.partition.0, self.offset.0)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let mut parts = text.split('-').map(|part| {
            let plain = part.len() <= 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or(InvalidPosition)
        });
        let mut part = || parts.next().ok_or(InvalidPosition)?;
        let (check, partition, offset) = (part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(InvalidPosition);
        }
        let partition = u16::try_from(partition).map_err(|_| InvalidPosition)?;
        Ok(Self { partition: Partition(partition), offset: Offset(offset), check: Check(check) })
    }
}

/// The partition of a channel: FNV-1a (64 bit) of its name, modulo the number of partitions.
///
/// The hash is part of the stored format: all nodes of a cluster, whatever their version, must agree on it.
#[must_use]
pub fn partition_of(channel: &str, partitions: u16) -> Partition {
    let hash = channel
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let index = hash % u64::from(partitions.max(1));
    Partition(u16::try_from(index).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text() {
        for (check, partition, offset) in [(0, 0, 0), (u64::MAX, u16::MAX, u64::MAX), (0xabc, 15, 1)] {
            let position = Position { partition: Partition(partition), offset: Offset(offset), check: Check(check) };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in
            ["", "-", "1-2", "1-2-3-4", "x-1-1", "1-10000-1", "+1-1-1", "1-1-11111111111111111", "1--1", " 1-1-1"]
        {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text:?}");
        }
    }

    #[test]
    fn a_channel_keeps_its_partition_for_ever() {
        assert_eq!(partition_of("", 16), Partition(5));
        assert_eq!(partition_of("news", 16), partition_of("news", 16));
        let used: std::collections::HashSet<_> = (0..1000).map(|n| partition_of(&format!("room-{n}"), 16)).collect();
        assert_eq!(used.len(), 16);
    }
}
