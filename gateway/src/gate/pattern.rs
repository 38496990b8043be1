//! Patterns for channel names, such as `chat:{room}` or `user:{sub}:*`.
//!
//! Pure. A name is split at `:` into segments. A pattern's segment is literal; or `{name}`, which matches any one segment
//! that is not empty; or `{sub}`, which matches the user's own name; or, at the end, `*`, which matches all segments that are
//! left, at least one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most segments of a pattern before its `*`.
const MOST: usize = 16;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    segments: Box<[Segment]>,
    /// Whether all further segments match too.
    rest: bool,
    /// The last literal segment's place and [`key`], for a quick no: of many patterns, all but one usually differ in it.
    hint: Option<(u8, u64)>,
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
    /// Too many segments.
    #[error("a pattern has at most {MOST} segments between its colons: write `*` for those after them")]
    Long,
}

/// A channel's name, split once for all patterns that it is compared with.
#[derive(Debug)]
pub(crate) struct Name<'a> {
    text: &'a [u8],
    /// Where the first segments end.
    ends: [usize; MOST],
    /// Their [`key`]s.
    keys: [u64; MOST],
    /// The number of segments, also of those without an end in `ends`.
    count: usize,
}

impl<'a> Name<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut name = Self { text: text.as_bytes(), ends: [0; MOST], keys: [0; MOST], count: 0 };
        let mut begin = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte == b':' {
                name.add(begin, at);
                begin = at + 1;
            }
        }
        name.add(begin, text.len());
        name
    }

    fn add(&mut self, begin: usize, end: usize) {
        if self.count < MOST {
            self.ends[self.count] = end;
            self.keys[self.count] = key(&self.text[begin..end]);
        }
        self.count += 1;
    }

    /// The segments in order, of which there are at least as many as a pattern can have.
    fn segments(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut begin = 0;
        self.ends.iter().take(self.count).map(move |&end| {
            let segment = &self.text[begin..end];
            begin = end + 1;
            segment
        })
    }
}

/// A number that is equal for equal segments, and rarely for different ones: made of the first and the last eight bytes.
fn key(segment: &[u8]) -> u64 {
    let long = segment.first_chunk().zip(segment.last_chunk());
    let bytes = match long {
        Some((first, last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        None => segment.iter().fold(0, |key, &byte| key << 8 | u64::from(byte)),
    };
    bytes ^ (segment.len() as u64) << 56
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        let (fixed, rest) = match text.strip_suffix('*') {
            Some("") => return Ok(Self { segments: Box::default(), rest: true, hint: None }),
            Some(before) => (before.strip_suffix(':').ok_or(InvalidPattern::Star)?, true),
            None => (text, false),
        };
        let segments = fixed.split(':').map(segment).collect::<Result<Box<[_]>, _>>()?;
        if segments.len() > MOST {
            return Err(InvalidPattern::Long);
        }
        let literals = (0..).zip(&segments).filter_map(|(at, segment)| match segment {
            Segment::Literal(literal) => Some((at, key(literal.as_bytes()))),
            Segment::Any(_) | Segment::User => None,
        });
        let hint = literals.last();
        Ok(Self { segments, rest, hint })
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
    #[inline]
    pub(crate) fn matches(&self, name: &Name<'_>, user: Option<&str>) -> bool {
        self.may_match(name) && self.matches_each(name, user)
    }

    /// A quick look, inlined into loops over many patterns.
    #[inline]
    fn may_match(&self, name: &Name<'_>) -> bool {
        let fixed = self.segments.len();
        let long_enough = if self.rest { name.count > fixed } else { name.count == fixed };
        long_enough && self.hint.is_none_or(|(at, key)| name.keys[usize::from(at)] == key)
    }

    fn matches_each(&self, name: &Name<'_>, user: Option<&str>) -> bool {
        self.segments.iter().zip(name.segments()).all(|(segment, found)| match segment {
            Segment::Literal(literal) => literal.as_bytes() == found,
            Segment::Any(_) => !found.is_empty(),
            Segment::User => !found.is_empty() && user.is_some_and(|user| user.as_bytes() == found),
        })
    }

    /// Whether this pattern surely matches all names that the other one matches, for every user.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let (mine, its) = (self.segments.len(), other.segments.len());
        let as_long = match (self.rest, other.rest) {
            (false, rest) => !rest && mine == its,
            (true, false) => mine < its,
            (true, true) => mine <= its,
        };
        as_long
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Any(_), Segment::Literal(literal)) => !literal.is_empty(),
                (Segment::Any(_), Segment::Any(_) | Segment::User) => true,
                (mine, its) => mine == its,
            })
    }

    /// A name that the pattern matches for some user; no such name is shorter.
    pub(crate) fn shortest(&self) -> String {
        let fixed = self.segments.iter().map(|segment| match segment {
            Segment::Literal(literal) => literal,
            Segment::Any(_) | Segment::User => "x",
        });
        let rest = if self.segments.is_empty() { "x" } else { "" };
        fixed.chain(self.rest.then_some(rest)).collect::<Vec<_>>().join(":")
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

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = Pattern;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pattern such as \"chat:{room}\" or \"chat:*\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Pattern, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

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
            assert_eq!(parsed.matches(&Name::new(channel), Some("ann")), expected, "{pattern} {channel}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn a_user_name_cannot_reach_beyond_its_segment() {
        let own: Pattern = "user:{sub}".parse().expect("a pattern");
        for (user, channel) in
            [(None, "user:"), (Some(""), "user:"), (Some("ann:x"), "user:ann:x"), (None, "user:{sub}")]
        {
            assert!(!own.matches(&Name::new(channel), user), "{user:?} {channel}");
        }
    }

    #[test]
    fn what_cannot_be_a_pattern_is_refused() {
        for text in ["", "news*", "a:*:b", "**", "*:a", "a:{", "a:}b", "{}", "x{name}", "{name}x", "{a}{b}", "a:b*"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn segments_that_differ_in_any_byte_do_not_match() {
        for length in [1, 7, 8, 9, 15, 16, 40] {
            let word = "x".repeat(length);
            let pattern: Pattern = format!("a:{word}").parse().expect("a pattern");
            assert!(pattern.matches(&Name::new(&format!("a:{word}")), None));
            for at in 0..length {
                let mut other = word.clone();
                other.replace_range(at..=at, "y");
                assert!(!pattern.matches(&Name::new(&format!("a:{other}")), None), "{other}");
            }
        }
    }

    #[test]
    fn names_may_have_more_segments_than_patterns() {
        let (long, longer) = (["a"; MOST].join(":"), ["a"; MOST + 1].join(":"));
        let rest: Pattern = format!("{long}:*").parse().expect("a pattern");
        assert!(rest.matches(&Name::new(&longer), None) && !rest.matches(&Name::new(&long), None));
        assert!(rest.matches(&Name::new(&":a".repeat(999)[1..]), None));
        assert_eq!(longer.parse::<Pattern>(), Err(InvalidPattern::Long));
    }

    #[test]
    fn a_pattern_covers_those_whose_names_it_matches() {
        for (one, other, covers) in [
            ("*", "a", true),
            ("*", "a:*", true),
            ("*", "*", true),
            ("a:*", "*", false),
            ("a:*", "a:b", true),
            ("a:*", "a:b:*", true),
            ("a:*", "a:*", true),
            ("a:*", "a", false),
            ("a:*", "b:*", false),
            ("a:b:*", "a:*", false),
            ("a:{x}", "a:{y}", true),
            ("a:{x}", "a:{sub}", true),
            ("a:{x}", "a:b", true),
            ("a:{x}", "a:", false),
            ("a:{x}", "a:*", false),
            ("a:{sub}", "a:{x}", false),
            ("a:{sub}", "a:{sub}", true),
            ("a:{sub}", "a:b", false),
            ("a", "a:b", false),
        ] {
            let parse = |text: &str| text.parse::<Pattern>().expect("a pattern");
            assert_eq!(parse(one).covers(&parse(other)), covers, "{one} {other}");
        }
    }

    /// As the matcher, but slow and plain.
    fn naive(pattern: &str, name: &str, user: Option<&str>) -> bool {
        let (pattern, name): (Vec<_>, Vec<_>) = (pattern.split(':').collect(), name.split(':').collect());
        let rest = pattern.last() == Some(&"*");
        let fixed = pattern.len() - usize::from(rest);
        (if rest { name.len() > fixed } else { name.len() == fixed })
            && (0..fixed).all(|at| match pattern[at] {
                "{sub}" => user == Some(name[at]) && !name[at].is_empty(),
                any if any.starts_with('{') => !name[at].is_empty(),
                literal => literal == name[at],
            })
    }

    pub(crate) fn patterns() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "", "{x}", "{y}", "{sub}"]);
        let segments = prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join(":"));
        prop_oneof![
            segments.clone().prop_filter("not empty", |text| !text.is_empty()),
            segments.prop_map(|text| format!("{text}:*")),
            Just("*".to_owned()),
        ]
    }

    pub(crate) fn names() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "", "ann"]), 1..5).prop_map(|all| all.join(":"))
    }

    pub(crate) fn users() -> impl Strategy<Value = Option<&'static str>> {
        prop::sample::select(vec![None, Some("ann"), Some("a"), Some("")])
    }

    proptest! {
        #[test]
        fn a_match_is_what_a_naive_matcher_finds(pattern in patterns(), name in names(), user in users()) {
            let parsed: Pattern = pattern.parse().expect("a pattern");
            prop_assert_eq!(parsed.matches(&Name::new(&name), user), naive(&pattern, &name, user));
        }

        #[test]
        fn what_is_covered_is_matched(one in patterns(), other in patterns(), name in names(), user in users()) {
            let (one, other): (Pattern, Pattern) = (one.parse().expect("a pattern"), other.parse().expect("a pattern"));
            let name = Name::new(&name);
            prop_assert!(!one.covers(&other) || !other.matches(&name, user) || one.matches(&name, user));
        }

        #[test]
        fn the_shortest_name_is_matched(pattern in patterns(), name in names(), user in users()) {
            let parsed: Pattern = pattern.parse().expect("a pattern");
            let shortest = parsed.shortest();
            prop_assert!(parsed.matches(&Name::new(&shortest), Some("x")), "{shortest}");
            prop_assert!(name.is_empty() || !parsed.matches(&Name::new(&name), user) || shortest.len() <= name.len());
        }
    }
}
