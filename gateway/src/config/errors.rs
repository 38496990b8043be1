//! The messages about a configuration that cannot be used.
//!
//! Each message names the key, where it stands, what was found and what was expected. None shows a secret.

use std::{fmt, io};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is the default.
    Default,
    /// A line of the configuration file, counted from 1.
    File {
        /// The file, as it was given.
        file: String,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("by default"),
            Self::File { file, line } => write!(f, "in {file} (line {line})"),
            Self::Variable(name) => write!(f, "in the environment variable {name}"),
            Self::Flag(flag) => write!(f, "in {flag}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}")]
    Unreadable {
        /// The file, as it was given.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{file} (line {line}, column {column}) is not valid TOML: {message}")]
    Syntax {
        /// The file, as it was given.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// The character in the line, counted from 1.
        column: usize,
        /// What the parser says; never the line itself, which may hold a secret.
        message: String,
    },
    /// The file has a section or a key that does not exist.
    #[error("unknown {what} `{name}` {place}: {hint}")]
    Unknown {
        /// "section" or "key".
        what: &'static str,
        /// The name, with its section.
        name: String,
        /// Where it stands.
        place: Place,
        /// The nearest name, or all names.
        hint: String,
    },
    /// An environment variable starts with `FANFARE__` and names no key.
    #[error("unknown environment variable `{name}`: {hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The nearest name, or all names.
        hint: String,
    },
    /// A value is of the wrong type or out of bounds.
    #[error("`{key}` = {value} {place}: {expected}")]
    Value {
        /// The key, with its section.
        key: String,
        /// The value, redacted.
        value: String,
        /// Where it stands.
        place: Place,
        /// What it should have been.
        expected: String,
    },
    /// Two values do not go together.
    #[error("`{key}` = {value} {place} must be {relation} `{other}` = {other_value} {other_place}: {reason}")]
    Rule {
        /// The key, with its section.
        key: &'static str,
        /// Its value.
        value: String,
        /// Where that came from.
        place: Place,
        /// What the value must be in relation to the other.
        relation: &'static str,
        /// The other key.
        other: &'static str,
        /// Its value.
        other_value: String,
        /// Where that came from.
        other_place: Place,
        /// Why it must.
        reason: &'static str,
    },
}

/// All errors, at least one; printed one on a line, in the order of file, environment, flags.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `Ok` if there are none.
    pub(super) fn none(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The errors one by one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
