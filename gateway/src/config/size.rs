//! Sizes in bytes, as text with a unit or as a plain number.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size in bytes, written "512B", "64KiB", "1MiB", "2GiB" or as a plain number of bytes. Read, it is never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(usize);

impl ByteSize {
    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// So many times 1,024 bytes.
    #[must_use]
    pub const fn kib(count: usize) -> Self {
        Self(count << 10)
    }

    /// So many times 1,048,576 bytes.
    #[must_use]
    pub const fn mib(count: usize) -> Self {
        Self(count << 20)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

/// Text that is no size; it says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No number at the start.
    #[error("expected {EXPECTED}")]
    Malformed,
    /// A number, and then something else.
    #[error("expected a whole number and one of the units B, KiB, MiB, GiB")]
    Unit,
    /// Zero, or more than the machine can address.
    #[error("expected at least \"1B\", and no more than the machine can address")]
    Range,
}

const EXPECTED: &str = "a size such as \"512B\", \"64KiB\" or \"1MiB\"";

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        if number.is_empty() {
            return Err(SizeError::Malformed);
        }
        let bytes = match unit.trim() {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or(SizeError::Unit)?.1,
        };
        let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(bytes)).ok_or(SizeError::Range)?;
        Self::try_from(size)
    }
}

impl TryFrom<u64> for ByteSize {
    type Error = SizeError;

    fn try_from(bytes: u64) -> Result<Self, SizeError> {
        usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).map(Self).ok_or(SizeError::Range)
    }
}

/// With the largest unit that divides it.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0 as u64;
        let fits = |(_, bytes): &&(&str, u64)| size >= *bytes && size.is_multiple_of(*bytes);
        let (unit, bytes) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", size / bytes)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber)
    }
}

/// Reads a size of at most `MAX` bytes.
pub(super) fn at_most<'de, D: Deserializer<'de>, const MAX: u64>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    match ByteSize::try_from(MAX) {
        Ok(max) if size > max => Err(de::Error::custom(format_args!("expected at most \"{max}\""))),
        _ => Ok(size),
    }
}

struct TextOrNumber;

impl de::Visitor<'_> for TextOrNumber {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
        ByteSize::try_from(number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
        let number = u64::try_from(number).map_err(|_| E::custom(SizeError::Range))?;
        self.visit_u64(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_reads_and_prints_with_its_largest_unit() {
        for (text, bytes, printed) in [
            ("1", 1, "1B"),
            ("512B", 512, "512B"),
            ("1024", 1_024, "1KiB"),
            ("64KiB", 65_536, "64KiB"),
            ("64 KiB", 65_536, "64KiB"),
            ("65537", 65_537, "65537B"),
            ("1536KiB", 1_572_864, "1536KiB"),
            ("1MiB", 1_048_576, "1MiB"),
            ("2GiB", 2_147_483_648, "2GiB"),
        ] {
            let size = ByteSize::new(bytes);
            assert_eq!(text.parse(), Ok(size), "{text}");
            assert_eq!(size.to_string(), printed);
        }
        assert_eq!(ByteSize::new(0).to_string(), "0B");
    }

    #[test]
    fn text_that_is_no_size_gets_a_message_for_its_mistake() {
        for (text, error) in [
            ("", SizeError::Malformed),
            ("KiB", SizeError::Malformed),
            ("-1", SizeError::Malformed),
            ("64KB", SizeError::Unit),
            ("64k", SizeError::Unit),
            ("1.5MiB", SizeError::Unit),
            ("0", SizeError::Range),
            ("0MiB", SizeError::Range),
            ("99999999999999999999", SizeError::Range),
            ("18446744073709551615GiB", SizeError::Range),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(error), "{text}");
        }
    }
}
