//! Checks text that arrives in pieces, each byte once, as it arrives.
//!
//! Owns the text so far and up to 3 bytes of a character that was cut in two. Fails fast: a byte that cannot continue
//! valid UTF-8 is an error when it arrives, not at the end of the message (Autobahn 6.4.3, 6.4.4).

use super::Violation;

/// An incomplete text message.
#[derive(Debug, Default)]
pub(super) struct Text {
    valid: String,
    /// The first `carried` bytes are the beginning of a character, valid so far.
    carry: [u8; 4],
    carried: u8,
}

impl Text {
    /// Bytes pushed so far.
    pub(super) fn len(&self) -> usize {
        self.valid.len() + usize::from(self.carried)
    }

    /// Appends the next bytes of the message.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while self.carried > 0 {
            let Some((&next, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            self.carry[usize::from(self.carried)] = next;
            self.carried += 1;
            // A character is complete or illegal after 4 bytes at most, so `carry` never overflows.
            match str::from_utf8(&self.carry[..usize::from(self.carried)]) {
                Ok(character) => {
                    self.valid.push_str(character);
                    self.carried = 0;
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Violation::BadUtf8),
            }
        }
        match str::from_utf8(bytes) {
            Ok(text) => self.valid.push_str(text),
            // `error_len` is `None` only if the text ends inside a character.
            Err(error) if error.error_len().is_none() => {
                let (whole, cut) = bytes.split_at(error.valid_up_to());
                self.valid.push_str(str::from_utf8(whole).map_err(|_| Violation::BadUtf8)?);
                self.carry[..cut.len()].copy_from_slice(cut);
                self.carried = cut.len() as u8;
            }
            Err(_) => return Err(Violation::BadUtf8),
        }
        Ok(())
    }

    /// Ends the message, which must not end inside a character.
    pub(super) fn finish(self) -> Result<String, Violation> {
        if self.carried == 0 { Ok(self.valid) } else { Err(Violation::BadUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of bytes that are accepted one by one before the first error; `None` if all are valid.
    fn fails_at(bytes: &[u8]) -> Option<usize> {
        let mut text = Text::default();
        for (at, byte) in bytes.iter().enumerate() {
            if text.push(&[*byte]).is_err() {
                return Some(at);
            }
        }
        text.finish().is_err().then_some(bytes.len())
    }

    #[test]
    fn an_invalid_byte_is_found_as_it_arrives() {
        for (bytes, at) in [
            (&b"\xCE\xBA\xE1\xBD\xB9\xF4\x90\x80\x80"[..], 6), // Autobahn 6.4: beyond U+10FFFF, known by its 2nd byte
            (b"a\xED\xA0\x80", 2),                             // a surrogate
            (b"\xE0\x80\x80", 1),                              // overlong, 3 bytes
            (b"\xF0\x8F\xBF\xBF", 1),                          // overlong, 4 bytes
            (b"\xC0\x80", 0),
            (b"ab\x80", 2),
            (b"\xFF", 0),
            (b"\xF5\x80", 0),
            (b"\xE2\x82a", 2),
            (b"ab\xE2\x82", 4), // cut short: known at the end only
        ] {
            assert_eq!(fails_at(bytes), Some(at), "{bytes:x?}");
        }
    }

    #[test]
    fn every_character_survives_every_split() {
        for character in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let mut buffer = [0; 4];
            let bytes = character.encode_utf8(&mut buffer).as_bytes();
            for cut in 0..=bytes.len() {
                let mut text = Text::default();
                text.push(&bytes[..cut]).unwrap();
                assert_eq!(text.len(), cut, "the bytes of an incomplete character count");
                text.push(&bytes[cut..]).unwrap();
                assert_eq!(text.len(), bytes.len());
                assert_eq!(text.finish().unwrap().chars().next(), Some(character));
            }
        }
    }

    #[test]
    fn agrees_with_std_on_all_four_byte_strings_of_bytes_at_the_edges() {
        let interesting = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF,
            0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ];
        for a in interesting {
            for b in interesting {
                for c in interesting {
                    for d in interesting {
                        let bytes = [a, b, c, d];
                        let good = str::from_utf8(&bytes).is_ok();
                        assert_eq!(fails_at(&bytes).is_none(), good, "{bytes:x?}");
                    }
                }
            }
        }
    }
}
