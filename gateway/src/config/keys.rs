//! The existing keys, taken from the defaults, and the one that a wrong name probably means.

use toml::{Table, Value};

/// Below this likeness, from 0 to 1, a name is no misspelling.
const ALIKE: f64 = 0.6;

/// The sections of a configuration and their keys.
pub(super) struct Keys<'a>(pub(super) &'a Table);

impl<'a> Keys<'a> {
    /// The value at `section.key`.
    pub(super) fn value(&self, section: &str, key: &str) -> Option<&'a Value> {
        self.0.get(section)?.as_table()?.get(key)
    }

    pub(super) fn has_section(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All keys as (section, key).
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let keys = |section: &'a Value| section.as_table().into_iter().flat_map(Table::keys);
        self.0.iter().flat_map(move |(name, section)| keys(section).map(|key| (name.as_str(), key.as_str())))
    }

    /// The key most like an unknown one; `section` is empty if it had none.
    pub(super) fn nearest(&self, section: &str, key: &str) -> Option<(&'a str, &'a str)> {
        let likeness = |&(its_section, its_key): &(&str, &str)| {
            if section.is_empty() {
                likeness(key, its_key)
            } else {
                0.8 * likeness(key, its_key) + 0.2 * likeness(section, its_section)
            }
        };
        let scored = self.all().map(|candidate| (likeness(&candidate), candidate));
        best(scored.filter(|(_, (_, candidate))| self::likeness(key, candidate) >= ALIKE))
    }

    /// "did you mean …?" for an unknown key, with each candidate written by `spell`.
    pub(super) fn key_hint(&self, section: &str, key: &str, spell: impl Fn(&str, &str) -> String) -> String {
        if let Some((section, key)) = self.nearest(section, key) {
            return did_you_mean(&spell(section, key));
        }
        let siblings: Vec<String> =
            self.all().filter(|(its, _)| *its == section).map(|(section, key)| spell(section, key)).collect();
        if siblings.is_empty() { self.sections_hint() } else { format!("there are {}", siblings.join(", ")) }
    }

    /// "did you mean …?" for an unknown section.
    pub(super) fn section_hint(&self, section: &str) -> String {
        let scored = self.0.keys().map(|name| (likeness(section, name), name.as_str()));
        match best(scored.filter(|(likeness, _)| *likeness >= ALIKE)) {
            Some(name) => did_you_mean(&format!("[{name}]")),
            None => self.sections_hint(),
        }
    }

    fn sections_hint(&self) -> String {
        let names: Vec<String> = self.0.keys().map(|name| format!("[{name}]")).collect();
        format!("the sections are {}", names.join(", "))
    }
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
            let nearest = Keys(&table).nearest(section, key).map(|(section, key)| format!("{section}.{key}"));
            assert_eq!(nearest.as_deref(), meant, "{section}.{key}");
        }
    }

    #[test]
    fn every_section_has_keys() {
        let table = Table::try_from(Config::default()).expect("strings and numbers");
        let keys = Keys(&table);
        for section in ["node", "http", "tls", "limits", "timing", "broker", "window", "log", "agent"] {
            assert!(keys.all().any(|(name, _)| name == section), "{section}");
        }
        assert_eq!(keys.0.len(), 9);
    }
}
