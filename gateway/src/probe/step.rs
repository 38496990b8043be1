//! One step of a probe: its outcome and its duration.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::client::{Good, Trouble};
use crate::columns::wrapped;

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The step succeeded.
    Ok,
    /// The step failed.
    Wrong,
    /// The step does not apply here.
    Skipped,
}

/// A step that ran.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Its name, one word.
    pub name: &'static str,
    /// Its outcome.
    pub outcome: Outcome,
    /// Its duration, if it was measured; in JSON `milliseconds`.
    #[serde(rename = "milliseconds", serialize_with = "milliseconds")]
    pub took: Option<Duration>,
    /// The observation, in one line.
    pub what: String,
    /// Details, one per line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the failure means.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub means: String,
    /// What to look at after a failure.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub look: String,
    /// The observation for scripts.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub facts: Value,
}

impl Step {
    pub(super) fn of(name: &'static str, took: Option<Duration>, result: Result<Good, Trouble>) -> Self {
        let (notes, none) = (Vec::new(), String::new);
        match result {
            Ok(Good { what, facts, skipped }) => {
                let outcome = if skipped { Outcome::Skipped } else { Outcome::Ok };
                Self { name, outcome, took, what, notes, means: none(), look: none(), facts }
            }
            Err(Trouble { what, means, look, facts }) => {
                Self { name, outcome: Outcome::Wrong, took, what, notes, means, look, facts }
            }
        }
    }
}

fn milliseconds<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match took {
        Some(took) => serializer.serialize_f64((took.as_secs_f64() * 1e6).round() / 1e3),
        None => serializer.serialize_none(),
    }
}

/// A line for a step that is still running, in the columns of [`Step`].
pub(super) fn meanwhile(name: &str, what: &str) -> String {
    format!("{:<6} {name:<9} {:>8}   {what}", "...", "")
}

/// Width of the columns before the text.
const INDENT: usize = 28;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Wrong => "WRONG",
            Outcome::Skipped => "-",
        };
        let took = self.took.map(time).unwrap_or_default();
        write!(f, "{mark:<6} {:<9} {took:>8}   ", self.name)?;
        wrapped(f, INDENT, &self.what)?;
        let look = if self.look.is_empty() { String::new() } else { format!("Look at: {}", self.look) };
        for line in self.notes.iter().chain([&self.means, &look]).filter(|line| !line.is_empty()) {
            write!(f, "\n{:INDENT$}", "")?;
            wrapped(f, INDENT, line)?;
        }
        Ok(())
    }
}

/// A duration with a suitable unit and about three digits.
pub(super) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_aligned_and_wrapped() {
        let good = Step::of("tcp", Some(Duration::from_micros(340)), Ok(Good::new("connected", Value::Null)));
        assert_eq!(good.to_string(), "ok     tcp        0.34 ms   connected");
        let long = "word ".repeat(40);
        let wrong =
            Step::of("upgrade", Some(Duration::from_secs(5)), Err(Trouble::new("404", long.trim(), "the path")));
        let text = wrong.to_string();
        assert!(text.starts_with("WRONG  upgrade      5.0 s   404\n                            word word"), "{text}");
        assert!(text.ends_with("\n                            Look at: the path"), "{text}");
    }

    #[test]
    fn control_characters_of_a_server_are_removed() {
        let step = Step::of("upgrade", None, Err(Trouble::new("400 \x1b[2J\r\nok", "", "")));
        assert_eq!(step.to_string(), "WRONG  upgrade              400  [2J  ok");
    }
}
