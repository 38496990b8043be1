//! Merges defaults, file, environment and flags into one [`Config`], or into a list of all errors.
//!
//! Each value is tried alone on top of values that are known to be valid, so that each wrong one gets its own message.

mod file;
mod list;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    marker::PhantomData,
    path::Path,
};

use broker_adapters::read_file;
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use self::list::Item;
use super::{
    Config, ConfigError, ConfigErrors, Place, environment,
    keys::{self, KeyPath, Keys},
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
    let mut layers = Layers::<Config>::new();
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
struct Layers<T> {
    defaults: Table,
    values: Table,
    /// Where each value that is no default came from, by its key's full name.
    places: HashMap<String, Place>,
    /// Where the tables of a list stand, by its key's full name.
    items: HashMap<String, Vec<Item>>,
    errors: Vec<ConfigError>,
    read_as: PhantomData<T>,
}

impl<T: Default + Serialize + DeserializeOwned> Layers<T> {
    fn new() -> Self {
        let defaults = Table::try_from(T::default()).expect("the defaults are strings, numbers and lists");
        Self {
            values: defaults.clone(),
            defaults,
            places: HashMap::new(),
            items: HashMap::new(),
            errors: Vec::new(),
            read_as: PhantomData,
        }
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        // Sorted, so that errors come in the same order every time.
        let variables: BTreeMap<String, String> = variables.into_iter().collect();
        for (name, text) in variables {
            let full = environment::path(&name);
            let path: KeyPath = full.as_deref().unwrap_or_default().split('.').collect();
            match self.keys().value(&path).filter(|like| !like.is_table()).cloned() {
                Some(like) => self.set(&path, environment::value(&text, &like), Place::Variable(name), Vec::new()),
                None => {
                    if let Some(hint) = self.variable_hint(&name, full.is_some().then_some(path)) {
                        self.errors.push(ConfigError::UnknownVariable { name, hint });
                    }
                }
            }
        }
    }

    /// The hint for a variable that names no key; `None` if the variable is not Fanfare's.
    fn variable_hint(&self, name: &str, path: Option<KeyPath>) -> Option<String> {
        let mut known = self.keys().all().into_iter().map(|path| environment::variable(&path));
        if let Some(known) = known.find(|known| environment::same_but_for_underscores(name, known)) {
            return Some(keys::did_you_mean(&known));
        }
        let mut path = path?;
        // Every variable has a section; without a key, the hint lists the section's.
        if path.len() == 1 || self.keys().is_section(&path) {
            path.push("");
        }
        Some(self.keys().key_hint(&path, environment::variable))
    }

    fn keys(&self) -> Keys<'_> {
        Keys(&self.defaults)
    }

    /// Sets an existing key if the value is valid, and keeps the former value if not. `items` says where the tables of a
    /// list stand.
    fn set(&mut self, path: &[&str], value: Value, place: Place, items: Vec<Item>) {
        let key = path.join(".");
        let trial = self.with(path, value.clone());
        match trial.clone().try_into::<T>() {
            Ok(_) => {
                self.values = trial;
                self.places.insert(key.clone(), place);
                self.items.insert(key, items);
            }
            Err(error) => {
                let error = match &value {
                    Value::Array(list) if list.iter().any(Value::is_table) => self
                        .wrong_table(path, list, &place, &items)
                        .unwrap_or_else(|| wrong(key, &value, place, &error)),
                    _ if self.is_list_of_tables(path) => {
                        let expected = format!("expected a list of tables: write `[[{key}]]` above the keys of each");
                        ConfigError::Value { value: shown(&key, &value.to_string()), key, place, expected }
                    }
                    _ => wrong(key, &value, place, &error),
                };
                self.errors.push(error);
            }
        }
    }

    /// The values so far, and this one.
    fn with(&self, path: &[&str], value: Value) -> Table {
        let mut values = self.values.clone();
        if let Some(slot) = value_mut(&mut values, path) {
            *slot = value;
        }
        values
    }

    /// Whether an existing key has a list of tables. Its default is empty, so a list of one table is tried.
    fn is_list_of_tables(&self, path: &[&str]) -> bool {
        let is_list = self.keys().value(path).is_some_and(Value::is_array);
        let trial = || self.with(path, vec![Value::Table(Table::new())].into()).try_into::<T>();
        is_list && trial().err().is_none_or(|error| !error.message().starts_with("invalid type"))
    }

    /// What is wrong in a list of tables, if it is one table alone.
    fn wrong_table(&self, path: &[&str], list: &[Value], place: &Place, items: &[Item]) -> Option<ConfigError> {
        let read = |list: Vec<Value>| self.with(path, list.into()).try_into::<T>().map(drop);
        let list::Wrong { number, field, error } = list::wrong(list, read)?;
        let (key, item) = (path.join("."), items.get(number));
        let item_place = item.map_or(place, |item| &item.place).clone();
        let place_of = |field: &str| {
            let found = item.and_then(|item| item.fields.iter().find(|(name, _)| name == field));
            found.map_or(&item_place, |(_, place)| place).clone()
        };
        Some(match (unknown_field(error.message()), field) {
            (Some((field, known)), _) => ConfigError::Unknown {
                what: "key",
                name: format!("{key}.{field}"),
                place: place_of(field),
                hint: keys::field_hint(&key, field, &known),
            },
            (None, Some(field)) => {
                wrong(format!("{key}.{field}"), &list[number][field.as_str()], place_of(&field), &error)
            }
            (None, None) => wrong(key, &list[number], item_place, &error),
        })
    }

    /// The configuration, if nothing was wrong.
    fn read(&mut self) -> Result<T, ConfigErrors> {
        ConfigErrors::none(std::mem::take(&mut self.errors))?;
        Ok(self.values.clone().try_into().expect("each value was tried when it was set"))
    }
}

impl Layers<Config> {
    fn flags(&mut self, Overrides { listen, broker, name }: Overrides) {
        for (flag, path, value) in [
            ("--listen", ["http", "listen"], listen),
            ("--broker", ["broker", "url"], broker),
            ("--name", ["node", "name"], name),
        ] {
            if let Some(value) = value {
                self.set(&path, value.into(), Place::Flag(flag), Vec::new());
            }
        }
    }

    fn finish(mut self) -> Result<Config, ConfigErrors> {
        let mut config = self.read()?;
        let source = self.places.get("channels");
        let items = self.items.get("channels").map(Vec::as_slice).unwrap_or_default();
        for (number, rule) in config.channels.iter_mut().enumerate() {
            rule.place = items.get(number).map(|item| &item.place).or(source).cloned();
        }
        let value_at = |key: &str| {
            let value = Keys(&self.values).value(&key.split('.').collect::<KeyPath>());
            let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            (shown(key, &text.unwrap_or_default()), self.places.get(key).cloned().unwrap_or(Place::Default))
        };
        let broken = rules::broken(&config).map(|rule| {
            let Rule { key, found, relation, other, reason } = rule;
            let (other_value, other_place) = value_at(other);
            let (value, place) = found.unwrap_or_else(|| value_at(key));
            ConfigError::Rule { key, value, place, relation, other, other_value, other_place, reason }
        });
        ConfigErrors::none(broken.collect())?;
        Ok(config)
    }
}

fn value_mut<'a>(table: &'a mut Table, path: &[&str]) -> Option<&'a mut Value> {
    let (name, tables) = path.split_last()?;
    let table = tables.iter().try_fold(table, |table, name| table.get_mut(*name)?.as_table_mut())?;
    table.get_mut(*name)
}

/// The error about a value.
fn wrong(key: String, value: &Value, place: Place, error: &toml::de::Error) -> ConfigError {
    ConfigError::Value { value: shown(&key, &value.to_string()), key, place, expected: expectation(error) }
}

/// A value for a message. The lists of keys have secrets, and a misspelt field may have one too.
fn shown(key: &str, value: &str) -> String {
    let has_secrets =
        ["auth.keys", "api.keys", "hooks.secret", "webhooks.secrets"].iter().any(|secret| key.starts_with(secret));
    if has_secrets && value != "[]" { "***".to_owned() } else { redacted(value) }
}

/// The field and the existing ones, if the message is serde's about an unknown field.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (field, known) = message.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    Some((field, known.split('`').skip(1).step_by(2).collect()))
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
mod deep;
#[cfg(test)]
mod tests;
