//! The node's name, which goes into headers and logs and so is plain ASCII without spaces.

use std::fmt;

use serde::{Deserializer, de};

const LONGEST: usize = 128;

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Name)
}

/// `<hostname>-<process>`: the kernel's hostname, else the variable `HOSTNAME`, else `node`.
pub(super) fn derived(
    kernel: Option<String>,
    environment: impl IntoIterator<Item = (String, String)>,
    process: u32,
) -> String {
    let variable = || environment.into_iter().find(|(name, _)| name == "HOSTNAME").map(|(_, value)| value);
    let known = |name: &String| !name.trim().is_empty();
    let host = kernel.filter(known).or_else(variable).filter(known).unwrap_or_else(|| "node".into());
    let host = host.trim().replace(|c: char| !c.is_ascii_graphic(), "-");
    format!("{}-{process}", host.get(..LONGEST).unwrap_or(&host))
}

struct Name;

impl de::Visitor<'_> for Name {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name of up to {LONGEST} ASCII characters without spaces")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        if text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(text.to_owned())
        } else {
            Err(E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_name_is_made_of_host_and_process() {
        let variable = || [("HOSTNAME".to_owned(), "from-env".to_owned())];
        assert_eq!(derived(Some("kernel\n".into()), variable(), 7), "kernel-7");
        assert_eq!(derived(None, variable(), 7), "from-env-7");
        assert_eq!(derived(Some("\n".into()), variable(), 7), "from-env-7");
        assert_eq!(derived(None, [], 7), "node-7");
    }

    #[test]
    fn a_derived_name_is_as_plain_as_a_given_one() {
        assert_eq!(derived(Some("my höst\n".into()), [], 7), "my-h-st-7");
        assert_eq!(derived(Some("x".repeat(300)), [], 7), format!("{}-7", "x".repeat(LONGEST)));
    }
}
