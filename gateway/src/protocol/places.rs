//! Where a client stands in each of its channels, as one short text: the id of an event, from which it resumes.
//!
//! Pure. The text is at most 2 KiB for [`MOST_CHANNELS`], and belongs to one list of channels in its order.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker_adapters::{Check, Offset, Partition, Position};

/// The most channels of one client.
pub(crate) const MOST_CHANNELS: usize = 64;

/// The longest text that is read, in bytes.
const TEXT: usize = 4 << 10;

/// The first byte of the compact form, which no position begins with.
const COMPACT: char = '~';

/// A client's channels and its position in each; `None` if it has none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    channels: Box<[(Box<str>, Option<Position>)]>,
    /// That a text belongs to these channels in this order.
    check: u32,
}

/// Why a text is not an id of these channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidId {
    #[error(
        "not an id: send the last `id` that the server sent, unchanged, or a position for each channel, separated by commas"
    )]
    Form,
    #[error(
        "the id is of other channels: send it with the channels that it came with, in their order, or without an id"
    )]
    Channels,
}

impl Places {
    /// No position in any channel.
    pub(crate) fn new<'a>(channels: impl IntoIterator<Item = &'a str>) -> Self {
        let channels: Box<[_]> = channels.into_iter().map(|name| (name.into(), None)).collect();
        // FNV-1a (32 bit). A line's end is in no channel's name.
        let bytes = channels.iter().flat_map(|(name, _): &(Box<str>, _)| name.bytes().chain([b'\n']));
        let check = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self { channels, check }
    }

    /// Takes the positions of a text that a client sent: of one event's id, or of a list. An element of the list may be
    /// empty. `partition_of` gives the partition of a channel.
    pub(crate) fn read(&mut self, text: &str, partition_of: impl Fn(&str) -> Partition) -> Result<(), InvalidId> {
        if text.len() > TEXT {
            return Err(InvalidId::Form);
        }
        let positions = match text.strip_prefix(COMPACT) {
            Some(compact) => self.compact(compact, &partition_of)?,
            None => {
                let position = |text: &str| (!text.is_empty()).then(|| text.parse()).transpose();
                text.split(',').map(position).collect::<Result<_, _>>().map_err(|_| InvalidId::Form)?
            }
        };
        if positions.len() != self.channels.len() {
            return Err(InvalidId::Channels);
        }
        for ((name, _), at) in self.channels.iter().zip(&positions) {
            if at.is_some_and(|at| at.partition != partition_of(name)) {
                return Err(InvalidId::Channels);
            }
        }
        for ((_, place), at) in self.channels.iter_mut().zip(positions) {
            *place = at;
        }
        Ok(())
    }

    fn compact(
        &self,
        text: &str,
        partition_of: impl Fn(&str) -> Partition,
    ) -> Result<Vec<Option<Position>>, InvalidId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidId::Form)?;
        let (check, mut rest) = bytes.split_first_chunk().ok_or(InvalidId::Form)?;
        if u32::from_be_bytes(*check) != self.check {
            return Err(InvalidId::Channels);
        }
        let mut positions = Vec::with_capacity(self.channels.len());
        for (name, _) in &self.channels {
            let number = take_number(&mut rest).ok_or(InvalidId::Form)?;
            positions.push(match number.checked_sub(1) {
                None => None,
                Some(offset) => {
                    let (check, after) = rest.split_first_chunk().ok_or(InvalidId::Form)?;
                    rest = after;
                    let check = Check(u64::from_be_bytes(*check));
                    Some(Position { partition: partition_of(name), offset: Offset(offset), check })
                }
            });
        }
        if rest.is_empty() { Ok(positions) } else { Err(InvalidId::Form) }
    }

    /// The channels, and the position in each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Option<Position>)> {
        self.channels.iter().map(|(name, at)| (&**name, *at))
    }

    /// Notes that a client has been sent everything of a channel up to a position.
    pub(crate) fn reached(&mut self, channel: &str, at: Position) {
        if let Some((_, place)) = self.channels.iter_mut().find(|(name, _)| **name == *channel) {
            *place = Some(at);
        }
    }

    /// The compact form: the check of the channels, then for each its offset plus one in as few bytes as it needs, and
    /// the fingerprint; 0 if there is no position. The partition follows from the channel's name.
    pub(crate) fn id(&self) -> String {
        let mut bytes = Vec::with_capacity(4 + self.channels.len() * 14);
        bytes.extend_from_slice(&self.check.to_be_bytes());
        for (_, at) in &self.channels {
            match at {
                None => bytes.push(0),
                Some(at) => {
                    put_number(&mut bytes, at.offset.0.saturating_add(1));
                    bytes.extend_from_slice(&at.check.0.to_be_bytes());
                }
            }
        }
        let mut id = String::from(COMPACT);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut id);
        id
    }
}

/// Writes a number in groups of seven bits, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for group in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        number |= bits.checked_shl(group * 7).filter(|shifted| shifted >> (group * 7) == bits)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use broker_adapters::partition_of;
    use proptest::prelude::*;

    use super::*;

    fn partition(name: &str) -> Partition {
        partition_of(name, 16)
    }

    fn at(name: &str, offset: u64, check: u64) -> Position {
        Position { partition: partition(name), offset: Offset(offset), check: Check(check) }
    }

    #[test]
    fn an_id_of_the_most_channels_with_the_greatest_positions_is_at_most_2_kib() {
        let names: Vec<_> = (0..MOST_CHANNELS).map(|number| format!("{number}-{}", "x".repeat(240))).collect();
        let mut places = Places::new(names.iter().map(String::as_str));
        for name in &names {
            places.reached(name, at(name, u64::MAX - 1, u64::MAX));
        }
        let id = places.id();
        assert!(id.len() <= 2048, "{}", id.len());
        let mut read = Places::new(names.iter().map(String::as_str));
        assert_eq!((read.read(&id, partition), &read), (Ok(()), &places));
    }

    #[test]
    fn positions_may_come_as_a_list_in_the_order_of_the_channels() {
        let (a, b) = (at("a", 5, 6), at("b", 7, 8));
        let mut places = Places::new(["a", "b"]);
        assert_eq!(places.read(&format!("{a},{b}"), partition), Ok(()));
        assert_eq!(places.iter().collect::<Vec<_>>(), [("a", Some(a)), ("b", Some(b))]);
        assert_eq!(places.read(&format!(",{b}"), partition), Ok(()));
        assert_eq!(places.iter().collect::<Vec<_>>(), [("a", None), ("b", Some(b))]);
        assert_eq!(places.read(&format!("{b},{a}"), partition), Err(InvalidId::Channels));
        assert_eq!(places.read(&a.to_string(), partition), Err(InvalidId::Channels));
        assert_eq!(Places::new(["a"]).read(&a.to_string(), partition), Ok(()));
    }

    #[test]
    fn an_id_is_refused_with_other_channels_or_in_another_order() {
        let id = Places::new(["a", "b"]).id();
        for other in [&["b", "a"][..], &["a"], &["a", "b", "c"], &["ab"], &["a", "c"]] {
            assert_eq!(Places::new(other.iter().copied()).read(&id, partition), Err(InvalidId::Channels), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused_and_changes_nothing() {
        let mut places = Places::new(["a", "b"]);
        places.reached("a", at("a", 1, 2));
        let before = places.clone();
        let id = places.id();
        for text in ["~", "~AAAA", "x", ",", "1,2", "~!", &id[..id.len() - 3], &format!("{id}AAAA"), &"1".repeat(5000)]
        {
            let error = places.read(text, partition);
            assert!(error.is_err() || text == ",", "{text:?}");
            if text != "," {
                assert_eq!(places, before, "{text:?}");
            } else {
                places = before.clone();
            }
        }
    }

    proptest! {
        #[test]
        fn an_id_gives_back_the_places_it_was_made_of(
            places in proptest::collection::vec(("[a-z:]{1,8}", proptest::option::of((0..u64::MAX, any::<u64>()))), 1..8)
        ) {
            let places: std::collections::BTreeMap<_, _> = places.into_iter().collect();
            let mut one = Places::new(places.keys().map(String::as_str));
            for (name, place) in &places {
                if let Some((offset, check)) = place {
                    one.reached(name, at(name, *offset, *check));
                }
            }
            let mut other = Places::new(places.keys().map(String::as_str));
            prop_assert_eq!(other.read(&one.id(), partition), Ok(()));
            prop_assert_eq!(other, one);
        }

        #[test]
        fn no_text_makes_it_panic(text in "~?[A-Za-z0-9_,.-]{0,60}") {
            let _ = Places::new(["a", "b"]).read(&text, partition);
        }
    }
}
