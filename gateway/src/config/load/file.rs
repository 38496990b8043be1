//! A TOML file as a source of values.

use std::ops::Range;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{
    Spanned, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::list::Item;
use super::{Layers, shown};
use crate::config::{ConfigError, Place, keys::KeyPath};

/// A file while it is read.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        Place::File { file: self.name.to_owned(), line: line_and_column(self.text, span.start).0 }
    }
}

impl<T: Default + Serialize + DeserializeOwned> Layers<T> {
    pub(super) fn file(&mut self, name: &str, text: &str) {
        match DeTable::parse(text) {
            Ok(document) => self.table(&[], document.into_inner(), &Source { name, text }),
            Err(error) => self.errors.push(syntax(name, text, &error)),
        }
    }

    /// The keys of a section of the file, and the sections within it.
    fn table(&mut self, above: &[&str], content: DeTable<'_>, source: &Source<'_>) {
        for (name, value) in content {
            let (place, name) = (source.place(&name.span()), name.into_inner());
            let path = [above, &[&*name]].concat();
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(inner) if self.keys().is_section(&path) => self.table(&path, inner, source),
                DeValue::Table(_) if self.may_be_section(&path) => {
                    let hint = self.keys().section_hint(&path);
                    let name = format!("[{}]", path.join("."));
                    self.errors.push(ConfigError::Unknown { what: "section", name, place, hint });
                }
                _ if self.keys().is_section(&path) => {
                    let name = path.join(".");
                    let hint = format!("it is a section: write `[{name}]` on a line of its own, then its keys");
                    self.errors.push(ConfigError::Unknown { what: "key", name, place, hint });
                }
                value if self.keys().value(&path).is_some() => {
                    let items = items(&value, source);
                    match Value::deserialize(ValueDeserializer::from(Spanned::new(span.clone(), value))) {
                        Ok(value) => self.set(&path, value, place, items),
                        Err(_) => self.errors.push(ConfigError::Value {
                            key: path.join("."),
                            value: shown(&path.join("."), source.text.get(span).unwrap_or_default()),
                            place,
                            expected: "expected a number that fits 64 bits".into(),
                        }),
                    }
                }
                _ => {
                    let hint = self.keys().key_hint(&path, |path| path.join("."));
                    self.errors.push(ConfigError::Unknown { what: "key", name: path.join("."), place, hint });
                }
            }
        }
    }

    /// Whether an unknown table stands where there are sections.
    fn may_be_section(&self, path: &[&str]) -> bool {
        let is_beside =
            |other: &KeyPath| other.len() == path.len() && other[..other.len() - 1] == path[..path.len() - 1];
        self.keys().value(path).is_none() && self.keys().sections().iter().any(is_beside)
    }
}

/// The tables of a list, and the places of their fields.
fn items(value: &DeValue<'_>, source: &Source<'_>) -> Vec<Item> {
    let DeValue::Array(items) = value else { return Vec::new() };
    let item = |item: &Spanned<DeValue<'_>>| Item {
        place: source.place(&item.span()),
        fields: fields(item.get_ref(), source),
    };
    items.iter().map(item).collect()
}

/// The fields of a table, at any depth, with their places.
fn fields(value: &DeValue<'_>, source: &Source<'_>) -> Vec<(String, Place)> {
    let mut found = Vec::new();
    match value {
        DeValue::Array(items) => {
            for item in items.iter() {
                found.extend(fields(item.get_ref(), source));
            }
        }
        DeValue::Table(table) => {
            for (name, value) in table.iter() {
                found.push((name.get_ref().to_string(), source.place(&name.span())));
                found.extend(fields(value.get_ref(), source));
            }
        }
        _ => {}
    }
    found
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
