//! Environment variables as a source: `FANFARE__SECTION__KEY`, and one more `__` for each section within a section.

use toml::{Table, Value};

const PREFIX: &str = "FANFARE__";

/// The variable for a key.
pub(super) fn variable(path: &[&str]) -> String {
    format!("{PREFIX}{}", path.join("__")).to_uppercase()
}

/// The key, as `section.key`, that a variable sets; `None` if it is not a variable of Fanfare.
///
/// Names with a single underscore, such as `FANFARE_SERVICE_HOST`, are set by Kubernetes.
pub(super) fn path(variable: &str) -> Option<String> {
    variable.strip_prefix(PREFIX).map(|rest| rest.to_lowercase().replace("__", "."))
}

/// Whether two names differ only in case and the number of underscores, as `FANFARE_HTTP_LISTEN` and
/// `FANFARE__HTTP__LISTEN` do.
pub(super) fn same_but_for_underscores(one: &str, other: &str) -> bool {
    let words = |name: &str| name.to_uppercase().replace("__", "_");
    words(one) == words(other)
}

/// The value that a variable's text stands for, where `like` is a value of the right type.
///
/// TOML if it is TOML of that type, items between commas for a list, else the text itself.
pub(super) fn value(text: &str, like: &Value) -> Value {
    let toml = toml::from_str::<Table>(&format!("value = {text}")).ok().filter(|table| table.len() == 1);
    match (toml.and_then(|mut table| table.remove("value")), like) {
        (Some(value), like) if value.same_type(like) => value,
        (_, Value::Array(_)) if !text.starts_with('[') => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect::<Vec<_>>().into()
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_names_a_section_and_a_key() {
        assert_eq!(variable(&["limits", "outbox_total"]), "FANFARE__LIMITS__OUTBOX_TOTAL");
        for (name, expected) in [
            ("FANFARE__HTTP__LISTEN", Some("http.listen")),
            ("FANFARE__LIMITS__OUTBOX_TOTAL", Some("limits.outbox_total")),
            ("FANFARE__AUTH__TOKENS__MAX_AGE", Some("auth.tokens.max_age")),
            ("FANFARE__HTTP", Some("http")),
            ("FANFARE__", Some("")),
            ("FANFARE_SERVICE_HOST", None),
            ("PATH", None),
        ] {
            assert_eq!(path(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_value_is_read_as_what_its_key_needs() {
        let (text, number, list) = (Value::from(""), Value::from(1), Value::Array(Vec::new()));
        for (given, like, expected) in [
            ("25s", &text, Value::from("25s")),
            ("\"25s\"", &text, Value::from("25s")),
            ("123", &text, Value::from("123")),
            ("true", &text, Value::from("true")),
            ("1\nb = 1", &number, Value::from("1\nb = 1")),
            ("100_000", &number, Value::from(100_000)),
            ("many", &number, Value::from("many")),
            ("https://a, https://b", &list, Value::from(vec!["https://a", "https://b"])),
            ("[\"https://a\"]", &list, Value::from(vec!["https://a"])),
            ("*", &list, Value::from(vec!["*"])),
            ("", &list, Value::Array(Vec::new())),
            ("[\"https://a\"", &list, Value::from("[\"https://a\"")),
        ] {
            assert_eq!(value(given, like), expected, "{given}");
        }
    }
}
