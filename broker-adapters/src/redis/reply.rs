//! Replies of Redis's protocol (RESP2), read where they stand: no value is copied, and no tree of values is built. Pure.
//!
//! The shapes are those of "Redis serialization protocol specification". The server is not trusted: what is not RESP2 is
//! [`Malformed`].

/// The longest status or error, in bytes.
const LINE: usize = 64 << 10;
/// The longest number, in bytes.
const NUMBER: usize = 20;
/// The most bytes of a string, and the most values of an array: more than Redis itself allows.
const MOST: usize = 1 << 30;

/// Not a reply of a Redis.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the answers of a Redis")]
pub(super) struct Malformed;

/// The beginning of a value; `None` is a value that is not there.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// A status, an error or a number: nothing follows.
    Line,
    /// Bytes follow, and a line's end.
    Bulk(Option<usize>),
    /// Values follow.
    Array(Option<usize>),
}

/// The head at the beginning of `bytes` and its length; `None` if it has not arrived as a whole.
fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let most = match kind {
        b'+' | b'-' => LINE,
        b':' | b'$' | b'*' => NUMBER,
        _ => return Err(Malformed),
    };
    let Some(end) = rest.iter().take(most + 1).position(|&byte| byte == b'\r') else {
        return if rest.len() > most { Err(Malformed) } else { Ok(None) };
    };
    match rest.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(Malformed),
    }
    let head = match kind {
        b'$' => Head::Bulk(length(&rest[..end])?),
        b'*' => Head::Array(length(&rest[..end])?),
        _ => Head::Line,
    };
    Ok(Some((head, 1 + end + 2)))
}

/// A length as it is written; -1 stands for a value that is not there.
fn length(digits: &[u8]) -> Result<Option<usize>, Malformed> {
    if digits == b"-1" {
        return Ok(None);
    }
    let length = number(digits).and_then(|number| usize::try_from(number).ok());
    length.filter(|length| *length <= MOST).map(Some).ok_or(Malformed)
}

/// A number of nothing but digits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Finds the end of a reply while its bytes arrive.
#[derive(Debug)]
pub(super) struct Extent {
    /// What was looked at.
    at: usize,
    /// Values still to come.
    open: u64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { at: 0, open: 1 }
    }
}

impl Extent {
    /// The length of the reply, once it is there as a whole. `bytes` begin with it, and only grow from call to call.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        while self.open > 0 {
            // The content of a string may still be on its way.
            let Some(rest) = bytes.get(self.at..) else { return Ok(None) };
            let Some((head, length)) = head(rest)? else { return Ok(None) };
            self.at += length;
            match head {
                Head::Bulk(Some(content)) => self.at += content + 2,
                Head::Array(Some(values)) => self.open += values as u64,
                Head::Line | Head::Bulk(None) | Head::Array(None) => {}
            }
            self.open -= 1;
        }
        Ok((self.at <= bytes.len()).then_some(self.at))
    }
}

/// The values of a reply that has arrived as a whole, in their order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    pub(super) fn of(reply: &'a [u8]) -> Self {
        Self(reply)
    }

    /// The number of values in the array that comes next, which come after it; `None` within for an array, or a string, that
    /// is not there. `None` if something else comes next.
    pub(super) fn array(&mut self) -> Option<Option<usize>> {
        match self.head()? {
            Head::Array(values) => Some(values),
            Head::Bulk(None) => Some(None),
            Head::Bulk(Some(_)) | Head::Line => None,
        }
    }

    /// The string that comes next; `None` if something else does.
    pub(super) fn bulk(&mut self) -> Option<&'a [u8]> {
        let Head::Bulk(Some(length)) = self.head()? else { return None };
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest.strip_prefix(b"\r\n")?;
        Some(content)
    }

    /// Passes over the value that comes next, and all that it holds.
    pub(super) fn skip(&mut self) -> Option<()> {
        let end = Extent::default().find(self.0).ok()??;
        self.0 = self.0.get(end..)?;
        Some(())
    }

    fn head(&mut self) -> Option<Head> {
        let (head, length) = head(self.0).ok()??;
        self.0 = self.0.get(length..)?;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;

    /// A value as a server writes it.
    fn written(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Nil => out.extend(b"$-1\r\n"),
            Value::Int(number) => out.extend(format!(":{number}\r\n").bytes()),
            Value::SimpleString(text) => out.extend(format!("+{text}\r\n").bytes()),
            Value::BulkString(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Value::Array(values) => {
                out.extend(format!("*{}\r\n", values.len()).bytes());
                values.iter().for_each(|value| written(value, out));
            }
            other => panic!("{other:?} is not RESP2"),
        }
    }

    fn reply(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        written(value, &mut out);
        out
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            "[a-z ]{0,9}".prop_map(Value::SimpleString),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::BulkString),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| proptest::collection::vec(inner, 0..6).prop_map(Value::Array))
    }

    /// The value as the reader's functions give it.
    fn read(values: &mut Values<'_>) -> Option<Value> {
        let mut ahead = *values;
        if let Some(bytes) = ahead.bulk() {
            *values = ahead;
            return Some(Value::BulkString(bytes.to_vec()));
        }
        ahead = *values;
        if let Some(count) = ahead.array() {
            *values = ahead;
            return match count {
                Some(count) => (0..count).map(|_| read(values)).collect::<Option<_>>().map(Value::Array),
                None => Some(Value::Nil),
            };
        }
        let line = values.0;
        values.skip()?;
        redis::parse_redis_value(&line[..line.len() - values.0.len()]).ok()
    }

    proptest! {
        #[test]
        fn a_reply_ends_where_it_does_however_its_bytes_arrive(
            value in any_value(), cuts in proptest::collection::vec(0usize..400, 0..6)
        ) {
            let mut bytes = reply(&value);
            let whole = bytes.len();
            bytes.extend(b"+more\r\n");
            let mut extent = Extent::default();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut < whole).collect();
            cuts.sort_unstable();
            for cut in cuts {
                prop_assert_eq!(extent.find(&bytes[..cut]), Ok(None));
            }
            prop_assert_eq!(extent.find(&bytes), Ok(Some(whole)));
            prop_assert_eq!(read(&mut Values::of(&bytes)), Some(value));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'),
            Just(b'\n'), Just(b'-'), b'0'..=b'9', any::<u8>()], 0..200)
        ) {
            let _ = Extent::default().find(&bytes);
            let _ = Values::of(&bytes).bulk();
            let mut values = Values::of(&bytes);
            while values.array().is_some() || values.skip().is_some() {}
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_refused_at_its_first_byte_that_shows_it() {
        for wrong in
            ["HTTP/1.1 400", "$x\r\n", "$-2\r\n", "*99999999999\r\n", "$1\rx", ":123456789012345678901234", "_\r\n"]
        {
            assert_eq!(Extent::default().find(wrong.as_bytes()), Err(Malformed), "{wrong}");
        }
        for part in ["", "$", "$1", "$1\r", "$5\r\nab", "*2\r\n+a\r\n", "-ERR"] {
            assert_eq!(Extent::default().find(part.as_bytes()), Ok(None), "{part}");
        }
        let endless = [b"+".as_slice(), &vec![b'a'; LINE + 1]].concat();
        assert_eq!(Extent::default().find(&endless), Err(Malformed));
    }
}
