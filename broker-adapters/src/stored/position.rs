//! Where a record stands: partition, offset, and a fingerprint of the record; and which partition a channel is in.
//!
//! A position is an opaque string to clients; of two positions of one channel the greater string is the later one. It stays
//! valid on every node and after a node's restart. It is invalid once the log holds another record at its offset, or none:
//! when the log was wiped, made anew, or rolled back.

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

impl Position {
    /// The form that heartbeats hold, and that clients of earlier builds kept. It never changes: nodes of several releases
    /// read each other's heartbeats.
    pub(crate) fn stored_text(&self) -> String {
        format!("{:x}-{:x}-{:x}", self.check.0, self.partition.0, self.offset.0)
    }
}

/// `offset.partition.check` in hexadecimal. A digit before the offset says how many digits follow, less one, so that the
/// order of the strings is that of the offsets.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.offset.0.checked_ilog2().unwrap_or(0) / 4;
        write!(f, "{digits:x}{:x}.{:x}.{:x}", self.offset.0, self.partition.0, self.check.0)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        if text.contains('.') {
            let [first, partition, check] = numbers(text, '.', 17)?;
            let offset = u64::from_str_radix(first.get(1..).unwrap_or_default(), 16).map_err(|_| InvalidPosition)?;
            let position = Self::of(offset, hex(partition)?, hex(check)?)?;
            // Only one text stands for a position: any other could sort at another place.
            return if position.to_string() == text { Ok(position) } else { Err(InvalidPosition) };
        }
        let [check, partition, offset] = numbers(text, '-', 16)?;
        Self::of(hex(offset)?, hex(partition)?, hex(check)?)
    }
}

impl Position {
    fn of(offset: u64, partition: u64, check: u64) -> Result<Self, InvalidPosition> {
        let partition = u16::try_from(partition).map_err(|_| InvalidPosition)?;
        Ok(Self { partition: Partition(partition), offset: Offset(offset), check: Check(check) })
    }
}

/// Three hexadecimal numbers between separators, each of at most so many digits.
fn numbers(text: &str, separator: char, most: usize) -> Result<[&str; 3], InvalidPosition> {
    let mut parts = text.split(separator);
    let mut part = || {
        let part = parts.next()?;
        let plain = (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then_some(part)
    };
    match (part(), part(), part(), parts.next()) {
        (Some(one), Some(two), Some(three), None) => Ok([one, two, three]),
        _ => Err(InvalidPosition),
    }
}

fn hex(digits: &str) -> Result<u64, InvalidPosition> {
    u64::from_str_radix(digits, 16).map_err(|_| InvalidPosition)
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
    use proptest::prelude::*;

    use super::*;

    fn position((check, partition, offset): (u64, u16, u64)) -> Position {
        Position { partition: Partition(partition), offset: Offset(offset), check: Check(check) }
    }

    #[test]
    fn a_position_survives_its_text_and_that_of_earlier_builds() {
        for parts in [(0, 0, 0), (u64::MAX, u16::MAX, u64::MAX), (0xabc, 15, 1)] {
            let position = position(parts);
            assert_eq!(position.to_string().parse(), Ok(position));
            assert_eq!(position.stored_text().parse(), Ok(position));
        }
        assert_eq!(position((0xabc, 15, 0x102)).to_string(), "2102.f.abc");
        assert_eq!(position((0xabc, 15, 0x102)).stored_text(), "abc-f-102");
    }

    /// Numbers of every length.
    fn lengths() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0u32..64).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn the_texts_of_positions_sort_like_their_offsets(
            one in (any::<u64>(), any::<u16>(), lengths()),
            other in (any::<u64>(), any::<u16>(), lengths()),
            near in 0u64..2,
        ) {
            for other in [other, (other.0, one.1, one.2.saturating_add(near))] {
                let (one, other) = (position(one), position(other));
                prop_assert_eq!(one.to_string().parse(), Ok(one));
                prop_assert_eq!(one.stored_text().parse(), Ok(one));
                if one.offset != other.offset {
                    prop_assert_eq!(one.to_string().cmp(&other.to_string()), one.offset.cmp(&other.offset));
                }
            }
        }

        #[test]
        fn a_text_stands_for_at_most_one_position(text in "[0-9a-fA-F.-]{1,40}|[0-9a-f]{1,17}[.-][0-9a-f]{1,5}[.-][0-9a-f]{1,17}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(text.contains('.'), text == position.to_string());
                prop_assert!(!(text.contains('.') && text.contains('-')));
            }
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in
            ["", "-", "1-2", "1-2-3-4", "x-1-1", "1-10000-1", "+1-1-1", "1-1-11111111111111111", "1--1", " 1-1-1"]
                .into_iter()
                .chain([
                    "01.1",
                    "01.1.1.1",
                    "11.1.1",
                    "001.1.1",
                    "101.1.1",
                    "0A.1.1",
                    "01.10000.1",
                    "01.01.1",
                    "01.1-1",
                ])
                .chain([".1.1", "0.1.1", "f11111111111111111.1.1", "01..1", "0+.1.1"])
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
