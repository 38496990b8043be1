//! How a step towards an open WebSocket ended: what was seen and, if it failed, what that means and what to look at.

use serde_json::Value;

/// The result of a step that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) what: String,
    pub(crate) means: String,
    pub(crate) look: String,
    pub(crate) facts: Value,
}

impl Trouble {
    pub(crate) fn new(what: impl Into<String>, means: impl Into<String>, look: impl Into<String>) -> Self {
        Self { what: tame(&what.into()), means: means.into(), look: look.into(), facts: Value::Null }
    }

    /// Adds facts for scripts.
    pub(crate) fn with(self, facts: Value) -> Self {
        Self { facts, ..self }
    }
}

/// The result of a step that succeeded, with its facts for scripts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Good {
    pub(crate) what: String,
    pub(crate) facts: Value,
    pub(crate) skipped: bool,
}

impl Good {
    pub(crate) fn new(what: impl Into<String>, facts: Value) -> Self {
        Self { what: tame(&what.into()), facts, skipped: false }
    }

    pub(crate) fn skipped(what: impl Into<String>) -> Self {
        Self { skipped: true, ..Self::new(what, Value::Null) }
    }
}

/// A server's text without control characters, which a terminal would obey, and cut to 400 characters.
pub(crate) fn tame(text: &str) -> String {
    const MOST: usize = 400;
    let tame: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    tame.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_text_is_cut_and_cannot_control_a_terminal() {
        assert_eq!(tame(" 400 \x1b[2J\r\nok "), "400  [2J  ok");
        assert_eq!(tame(&"x".repeat(10_000)).len(), 400);
    }
}
