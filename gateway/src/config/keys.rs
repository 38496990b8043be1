//! The existing keys, taken from the defaults, and the one that a wrong name probably means.

use toml::{Table, Value};

/// Below this likeness, from 0 to 1, a name is no misspelling.
const ALIKE: f64 = 0.6;

/// The names of the tables around a value, from the outermost, and its own.
pub(super) type KeyPath<'a> = Vec<&'a str>;

/// The sections of a configuration and their keys, at any depth.
pub(super) struct Keys<'a>(pub(super) &'a Table);

impl<'a> Keys<'a> {
    /// The value at a path.
    pub(super) fn value(&self, path: &[&str]) -> Option<&'a Value> {
        let (name, tables) = path.split_last()?;
        let table = tables.iter().try_fold(self.0, |table, name| table.get(*name)?.as_table())?;
        table.get(*name)
    }

    pub(super) fn is_section(&self, path: &[&str]) -> bool {
        self.value(path).is_some_and(Value::is_table)
    }

    /// All keys.
    pub(super) fn all(&self) -> Vec<KeyPath<'a>> {
        self.walk(|value| !value.is_table())
    }

    /// All sections.
    pub(super) fn sections(&self) -> Vec<KeyPath<'a>> {
        self.walk(Value::is_table)
    }

    fn walk(&self, wanted: impl Fn(&Value) -> bool) -> Vec<KeyPath<'a>> {
        let mut found = Vec::new();
        let mut tables = vec![(KeyPath::new(), self.0)];
        while let Some((above, table)) = tables.pop() {
            for (name, value) in table {
                let path = [&above[..], &[name.as_str()]].concat();
                if let Some(table) = value.as_table() {
                    tables.push((path.clone(), table));
                }
                if wanted(value) {
                    found.push(path);
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// The key most like an unknown one. A path of one name stands for a key without its section.
    pub(super) fn nearest(&self, path: &[&str]) -> Option<KeyPath<'a>> {
        let (key, section) = path.split_last()?;
        let section = section.join(".");
        let scored = self.all().into_iter().filter_map(|candidate| {
            let (its_key, its_section) = candidate.split_last()?;
            let alike = likeness(key, its_key);
            let weighed = 0.8 * alike + 0.2 * likeness(&section, &its_section.join("."));
            (alike >= ALIKE).then_some((if section.is_empty() { alike } else { weighed }, candidate))
        });
        best(scored)
    }

    /// "did you mean …?" for an unknown key, with each candidate written by `spell`.
    pub(super) fn key_hint(&self, path: &[&str], spell: impl Fn(&[&str]) -> String) -> String {
        if let Some(path) = self.nearest(path) {
            return did_you_mean(&spell(&path));
        }
        let section = path.split_last().map_or(&[][..], |(_, section)| section);
        let is_beside =
            |other: &KeyPath| other.split_last().is_some_and(|(_, its)| its == section && !section.is_empty());
        let beside: Vec<String> = self.all().into_iter().filter(is_beside).map(|path| spell(&path)).collect();
        if beside.is_empty() { self.sections_hint() } else { format!("there are {}", beside.join(", ")) }
    }

    /// "did you mean …?" for an unknown section.
    pub(super) fn section_hint(&self, path: &[&str]) -> String {
        let given = path.join(".");
        let scored = self.sections().into_iter().map(|known| known.join("."));
        let scored = scored.map(|known| (likeness(&given, &known), known)).filter(|(likeness, _)| *likeness >= ALIKE);
        best(scored).map_or_else(|| self.sections_hint(), |name| did_you_mean(&format!("[{name}]")))
    }

    fn sections_hint(&self) -> String {
        let mut names: Vec<String> = self.sections().iter().map(|path| format!("[{}]", path.join("."))).collect();
        // A list of tables stands where sections do.
        names.extend(self.0.iter().filter(|(_, value)| value.is_array()).map(|(name, _)| format!("[[{name}]]")));
        format!("the sections are {}", names.join(", "))
    }
}

/// "did you mean …?" for an unknown field of a table in the list at `key`, or the fields that exist.
pub(super) fn field_hint(key: &str, field: &str, known: &[&str]) -> String {
    let spell = |name: &str| format!("{key}.{name}");
    let scored = known.iter().map(|known| (likeness(field, known), known)).filter(|(likeness, _)| *likeness >= ALIKE);
    let all = || known.iter().map(|name| spell(name)).collect::<Vec<_>>().join(", ");
    best(scored).map_or_else(|| format!("there are {}", all()), |name| did_you_mean(&spell(name)))
}

pub(super) fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

fn likeness(given: &str, known: &str) -> f64 {
    let given = given.to_lowercase().replace('-', "_");
    if given.is_empty() {
        return 0.0;
    }
    strsim::normalized_damerau_levenshtein(&given, known).max(strsim::jaro_winkler(&given, known) - 0.2)
}

fn best<T>(scored: impl Iterator<Item = (f64, T)>) -> Option<T> {
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_misspelt_key_finds_the_one_that_was_meant() {
        let table = Table::try_from(Config::default()).expect("strings and numbers");
        for (section, key, meant) in [
            ("http", "lisen", Some("http.listen")),
            ("http", "listenn", Some("http.listen")),
            ("http", "Listen", Some("http.listen")),
            ("http", "maxConnections", Some("http.max_connections")),
            ("http", "max-connections", Some("http.max_connections")),
            ("http", "max_conn", Some("http.max_connections")),
            ("http", "origin", Some("http.origins")),
            ("htpt", "lisetn", Some("http.listen")),
            ("limits", "mesage", Some("limits.message")),
            ("limits", "max_connections", Some("http.max_connections")),
            ("timing", "message_time", Some("limits.message_time")),
            ("timing", "pnig", Some("timing.ping")),
            ("broker", "in_flight_byte", Some("broker.in_flight_bytes")),
            ("broker", "uri", Some("broker.url")),
            ("", "listen", Some("http.listen")),
            ("", "url", Some("broker.url")),
            ("http", "compression", None),
            ("http", "x", None),
            ("http", "", None),
        ] {
            let path: KeyPath = [section, key].into_iter().filter(|name| *name == key || !name.is_empty()).collect();
            let nearest = Keys(&table).nearest(&path).map(|path| path.join("."));
            assert_eq!(nearest.as_deref(), meant, "{section}.{key}");
        }
    }

    #[test]
    fn every_section_has_keys() {
        let table = Table::try_from(Config::default()).expect("strings and numbers");
        let keys = Keys(&table);
        for section in [
            "node", "http", "auth", "tls", "limits", "timing", "broker", "window", "cluster", "presence", "log",
            "agent", "api", "hooks", "webhooks",
        ] {
            assert!(keys.all().iter().any(|path| path.len() == 2 && path[0] == section), "{section}");
        }
        assert_eq!(keys.0.len(), 16, "and a list of tables");
    }
}
