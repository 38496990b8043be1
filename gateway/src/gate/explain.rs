//! Explains a decision for `fanfare explain`: the rule, what it asks for, what the client has, and the answer.
//!
//! Pure. Shows the user's name and the token's channels, never the token.

use std::fmt;

use broker_adapters::Payload;
use bytes::Bytes;

use super::Question;
use super::identity::Identity;
use super::pattern::Name;
use super::rights::{Rights, Verb};
use super::rules::{Ask, Rules, Ruling, ask, said};
use crate::columns::wrapped;
use crate::config::{Channel, Config, Hook, Who};
use crate::protocol::Failure;

/// A message whose size no rule forbids.
const EMPTY: Payload = Payload::Text(Bytes::new());
/// The column in which texts begin.
const INDENT: usize = 10;

/// Why a client may or may not do something. Printed, it has a line for each step.
pub(crate) struct Explanation<'a> {
    config: &'a Config,
    identity: &'a Identity,
    verb: Verb,
    channel: &'a str,
    /// The number of the rule that decides, from 0.
    deciding: Option<usize>,
    ruling: Result<Ruling, Failure>,
}

/// Whether a client may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    /// The backend decides, each time.
    Hook,
}

/// Decides and explains.
pub(crate) fn explain<'a>(config: &'a Config, identity: &'a Identity, verb: Verb, channel: &'a str) -> Explanation<'a> {
    let rules = Rules::new(config);
    let question = match verb {
        Verb::Subscribe => Question::Subscribe { channel },
        Verb::Presence => Question::Presence { channel },
        Verb::Publish => Question::Publish { channel, payload: &EMPTY },
        Verb::History => Question::History { channel },
    };
    let deciding = rules.deciding(&Name::new(channel), identity.user());
    let ruling = rules.rule(identity, question);
    Explanation { config, identity, verb, channel, deciding, ruling }
}

impl Explanation<'_> {
    pub(crate) fn answer(&self) -> Answer {
        match self.ruling {
            Ok(Ruling::Allowed(_)) => Answer::Yes,
            Ok(Ruling::Ask(_)) => Answer::Hook,
            Err(_) => Answer::No,
        }
    }

    /// Which backend decides. The configuration has a URL for each hook that a rule asks.
    fn backend(&self) -> String {
        let hook = if self.verb == Verb::Publish { Hook::Publish } else { Hook::Subscribe };
        let url = self.config.hooks.url(hook).map_or_else(String::new, |url| format!(", {}", url.shown()));
        format!("your backend decides each time: the node asks `hooks.{}`{url}", hook.name())
    }
    fn client(&self) -> String {
        match (self.identity.user(), self.identity.token) {
            (Some(user), _) => format!("user {user:?}"),
            (None, Some(_)) => "a token that names no user".to_owned(),
            (None, None) => "anonymous".to_owned(),
        }
    }

    fn rule(&self) -> String {
        let channels = &self.config.channels;
        let Some(number) = self.deciding else {
            return match channels.len() {
                0 => "none: this configuration has no rules".to_owned(),
                1 => "none: the only rule does not match".to_owned(),
                count => format!("none: none of the {count} rules matches"),
            };
        };
        let Channel { r#match, place, .. } = &channels[number];
        let place = place.as_ref().map_or_else(String::new, |place| format!(" {place}"));
        format!("number {} of {}, match = \"{match}\"{place}", number + 1, channels.len())
    }

    fn asked(&self) -> String {
        let verb = self.verb.name();
        let listed = "a token that lists channels must grant it; all other clients may";
        let Some(number) = self.deciding else {
            let none = "with rules, a channel that none of them matches is refused";
            return if self.config.channels.is_empty() { listed.to_owned() } else { none.to_owned() };
        };
        let rule = &self.config.channels[number];
        match ask(rule, self.verb) {
            Ask::Listed => format!("the rule says nothing about access, so {listed}"),
            Ask::For(who) => {
                let means = match who {
                    Who::Anyone => "every client that may connect",
                    Who::User => "a client with a user",
                    Who::Token => "a token that grants it on this channel",
                    Who::Hook => "your backend's consent, each time",
                    Who::Nobody => "no client may",
                };
                let implied = said(rule, self.verb).is_none();
                let why = if implied { ", since the rule names other verbs only" } else { "" };
                let key = if self.verb == Verb::Presence { "see_presence" } else { verb };
                format!("{key} = \"{}\"{why}: {means}", who.name())
            }
        }
    }

    fn granted(&self) -> Option<String> {
        self.identity.token?;
        Some(match self.identity.rights.as_deref() {
            None => "lists no channels".to_owned(),
            Some(Rights(grants)) if grants.is_empty() => "lists channels, and the list is empty".to_owned(),
            Some(rights) => match rights.grant(self.verb, self.channel, self.identity.user()) {
                Some(grant) => format!("grants it: match = \"{}\"", grant.pattern),
                None => {
                    let word = |grant: &super::Grant| {
                        let verbs: Vec<_> = grant.can.iter().map(|verb| verb.name()).collect();
                        format!("\"{}\": {}", grant.pattern, verbs.join(", "))
                    };
                    let grants: Vec<_> = rights.0.iter().map(word).collect();
                    format!("does not grant it. It grants {}", grants.join("; "))
                }
            },
        })
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = match &self.ruling {
            Ok(Ruling::Allowed(_)) => "yes".to_owned(),
            Ok(Ruling::Ask(_)) => self.backend(),
            Err(failure) => format!("no ({}): {}", failure.code, failure.message),
        };
        let lines = [
            ("question", Some(format!("may this client {} {:?}?", phrase(self.verb), self.channel))),
            ("client", Some(self.client())),
            ("rule", Some(self.rule())),
            ("needs", Some(self.asked())),
            ("token", self.granted()),
            ("answer", Some(answer)),
        ];
        let lines = lines.into_iter().filter_map(|(name, text)| Some((name, text?)));
        for (number, (name, text)) in lines.enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{name:INDENT$}")?;
            wrapped(f, INDENT, &text)?;
        }
        Ok(())
    }
}

fn phrase(verb: Verb) -> &'static str {
    match verb {
        Verb::Subscribe => "subscribe to",
        Verb::Publish => "publish on",
        Verb::History => "read older messages of",
        Verb::Presence => "read the presence of",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gate::Token;

    const RULES: &str = "\
        [[channels]]\nmatch = \"news\"\nsubscribe = \"anyone\"\n\
        [[channels]]\nmatch = \"chat:*\"\npublish = \"user\"\nsubscribe = \"token\"\n\
        [[channels]]\nmatch = \"plain:*\"\nslow = \"latest\"\n";

    const ASKING: &str = "\
        [hooks]\nsubscribe = \"https://app.example/s?token=canary\"\npublish = \"https://app.example/p\"\n\
        [[channels]]\nmatch = \"*\"\nsubscribe = \"hook\"\npublish = \"hook\"\nhistory = \"nobody\"\n";

    fn token(user: &str, rights: Option<&str>) -> Identity {
        let grant = |pattern: &str| super::super::Grant {
            pattern: pattern.parse().expect("a pattern"),
            can: Box::new([Verb::Subscribe]),
        };
        Identity {
            user: Some(user.into()),
            rights: rights.map(|pattern| Arc::new(Rights(Box::new([grant(pattern)])))),
            token: Some(Token::new(1, None, None)),
            ..Identity::default()
        }
    }

    #[test]
    fn an_explanation_names_the_rule_the_need_the_grant_and_the_answer() {
        let (ruled, free): (Config, Config) = (toml::from_str(RULES).expect("valid"), Config::default());
        let (ann, limited, nameless) = (token("ann", None), token("ann", Some("chat:1")), Identity::default());
        for (config, identity, verb, channel, lines) in [
            (&free, &nameless, Verb::Publish, "news", &["no rules", "anonymous", "answer    yes"][..]),
            (&free, &limited, Verb::Publish, "news", &["\"chat:1\": subscribe", "answer    no (forbidden)"]),
            (&ruled, &nameless, Verb::Subscribe, "news", &["number 1 of 3", "subscribe = \"anyone\"", "answer    yes"]),
            (&ruled, &nameless, Verb::Publish, "news", &["publish = \"token\", since", "answer    no (unauthorised)"]),
            (&ruled, &limited, Verb::Subscribe, "chat:1", &["number 2 of 3", "grants it: match = \"chat:1\"", "yes"]),
            (&ruled, &limited, Verb::Subscribe, "chat:2", &["does not grant it", "answer    no (forbidden)"]),
            (
                &ruled,
                &ann,
                Verb::Publish,
                "chat:2",
                &["user \"ann\"", "publish = \"user\"", "lists no channels", "yes"],
            ),
            (&ruled, &nameless, Verb::History, "plain:1", &["says nothing about access", "answer    yes"]),
            (&ruled, &ann, Verb::History, "other", &["none of the 3 rules", "answer    no (forbidden)"]),
            (&ruled, &ann, Verb::Subscribe, "a b", &["answer    no (bad_channel)"]),
        ] {
            let text = explain(config, identity, verb, channel).to_string();
            for line in lines {
                assert!(text.contains(line), "{line} in\n{text}");
            }
        }
    }

    #[test]
    fn a_rule_that_asks_a_hook_is_neither_a_yes_nor_a_no_and_names_the_url_without_its_secret() {
        let config: Config = toml::from_str(ASKING).expect("valid");
        let nameless = Identity::default();
        for (verb, channel, answer, words) in [
            (Verb::Subscribe, "a", Answer::Hook, "asks `hooks.subscribe`, https://app.example/s?token=***"),
            (Verb::Publish, "a", Answer::Hook, "asks `hooks.publish`, https://app.example/p"),
            (Verb::History, "a", Answer::No, "answer    no (forbidden)"),
            (Verb::Subscribe, "a b", Answer::No, "answer    no (bad_channel)"),
        ] {
            let explanation = explain(&config, &nameless, verb, channel);
            let text = explanation.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(explanation.answer(), answer, "{text}");
            assert!(text.contains(&words) && !text.contains("canary"), "{words} in {text}");
        }
    }
}
