//! Patterns for channel names, such as `chat:{room}` or `user:{sub}:*`.
//!
//! Pure. A name is split at `:` into segments. A pattern's segment is literal; or `{name}`, which matches any one segment
//! that is not empty; or `{sub}`, which matches the user's own name; or, at the end, `*`, which matches all segments that are
//! left, at least one.

use std::fmt;
use std::str::FromStr;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    segments: Box<[Segment]>,
    /// Whether all further segments match too.
    rest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    /// Any one segment, with the name that the pattern gives it.
    Any(Box<str>),
    /// The user's own name.
    User,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It has no characters.
    #[error("a pattern is not empty: \"*\" matches every channel")]
    Empty,
    /// A `*` that is not the last segment.
    #[error("`*` must be the last segment, alone: write \"chat:*\" for all channels whose names begin with \"chat:\"")]
    Star,
    /// A brace that is not part of `{name}`.
    #[error("a segment is either literal or `{{name}}`, without other characters around the braces: `{0}` is neither")]
    Brace(String),
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        let (fixed, rest) = match text.strip_suffix('*') {
            Some("") => return Ok(Self { segments: Box::default(), rest: true }),
            Some(before) => (before.strip_suffix(':').ok_or(InvalidPattern::Star)?, true),
            None => (text, false),
        };
        Ok(Self { segments: fixed.split(':').map(segment).collect::<Result<_, _>>()?, rest })
    }
}

fn segment(text: &str) -> Result<Segment, InvalidPattern> {
    if text.contains('*') {
        return Err(InvalidPattern::Star);
    }
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some("sub") => Ok(Segment::User),
        Some(name) if !name.is_empty() && !name.contains(['{', '}']) => Ok(Segment::Any(name.into())),
        None if !text.contains(['{', '}']) => Ok(Segment::Literal(text.into())),
        _ => Err(InvalidPattern::Brace(text.to_owned())),
    }
}

impl Pattern {
    /// Whether the pattern matches a channel's name. `user` is the client's user, if it has one.
    pub(crate) fn matches(&self, channel: &str, user: Option<&str>) -> bool {
        let mut left = channel.split(':');
        let fixed = self.segments.iter().all(|segment| match (segment, left.next()) {
            (_, None) => false,
            (Segment::Literal(literal), Some(found)) => **literal == *found,
            (Segment::Any(_), Some(found)) => !found.is_empty(),
            (Segment::User, Some(found)) => !found.is_empty() && user == Some(found),
        });
        fixed && left.next().is_some() == self.rest
    }
}

/// The pattern as it was written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut colon = "";
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "{colon}{literal}")?,
                Segment::Any(name) => write!(f, "{colon}{{{name}}}")?,
                Segment::User => write!(f, "{colon}{{sub}}")?,
            }
            colon = ":";
        }
        if self.rest { write!(f, "{colon}*") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_segments() {
        for (pattern, channel, expected) in [
            ("news", "news", true),
            ("news", "new", false),
            ("news", "news:a", false),
            ("*", "news", true),
            ("*", "news:a:b", true),
            ("chat:*", "chat:a", true),
            ("chat:*", "chat:a:b", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chat", false),
            ("chat:*", "chatter:a", false),
            ("chat:{room}", "chat:a", true),
            ("chat:{room}", "chat:", false),
            ("chat:{room}", "chat:a:b", false),
            ("{tenant}:news", "acme:news", true),
            ("{tenant}:news", ":news", false),
            ("user:{sub}", "user:ann", true),
            ("user:{sub}", "user:bob", false),
            ("user:{sub}", "user:", false),
            ("user:{sub}:*", "user:ann:inbox", true),
            ("user:{sub}:*", "user:bob:inbox", false),
        ] {
            let parsed: Pattern = pattern.parse().expect(pattern);
            assert_eq!(parsed.matches(channel, Some("ann")), expected, "{pattern} {channel}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn a_user_name_cannot_reach_beyond_its_segment() {
        let own: Pattern = "user:{sub}".parse().expect("a pattern");
        for (user, channel) in [(None, "user:"), (Some(""), "user:"), (Some("ann:x"), "user:ann:x"), (None, "user:{sub}")] {
            assert!(!own.matches(channel, user), "{user:?} {channel}");
        }
    }

    #[test]
    fn what_cannot_be_a_pattern_is_refused() {
        for text in ["", "news*", "a:*:b", "**", "*:a", "a:{", "a:}b", "{}", "x{name}", "{name}x", "{a}{b}", "a:b*"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
