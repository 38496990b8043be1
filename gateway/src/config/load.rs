//! Merges defaults, file, environment and flags into one [`Config`], or into a list of all errors.
//!
//! Each value is tried alone on top of values that are known to be valid, so that each wrong one gets its own message.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    ops::Range,
    path::Path,
};

use broker_adapters::read_file;
use serde::Deserialize;
use toml::{
    Table, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{
    Config, ConfigError, ConfigErrors, Place, environment,
    keys::{self, Keys},
    redacted,
    rules::{self, Rule},
};

/// The values of flags; they win over all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`: `http.listen`.
    pub listen: Option<String>,
    /// `--broker`: `broker.url`.
    pub broker: Option<String>,
    /// `--name`: `node.name`.
    pub name: Option<String>,
}

/// Merges defaults, `file`, the variables `FANFARE__SECTION__KEY` of `environment`, and `overrides`, in this order.
///
/// # Errors
/// Reports all errors of all sources at once; in a file that is not TOML, only the first.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: Overrides,
) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::new();
    if let Some(path) = file {
        let file = path.display().to_string();
        let text = read_file(path).and_then(|bytes| {
            let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not a text in UTF-8");
            String::from_utf8(bytes).map_err(not_text)
        });
        match text {
            Ok(text) => layers.file(&file, &text),
            Err(source) => layers.errors.push(ConfigError::Unreadable { file, source }),
        }
    }
    layers.environment(environment);
    layers.flags(overrides);
    layers.finish()
}

/// The values so far, and the errors.
struct Layers {
    defaults: Table,
    values: Table,
    /// Where each value that is no default came from, by `section.key`.
    places: HashMap<String, Place>,
    errors: Vec<ConfigError>,
}

impl Layers {
    fn new() -> Self {
        let defaults = Table::try_from(Config::default()).expect("the defaults are strings, numbers and lists");
        Self { values: defaults.clone(), defaults, places: HashMap::new(), errors: Vec::new() }
    }

    fn file(&mut self, file: &str, text: &str) {
        let document = match DeTable::parse(text) {
            Ok(document) => document.into_inner(),
            Err(error) => return self.errors.push(syntax(file, text, &error)),
        };
        let place =
            |span: Range<usize>| Place::File { file: file.to_owned(), line: line_and_column(text, span.start).0 };
        for (name, content) in document {
            let (at, name) = (place(name.span()), name.into_inner());
            match content.into_inner() {
                DeValue::Table(keys) if self.keys().has_section(&name) => {
                    for (key, value) in keys {
                        let (at, span) = (place(key.span()), value.span());
                        match Value::deserialize(ValueDeserializer::from(value)) {
                            Ok(value) => self.set_in_file(&name, key.get_ref(), value, at),
                            Err(_) => self.errors.push(ConfigError::Value {
                                key: format!("{name}.{}", key.get_ref()),
                                value: redacted(text.get(span).unwrap_or_default()),
                                place: at,
                                expected: "expected a number that fits 64 bits".into(),
                            }),
                        }
                    }
                }
                DeValue::Table(_) => {
                    let hint = self.keys().section_hint(&name);
                    self.errors.push(ConfigError::Unknown {
                        what: "section",
                        name: format!("[{name}]"),
                        place: at,
                        hint,
                    });
                }
                _ if self.keys().has_section(&name) => {
                    let hint = format!("it is a section: write `[{name}]` on a line of its own, then its keys");
                    self.errors.push(ConfigError::Unknown { what: "key", name: name.into_owned(), place: at, hint });
                }
                _ => self.unknown_key("", &name, at),
            }
        }
    }

    fn set_in_file(&mut self, section: &str, key: &str, value: Value, place: Place) {
        if self.keys().value(section, key).is_some() {
            self.set(section, key, value, place);
        } else {
            self.unknown_key(section, key, place);
        }
    }

    fn unknown_key(&mut self, section: &str, key: &str, place: Place) {
        let hint = self.keys().key_hint(section, key, |section, key| format!("{section}.{key}"));
        let name = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        self.errors.push(ConfigError::Unknown { what: "key", name, place, hint });
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        // Sorted, so that errors come in the same order every time.
        let variables: BTreeMap<String, String> = variables.into_iter().collect();
        for (name, text) in variables {
            let path = environment::path(&name);
            let (section, key) = path.as_deref().unwrap_or_default().split_once('.').unwrap_or_default();
            if let Some(like) = self.keys().value(section, key).cloned() {
                self.set(section, key, environment::value(&text, &like), Place::Variable(name));
            } else if let Some(hint) = self.variable_hint(&name, path.as_deref()) {
                self.errors.push(ConfigError::UnknownVariable { name, hint });
            }
        }
    }

    /// The hint for a variable that names no key; `None` if the variable is not Fanfare's.
    fn variable_hint(&self, name: &str, path: Option<&str>) -> Option<String> {
        let variable = |(section, key)| environment::variable(section, key);
        let known = self.keys().all().map(variable).find(|known| environment::same_but_for_underscores(name, known));
        known.map(|known| keys::did_you_mean(&known)).or_else(|| {
            let path = path?;
            let (section, key) = path.split_once('.').unwrap_or((path, ""));
            Some(self.keys().key_hint(section, key, environment::variable))
        })
    }

    fn flags(&mut self, Overrides { listen, broker, name }: Overrides) {
        for (flag, section, key, value) in [
            ("--listen", "http", "listen", listen),
            ("--broker", "broker", "url", broker),
            ("--name", "node", "name", name),
        ] {
            if let Some(value) = value {
                self.set(section, key, value.into(), Place::Flag(flag));
            }
        }
    }

    fn keys(&self) -> Keys<'_> {
        Keys(&self.defaults)
    }

    /// Sets an existing key if the value is valid, and keeps the former value if not.
    fn set(&mut self, section: &str, key: &str, value: Value, place: Place) {
        let path = format!("{section}.{key}");
        let mut trial = self.values.clone();
        trial[section][key] = value.clone();
        match trial.clone().try_into::<Config>() {
            Ok(_) => {
                self.values = trial;
                self.places.insert(path, place);
            }
            Err(error) => {
                let (value, expected) = (redacted(&value.to_string()), expectation(&error));
                self.errors.push(ConfigError::Value { key: path, value, place, expected });
            }
        }
    }

    fn finish(self) -> Result<Config, ConfigErrors> {
        ConfigErrors::none(self.errors)?;
        let config: Config = self.values.clone().try_into().expect("each value was tried when it was set");
        let value_at = |path: &str| {
            let value = path.split_once('.').and_then(|(section, key)| self.values.get(section)?.get(key));
            let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            (redacted(&text.unwrap_or_default()), self.places.get(path).cloned().unwrap_or(Place::Default))
        };
        let broken = rules::broken(&config).map(|rule| {
            let ((value, place), (other_value, other_place)) = (value_at(rule.key), value_at(rule.other));
            let Rule { key, relation, other, reason } = rule;
            ConfigError::Rule { key, value, place, relation, other, other_value, other_place, reason }
        });
        ConfigErrors::none(broken.collect())?;
        Ok(config)
    }
}

fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start);
    let (line, column) = line_and_column(text, at);
    // Its `Display` would quote the line.
    let mut message = error.message().replace('\n', ", ");
    let value = text.get(..at).and_then(|before| before.rsplit('\n').next()).and_then(|before| before.split_once('='));
    if value.is_some_and(|(_, value)| !value.trim_start().starts_with(['"', '\'', '[', '{'])) {
        message += "; text, durations and sizes stand in quotes";
    }
    ConfigError::Syntax { file: file.to_owned(), line, column, message }
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// What was expected, without serde's "invalid type: …", which repeats what was found.
fn expectation(error: &toml::de::Error) -> String {
    match error.message().rsplit_once(", expected ") {
        Some((given, "a sequence")) if given.starts_with("invalid") => {
            "expected a list of strings, such as [\"one\", \"two\"]".to_owned()
        }
        Some((given, expected)) if given.starts_with("invalid") => format!("expected {expected}"),
        _ => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests;
