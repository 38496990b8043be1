//! Sections within sections and lists of tables, on a configuration that has them.

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Deep {
    auth: Auth,
    listeners: Vec<Listener>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Auth {
    tokens: Tokens,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tokens {
    issuer: String,
    max_age: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Listener {
    address: String,
}

fn layers(text: &str, variables: &[(&str, &str)]) -> Layers<Deep> {
    let mut layers = Layers::new();
    layers.file("FILE", text);
    layers.environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    layers
}

fn error(text: &str, variables: &[(&str, &str)]) -> String {
    layers(text, variables).read().expect_err("no such configuration is accepted").to_string()
}

#[test]
fn a_key_in_a_section_within_a_section_is_read_from_file_and_environment() {
    let file = "[auth.tokens]\nissuer = \"file\"\nmax_age = 3\n[[listeners]]\naddress = \"a\"\n[[listeners]]\naddress = \"b\"\n";
    let deep = layers(file, &[("FANFARE__AUTH__TOKENS__ISSUER", "variable")]).read().expect("all are valid");
    assert_eq!((deep.auth.tokens.issuer.as_str(), deep.auth.tokens.max_age), ("variable", 3));
    let addresses: Vec<_> = deep.listeners.iter().map(|listener| listener.address.as_str()).collect();
    assert_eq!(addresses, ["a", "b"]);
    let deep = layers("", &[("FANFARE__LISTENERS", "[{ address = \"c\" }]")]).read().expect("a list of tables");
    assert_eq!(deep.listeners[0].address, "c");
}

#[test]
fn an_unknown_name_at_any_depth_is_reported_with_its_line_and_the_nearest_name() {
    for (text, message) in [
        (
            "[auth.tokens]\nmax_ago = 3",
            "unknown key `auth.tokens.max_ago` in FILE (line 2): did you mean `auth.tokens.max_age`?",
        ),
        ("[auth]\nissuer = 3", "unknown key `auth.issuer` in FILE (line 2): did you mean `auth.tokens.issuer`?"),
        ("[auth.tokns]\nissuer = 3", "unknown section `[auth.tokns]` in FILE (line 1): did you mean `[auth.tokens]`?"),
        (
            "[auth]\ntokens = 3",
            "unknown key `auth.tokens` in FILE (line 2): it is a section: write `[auth.tokens]` on a line of its own, then its keys",
        ),
        (
            "[[listeners]]\naddress = \"a\"\n[[listeners]]\nadress = \"b\"",
            "unknown key `listeners.adress` in FILE (line 4): did you mean `listeners.address`?",
        ),
        ("listeners = [{ port = 3 }]", "unknown key `listeners.port` in FILE (line 1): there are listeners.address"),
    ] {
        assert_eq!(error(text, &[]), message);
    }
    for (name, message) in [
        (
            "FANFARE__AUTH__TOKENS__MAXAGE",
            "unknown environment variable `FANFARE__AUTH__TOKENS__MAXAGE`: did you mean `FANFARE__AUTH__TOKENS__MAX_AGE`?",
        ),
        (
            "FANFARE__AUTH_TOKENS__MAX_AGE",
            "unknown environment variable `FANFARE__AUTH_TOKENS__MAX_AGE`: did you mean `FANFARE__AUTH__TOKENS__MAX_AGE`?",
        ),
    ] {
        assert_eq!(error("", &[(name, "3")]), message);
    }
}
