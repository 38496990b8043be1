//! What is doubtful in the rules of a valid configuration, for `fanfare check`. Reports only what is certain.
//!
//! Pure.

use super::names;
use super::pattern::{Name, Pattern};
use crate::config::{Channel, Config};

/// The warnings, in the order of the rules.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let channels = &config.channels;
    let mut warnings: Vec<String> =
        channels.iter().enumerate().filter_map(|(number, _)| unused(config, number)).collect();
    warnings.extend(unmatched(config));
    warnings
}

/// Why a rule never decides, if that is certain.
fn unused(config: &Config, number: usize) -> Option<String> {
    let rules = &config.channels;
    let rule = &rules[number];
    let shortest = rule.r#match.shortest();
    if let Err(failure) = names::check(&shortest, config.limits.channel_name.bytes()) {
        let why = failure.message;
        return Some(format!(
            "{} matches no valid name: the name {shortest:?} would be one of the shortest, and {why}",
            named(rule, number)
        ));
    }
    let earlier = rules[..number].iter().position(|earlier| earlier.r#match.covers(&rule.r#match))?;
    let (rule, earlier) = (named(rule, number), named(&rules[earlier], earlier));
    Some(format!("{rule} never decides: {earlier} matches the same names first. Put the narrower one first"))
}

/// The rule in words, with its place.
fn named(rule: &Channel, number: usize) -> String {
    let place = rule.place.as_ref().map_or_else(String::new, |place| format!(" {place}"));
    format!("rule {} of `channels` (`{}`{place})", number + 1, rule.r#match)
}

/// Which names no rule matches, if there are rules and such names are certain.
fn unmatched(config: &Config) -> Option<String> {
    let rules = &config.channels;
    // A segment that no pattern contains can only be matched by a placeholder.
    let other = |number: usize| if number == 0 { "other".to_owned() } else { format!("other{number}") };
    let free = (0..).map(other).find(|word| !rules.iter().any(|rule| rule.r#match.to_string().contains(word)))?;
    let matched = |name: &str| rules.iter().any(|rule| matches_for_any(&rule.r#match, name));
    let names = (1..=3).map(|count| vec![free.as_str(); count].join(":"));
    let name = names.into_iter().find(|name| !matched(name)).filter(|_| !rules.is_empty())?;
    Some(format!(
        "no rule of `channels` matches names such as {name:?}, so they are refused. If that is meant, say so with a last rule: \
         match = \"*\", subscribe = \"nobody\", publish = \"nobody\", history = \"nobody\""
    ))
}

/// Whether a pattern matches a name for some user: each segment of the name is the same word.
fn matches_for_any(pattern: &Pattern, name: &str) -> bool {
    pattern.matches(&Name::new(name), name.split(':').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: &[&str]) -> Vec<String> {
        let tables: String = rules.iter().map(|rule| format!("[[channels]]\nmatch = {rule:?}\n")).collect();
        let config: Config = toml::from_str(&format!("limits.channel_name = 20\n{tables}")).expect("valid");
        warnings(&config)
    }

    #[test]
    fn rules_that_each_decide_about_something_raise_no_warning() {
        for rules in [&[][..], &["*"], &["news", "chat:{room}", "chat:*", "{any}", "*"], &["a:{sub}", "a:{x}", "*"]] {
            assert_eq!(of(rules), [""; 0], "{rules:?}");
        }
    }

    #[test]
    fn a_rule_after_a_wider_one_is_reported() {
        let warnings = of(&["chat:*", "news", "chat:{room}", "*", "last"]);
        assert_eq!(
            warnings,
            [
                "rule 3 of `channels` (`chat:{room}`) never decides: rule 1 of `channels` (`chat:*`) matches the same names \
                 first. Put the narrower one first",
                "rule 5 of `channels` (`last`) never decides: rule 4 of `channels` (`*`) matches the same names first. Put \
                 the narrower one first",
            ]
        );
    }

    #[test]
    fn a_rule_without_a_valid_name_is_reported() {
        for rule in ["chat room", "a:very:long:name:indeed:*", "tab\there:{x}"] {
            let warnings = of(&[rule, "*"]);
            assert!(warnings.len() == 1 && warnings[0].contains("matches no valid name"), "{warnings:?}");
        }
    }

    #[test]
    fn names_that_no_rule_matches_are_reported_with_an_example() {
        for (rules, name) in [
            (&["chat:*"][..], "\"other\""),
            (&["other", "{any}"], "\"other1:other1\""),
            (&["{x}", "{x}:{y}"], "\"other:other:other\""),
            (&["other:*", "{x}"], "\"other1:other1\""),
        ] {
            let warnings = of(rules);
            assert!(warnings.len() == 1 && warnings[0].contains(name), "{name} in {warnings:?}");
        }
    }
}
