//! `deploy/fanfare.toml` and `docs/configuration.md`, generated from the doc comments of the sections. Tests only.
//!
//! `./x docs` sets `FANFARE_WRITE=1`, and the tests here then write the files instead of comparing them.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use toml::{Table, Value};

use super::{Config, environment};

/// Every section and its source, in the order of the pages.
const SECTIONS: [(&str, &str); 15] = [
    ("node", include_str!("sections/node.rs")),
    ("http", include_str!("sections/http.rs")),
    ("auth", include_str!("sections/auth.rs")),
    ("tls", include_str!("sections/tls.rs")),
    ("limits", include_str!("sections/limits.rs")),
    ("timing", include_str!("sections/timing.rs")),
    ("broker", include_str!("sections/broker.rs")),
    ("window", include_str!("sections/window.rs")),
    ("cluster", include_str!("sections/cluster.rs")),
    ("presence", include_str!("sections/presence.rs")),
    ("log", include_str!("sections/log.rs")),
    ("agent", include_str!("sections/agent.rs")),
    ("api", include_str!("sections/api.rs")),
    ("hooks", include_str!("sections/hooks.rs")),
    ("webhooks", include_str!("sections/webhooks.rs")),
];

/// The lists of tables, their sources, and an example with every key.
const LISTS: [(&str, &str, &str); 1] =
    [("channels", include_str!("sections/channels.rs"), include_str!("channels.toml"))];

const FILE_HEAD: &str = "\
# Fanfare's configuration with every key at its default. Keep the lines that you change and delete the others. Lists of rules
# are empty by default; below they are examples in comments.
# Generated from gateway/src/config/sections by `./x docs`.
#
# The environment wins over this file: FANFARE__HTTP__LISTEN=0.0.0.0:8080 sets `listen` of [http].
# Durations are \"500ms\", \"25s\", \"5m\", \"1h\"; sizes are \"512B\", \"64KiB\", \"1MiB\".
# `fanfare check --config FILE` reports what is wrong with a file.
";

const PAGE_HEAD: &str = include_str!("reference.md");

/// A section with its doc comment and its keys.
struct Section {
    name: &'static str,
    about: Vec<&'static str>,
    keys: Vec<Key>,
}

/// A key with its doc comment and its default, or in a list an example, as TOML.
struct Key {
    name: &'static str,
    about: Vec<&'static str>,
    value: Value,
}

fn sections() -> Vec<Section> {
    let defaults = Table::try_from(Config::default()).expect("the defaults are strings, numbers and lists");
    SECTIONS.iter().map(|(name, source)| section(name, source, &defaults[*name])).collect()
}

fn lists() -> Vec<Section> {
    let list = |&(name, source, example): &(&'static str, &'static str, &str)| {
        let example: Table = toml::from_str(example).expect("the example is TOML");
        section(name, source, &example[name][0])
    };
    LISTS.iter().map(list).collect()
}

fn section(name: &'static str, source: &'static str, values: &Value) -> Section {
    let mut section = Section { name, about: Vec::new(), keys: Vec::new() };
    let mut about = Vec::new();
    for line in source.lines().map(str::trim).take_while(|line| !line.starts_with("impl ")) {
        if let Some(text) = line.strip_prefix("///") {
            about.push(text.trim());
        } else if line.starts_with("pub struct ") {
            section.about = std::mem::take(&mut about);
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
            let name = name.trim_start_matches("r#");
            section.keys.push(Key { name, about: std::mem::take(&mut about), value: values[name].clone() });
        }
    }
    section
}

fn file() -> String {
    let mut file = FILE_HEAD.to_owned();
    let comment = |about: &[&str]| about.iter().map(|line| format!("# {line}\n")).collect::<String>();
    for section in sections() {
        let _ = write!(file, "\n{}[{}]\n", comment(&section.about), section.name);
        file += &keys(&section, comment);
    }
    for list in lists() {
        let example = keys(&list, comment);
        let example: String = example.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect();
        let _ = write!(file, "\n{}#\n# [[{}]]\n{example}", comment(&list.about), list.name);
    }
    file
}

fn keys(section: &Section, comment: impl Fn(&[&str]) -> String) -> String {
    let keys = section.keys.iter().map(|key| format!("{}{} = {}\n", comment(&key.about), key.name, key.value));
    keys.collect::<Vec<_>>().join("\n")
}

fn page() -> String {
    let mut page = PAGE_HEAD.to_owned();
    for Section { name: section, about, keys } in sections() {
        let _ = write!(page, "\n## `[{section}]`\n\n{}\n", about.join("\n"));
        for Key { name, about, value } in keys {
            let variable = environment::variable(&[section, name]);
            let _ = write!(page, "\n### `{section}.{name}`\n\nDefault `{value}`, variable `{variable}`.\n\n");
            page += &about.join("\n").replace("docs/brokers.md", "[brokers.md](brokers.md)");
            page += "\n";
        }
    }
    for Section { name: list, about, keys } in lists() {
        let variable = environment::variable(&[list]);
        let _ = write!(page, "\n## `[[{list}]]`\n\n{}\n\n", about.join("\n"));
        let _ = writeln!(
            page,
            "A list of tables, in this order; default none. The variable `{variable}` replaces the whole list:\n`{variable}='[{{ match = \"news\" }}, {{ match = \"*\" }}]'`."
        );
        for Key { name, about, value } in keys {
            let _ = write!(page, "\n### `{list}.{name}`\n\nExample `{value}`.\n\n{}\n", about.join("\n"));
        }
    }
    page
}

/// Compares a file of the repository with what it should be, or writes it.
fn check(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    if env::var_os("FANFARE_WRITE").is_some() {
        fs::write(&path, expected).expect("the repository is writable");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {} of {name} is not as generated: run `./x docs`", number + 1);
    }
    assert_eq!(found.len(), expected.len(), "{name} is not as generated: run `./x docs`");
}

#[test]
fn the_example_file_has_every_key_under_its_doc_comment() {
    check("deploy/fanfare.toml", &file());
}

#[test]
fn the_configuration_page_has_every_key_with_its_default_and_variable() {
    check("docs/configuration.md", &page());
}

#[test]
fn every_key_is_documented() {
    let defaults = Table::try_from(Config::default()).expect("strings, numbers and lists");
    let documented = sections();
    assert_eq!(documented.len() + LISTS.len(), defaults.len());
    for section in documented {
        let mut names: Vec<_> = section.keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        let mut expected: Vec<_> = defaults[section.name].as_table().into_iter().flat_map(Table::keys).collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "[{}]", section.name);
        assert!(section.keys.iter().all(|key| !key.about.is_empty()), "[{}] has a key without words", section.name);
    }
}

#[test]
fn every_key_of_a_list_is_documented_and_in_its_example() {
    for ((name, _, example), list) in LISTS.iter().zip(lists()) {
        let config: Config = toml::from_str(example).expect("the example is valid");
        let read = Table::try_from(config).expect("strings, numbers and lists");
        let mut names: Vec<_> = list.keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        let mut expected: Vec<_> = read[*name][0].as_table().into_iter().flat_map(Table::keys).collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "[[{name}]]");
        assert!(list.keys.iter().all(|key| !key.about.is_empty()), "[[{name}]] has a key without words");
    }
}
