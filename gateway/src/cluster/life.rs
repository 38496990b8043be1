//! The identity of a node in the cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One life of a node: from its start, or from when it read that it counts as gone, to its end.
///
/// As text it is `node.incarnation`: sixteen hexadecimal digits, a dot, and a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Life {
    /// A random number, which each process chooses at its start.
    pub(crate) node: u64,
    /// Counts the lives of this process, from 1.
    pub(crate) incarnation: u32,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.node, self.incarnation)
    }
}

/// A text that names no life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected sixteen hexadecimal digits, a dot and a number")]
pub(crate) struct InvalidLife;

impl FromStr for Life {
    type Err = InvalidLife;

    fn from_str(text: &str) -> Result<Self, InvalidLife> {
        let (node, incarnation) = text.split_once('.').ok_or(InvalidLife)?;
        let node = u64::from_str_radix(node, 16).map_err(|_| InvalidLife)?;
        let life = Self { node, incarnation: incarnation.parse().map_err(|_| InvalidLife)? };
        // Only one text stands for a life.
        if life.to_string() == text { Ok(life) } else { Err(InvalidLife) }
    }
}

impl Serialize for Life {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Life {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_reads_back_from_its_text_and_from_no_other() {
        let life = Life { node: 0xc5, incarnation: 7 };
        assert_eq!((life.to_string().as_str(), "00000000000000c5.7".parse()), ("00000000000000c5.7", Ok(life)));
        assert_eq!(serde_json::to_string(&life).ok().as_deref(), Some("\"00000000000000c5.7\""));
        assert_eq!(serde_json::from_str::<Life>("\"00000000000000c5.7\"").ok(), Some(life));
        for text in ["", "c5", "c5.7", "00000000000000C5.7", "00000000000000c5.07", "00000000000000c5.+7", "x.1"] {
            assert_eq!(text.parse::<Life>(), Err(InvalidLife), "{text}");
        }
    }
}
