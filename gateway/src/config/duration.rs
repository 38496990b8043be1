//! Durations as text with a unit: "500ms", "25s", "5m", "1h".
//!
//! From one millisecond to 720 hours, so that adding one to any clock never overflows. [`or_off`] also takes "off".

use std::{fmt, time::Duration};

use serde::{Deserializer, Serializer, de};

const LONGEST: Duration = Duration::from_secs(720 * 3600);
/// In milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const EXPECTED: &str = "a duration such as \"500ms\", \"25s\", \"5m\" or \"1h\"";

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&display(*duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Text)
}

/// A duration, or "off" for `None`.
pub(super) mod or_off {
    use super::{Deserializer, Duration, Serializer, TextOrOff};

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_str("off"),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        deserializer.deserialize_str(TextOrOff)
    }
}

/// With the largest unit that divides it.
fn display(duration: Duration) -> String {
    let millis = duration.as_millis();
    let fits = |(_, unit): &&(&str, u64)| millis > 0 && millis.is_multiple_of(u128::from(*unit));
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("ms", 1));
    format!("{}{name}", millis / u128::from(*unit))
}

/// The error is a text that follows "key = value: ".
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.trim();
    if number.is_empty() {
        return Err(format!("expected {EXPECTED}"));
    }
    if unit.is_empty() {
        return Err(unit_missing(number));
    }
    let Some((_, millis)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err("expected a whole number and one of the units ms, s, m, h".to_owned());
    };
    let duration = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*millis)).map(Duration::from_millis);
    let within = duration.filter(|duration| !duration.is_zero() && *duration <= LONGEST);
    within.ok_or_else(|| "expected a duration from \"1ms\" to \"720h\"".to_owned())
}

fn unit_missing(number: impl fmt::Display) -> String {
    format!("expected a unit (ms, s, m or h), such as \"{number}s\" for {number} seconds")
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
        match u64::try_from(number) {
            Ok(number) => Err(E::custom(unit_missing(number))),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }
}

struct TextOrOff;

impl de::Visitor<'_> for TextOrOff {
    type Value = Option<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{EXPECTED}, or \"off\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<Duration>, E> {
        match text {
            "off" => Ok(None),
            text => parse(text).map(Some).map_err(|message| E::custom(format_args!("{message}, or \"off\""))),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<Duration>, E> {
        match number {
            0 => Err(E::custom("expected \"off\", or a duration with its unit, such as \"5m\"")),
            _ => Text.visit_i64(number).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_and_prints_with_its_largest_unit() {
        for (text, millis, printed) in [
            ("500ms", 500, "500ms"),
            ("1500ms", 1_500, "1500ms"),
            ("25s", 25_000, "25s"),
            ("25 s", 25_000, "25s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("5m", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("720h", 2_592_000_000, "720h"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(text), Ok(duration), "{text}");
            assert_eq!(display(duration), printed);
        }
        assert_eq!(display(Duration::ZERO), "0ms");
    }

    #[test]
    fn text_that_is_no_duration_gets_a_message_for_its_mistake() {
        for (text, message) in [
            ("30", "expected a unit (ms, s, m or h), such as \"30s\" for 30 seconds"),
            ("", "expected a duration such as \"500ms\", \"25s\", \"5m\" or \"1h\""),
            ("s", "expected a duration such as \"500ms\", \"25s\", \"5m\" or \"1h\""),
            ("-5s", "expected a duration such as \"500ms\", \"25s\", \"5m\" or \"1h\""),
            ("5 days", "expected a whole number and one of the units ms, s, m, h"),
            ("1.5s", "expected a whole number and one of the units ms, s, m, h"),
            ("0s", "expected a duration from \"1ms\" to \"720h\""),
            ("721h", "expected a duration from \"1ms\" to \"720h\""),
            ("99999999999999999999h", "expected a duration from \"1ms\" to \"720h\""),
            ("18446744073709551615h", "expected a duration from \"1ms\" to \"720h\""),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()), "{text}");
        }
    }
}
