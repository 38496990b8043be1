//! What a message may carry beside its channel and its content: short texts, each under a tag.
//!
//! Kept as they are stored, `tag (1) | length (2) | text`, with rising tags, so that reading them copies nothing. A
//! message without extensions costs one pointer here and no byte in the log. A reader ignores tags that it does not know.

use bytes::{BufMut, Bytes, BytesMut};

use super::envelope::Unreadable;

/// The largest list of extensions, in bytes: its length is stored in two.
const MOST: usize = u16::MAX as usize;
/// Bytes of a tag and of the length of its text.
const HEAD: usize = 3;

/// The tag of an extension, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Extension {
    /// The user who published the message.
    User = 1,
    /// The client that published the message.
    Client = 2,
    /// The client that does not receive the message.
    Excluded = 3,
    /// The trace that the message belongs to, as W3C's header `traceparent` writes it.
    TraceParent = 4,
}

impl Extension {
    /// All tags that this release knows, in the order in which they are stored.
    pub const ALL: [Self; 4] = [Self::User, Self::Client, Self::Excluded, Self::TraceParent];
}

/// The extensions are longer than a record can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the extensions of one message take at most 65,535 bytes, with 3 for each of them")]
pub struct ExtensionsTooLong;

/// The extensions of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions(Option<Box<Bytes>>);

impl Extensions {
    /// Adds an extension, in place of the one that has the same tag.
    ///
    /// # Errors
    /// If all extensions together are too long to be stored.
    pub fn with(&self, tag: Extension, text: &str) -> Result<Self, ExtensionsTooLong> {
        let mut list: Vec<_> = self.iter().filter(|(other, _)| *other != tag as u8).collect();
        list.push((tag as u8, text.as_bytes()));
        list.sort_unstable_by_key(|(tag, _)| *tag);
        let bytes = list.iter().map(|(_, text)| HEAD + text.len()).sum();
        if bytes > MOST {
            return Err(ExtensionsTooLong);
        }
        let mut out = BytesMut::with_capacity(bytes);
        for (tag, text) in list {
            out.put_u8(tag);
            out.put_u16(u16::try_from(text.len()).map_err(|_| ExtensionsTooLong)?);
            out.put_slice(text);
        }
        Ok(Self(Some(Box::new(out.freeze()))))
    }

    /// The text under a tag.
    #[must_use]
    pub fn get(&self, tag: Extension) -> Option<&str> {
        let (_, text) = self.iter().find(|(other, _)| *other == tag as u8)?;
        std::str::from_utf8(text).ok()
    }

    /// Bytes that the list takes in the log, without its length.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes().len()
    }

    /// The list as it is stored.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_deref().map(Bytes::as_ref).unwrap_or_default()
    }

    /// Reads a list that fills `list`; allocates only if there is an extension.
    pub(super) fn read(list: Bytes) -> Result<Self, Unreadable> {
        let (mut rest, mut last) = (&list[..], None);
        while !rest.is_empty() {
            let (tag, text, after) = split(rest).ok_or(Unreadable::Malformed)?;
            // A tag comes once at most, so that all readers find the same text under it.
            if last.is_some_and(|last| tag <= last) {
                return Err(Unreadable::Malformed);
            }
            if Extension::ALL.iter().any(|known| *known as u8 == tag) && std::str::from_utf8(text).is_err() {
                return Err(Unreadable::Encoding);
            }
            (rest, last) = (after, Some(tag));
        }
        Ok(Self((!list.is_empty()).then(|| Box::new(list))))
    }

    fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.bytes();
        std::iter::from_fn(move || {
            let (tag, text, after) = split(rest)?;
            rest = after;
            Some((tag, text))
        })
    }
}

/// The tag and the text of the first extension of a list, and the rest of the list.
fn split(list: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, high, low], rest) = list.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some((tag, text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &'static [u8]) -> Result<Extensions, Unreadable> {
        Extensions::read(Bytes::from_static(list))
    }

    #[test]
    fn extensions_read_back_as_they_were_written_in_any_order() {
        let texts = ["user", "", "ü", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"];
        let mut written = Extensions::default();
        for (tag, text) in Extension::ALL.into_iter().zip(texts).rev() {
            written = written.with(tag, "replaced").and_then(|list| list.with(tag, text)).expect("short enough");
        }
        let again = Extensions::read(Bytes::copy_from_slice(written.bytes())).expect("well-formed");
        assert_eq!((&again, again.size()), (&written, 4 * HEAD + texts.iter().map(|text| text.len()).sum::<usize>()));
        assert!(Extension::ALL.into_iter().zip(texts).all(|(tag, text)| again.get(tag) == Some(text)));
    }

    #[test]
    fn no_extensions_cost_one_pointer_and_no_byte() {
        assert_eq!(size_of::<Extensions>(), size_of::<usize>());
        assert_eq!((Extensions::default().size(), read(b"")), (0, Ok(Extensions::default())));
        assert_eq!(Extensions::default().get(Extension::User), None);
    }

    #[test]
    fn unknown_tags_are_ignored_and_malformed_lists_are_refused() {
        let list = read(b"\x01\0\x01a\x04\0\0\xff\0\x01\xff").expect("tag 255 is of a newer release");
        assert_eq!((list.get(Extension::User), list.get(Extension::TraceParent)), (Some("a"), Some("")));
        for wrong in [&b"\x01"[..], b"\x01\0", b"\x01\0\x01", b"\x01\0\0\x02", b"\x02\0\0\x01\0\0", b"\x01\0\0\x01\0\0"]
        {
            assert_eq!(read(wrong), Err(Unreadable::Malformed), "{wrong:?}");
        }
        assert_eq!(read(b"\x01\0\x01\xff"), Err(Unreadable::Encoding));
    }

    #[test]
    fn extensions_that_a_record_cannot_hold_are_refused() {
        let most = "x".repeat(MOST - HEAD);
        let list = Extensions::default().with(Extension::User, &most).expect("just short enough");
        assert_eq!((list.size(), list.with(Extension::Client, "")), (MOST, Err(ExtensionsTooLong)));
        assert_eq!(Extensions::default().with(Extension::User, &(most + "x")), Err(ExtensionsTooLong));
    }
}
