//! Values of HTTP header fields: lists on one line or on several, tokens, and a safe form for logs and responses.
//!
//! Pure. Works on bytes: a value that is not ASCII must not hide the other elements.

use std::fmt;

use axum::http::HeaderMap;

/// Bytes of a client's value to show, at most.
const SHOWN: usize = 200;

/// The elements of a list field on all its lines (RFC 9110 §5.6.1). Skips empty elements. A comma in a quoted string does not
/// separate elements.
pub(crate) fn elements<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(name).into_iter().flat_map(|line| {
        let (mut quoted, mut escaped) = (false, false);
        let separates = move |byte: &u8| {
            let literal = std::mem::take(&mut escaped);
            match byte {
                _ if literal => false,
                b'\\' if quoted => {
                    escaped = true;
                    false
                }
                b'"' => {
                    quoted = !quoted;
                    false
                }
                byte => *byte == b',' && !quoted,
            }
        };
        line.as_bytes().split(separates).map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    })
}

/// Whether a list field contains this token, ignoring case.
pub(crate) fn lists(headers: &HeaderMap, name: &str, token: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether the whole text is a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// A client's value in a form that is safe in logs and responses: printable ASCII, cut to a maximum length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown(String);

impl Shown {
    pub(crate) fn of(value: &[u8]) -> Self {
        Self::at_most(value, SHOWN)
    }

    pub(crate) fn at_most(value: &[u8], most: usize) -> Self {
        let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' };
        let mut text: String = value.iter().take(most).map(printable).collect();
        if value.len() > most {
            text.push_str("...");
        }
        Self(text)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x", HeaderValue::from_bytes(line.as_bytes()).expect("a header's value"));
        }
        headers
    }

    #[test]
    fn a_list_may_span_several_lines() {
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&[", ,\t,"], &[]),
            (&["a"], &["a"]),
            (&["a,b"], &["a", "b"]),
            (&[" a\t,,\t b ,"], &["a", "b"]),
            (&["a", "", "b, c"], &["a", "b", "c"]),
            (&["a b, c"], &["a b", "c"]),
            (&["a=\"b, c\", d"], &["a=\"b, c\"", "d"]),
            (&["a=\"b\\\", c\", d"], &["a=\"b\\\", c\"", "d"]),
            (&["a\\, b"], &["a\\", "b"]),             // a backslash escapes only in quotes
            (&["a=\"b, c", "d"], &["a=\"b, c", "d"]), // a quoted string ends with its line
            (&["é, a"], &["é", "a"]),
        ] {
            let headers = headers(lines);
            let found: Vec<_> = elements(&headers, "x").map(String::from_utf8_lossy).collect();
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_token_matches_in_any_case_and_only_as_a_whole() {
        for (lines, expected) in [
            (&["upgrade"][..], true),
            (&["UPGRADE"], true),
            (&["keep-alive, Upgrade"], true),
            (&["keep-alive", "upgrade"], true),
            (&["é, upgrade"], true),
            (&["upgraded"], false),
            (&["not upgrade"], false),
            (&["upgrade;q=1"], false),
            (&["\"upgrade\""], false),
            (&["x=\"a, upgrade ,b\""], false),
            (&[], false),
        ] {
            assert_eq!(lists(&headers(lines), "x", "upgrade"), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_token_has_no_separators() {
        for (text, expected) in
            [("fanfare.v1", true), ("!#$%&'*+-.^_`|~", true), ("", false), ("a b", false), ("a/b", false), ("é", false)]
        {
            assert_eq!(is_token(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_shown_value_is_printable_and_short() {
        assert_eq!(Shown::of(b"https://a.example").to_string(), "https://a.example");
        assert_eq!(Shown::of(b"a\x1b[31m\r\n\xe9\x7f").to_string(), "a?[31m????");
        assert_eq!(Shown::at_most(b"abcdef", 3).to_string(), "abc...");
        assert_eq!(Shown::of(&[b'x'; 1 << 20]).to_string().len(), SHOWN + 3);
    }
}
