//! The broker's URL. It may hold a password, so every way of printing it leaves that out.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The broker's URL. `Debug`, `Display` and `Serialize` give it [`redacted`].
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// The URL with its secrets: for connecting, never for printing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The log inside the node.
impl Default for BrokerUrl {
    fn default() -> Self {
        Self("memory:".into())
    }
}

/// Text that does not start with a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct NotAUrl;

const EXPECTED: &str =
    "\"memory:\" or a URL such as \"redis://localhost\", \"kafka://localhost\" or \"amqp://localhost\"";

impl FromStr for BrokerUrl {
    type Err = NotAUrl;

    fn from_str(text: &str) -> Result<Self, NotAUrl> {
        let (scheme, rest) = text.split_once(':').ok_or(NotAUrl)?;
        let letters = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(letters);
        // Otherwise `localhost:6379` would count as a scheme and a path.
        let port = rest.parse::<u16>().is_ok();
        if named && !port { Ok(Self(text.to_owned())) } else { Err(NotAUrl) }
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redacted(&self.0))
    }
}

impl Serialize for BrokerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BrokerUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = BrokerUrl;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<BrokerUrl, E> {
        text.parse().map_err(E::custom)
    }
}

/// The URL with `***` for its password and for secrets in its query: `redis://user:***@host?token=***`.
///
/// It hides too much rather than too little: all text between the user and the *last* `@`, since people paste passwords
/// without escapes; and a user without a password, since that may be a token.
#[must_use]
pub fn redacted(url: &str) -> String {
    let after_scheme = url.find("://").map(|at| at + 3).or_else(|| url.find(':').map(|at| at + 1)).unwrap_or(0);
    let (scheme, rest) = url.split_at(after_scheme);
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => match user.split_once(':') {
            Some((name, password)) if !password.is_empty() => (format!("{name}:***@"), rest),
            _ => ("***@".to_owned(), rest),
        },
        None => (String::new(), rest),
    };
    let Some((path, query)) = rest.split_once('?') else {
        return format!("{scheme}{user}{rest}");
    };
    let query: Vec<String> = query.split('&').map(redacted_parameter).collect();
    format!("{scheme}{user}{path}?{}", query.join("&"))
}

fn redacted_parameter(parameter: &str) -> String {
    const SECRETS: [&str; 6] = ["pass", "pwd", "token", "secret", "key", "credential"];
    match parameter.split_once('=') {
        Some((name, _)) if SECRETS.iter().any(|secret| name.to_ascii_lowercase().contains(secret)) => {
            format!("{name}=***")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_url_keeps_all_but_its_secrets() {
        for (url, printed) in [
            ("memory:", "memory:"),
            ("redis://host:6379/2", "redis://host:6379/2"),
            ("redis://user:pw@host:6379/2", "redis://user:***@host:6379/2"),
            ("rediss://:pw@host/#insecure", "rediss://:***@host/#insecure"),
            ("redis://user:p@ss/w?o#rd@host", "redis://user:***@host"),
            ("amqp://token@host", "amqp://***@host"),
            ("amqp://token:@host", "amqp://***@host"),
            ("amqp://u:p@a:5672,u:p@b:5672/", "amqp://u:***@b:5672/"),
            ("kafka://a:9092,b:9092?acks=all", "kafka://a:9092,b:9092?acks=all"),
            (
                "kafka://a?sasl.Password=x&acks=all&access_token=y=z&",
                "kafka://a?sasl.Password=***&acks=all&access_token=***&",
            ),
            ("redis://u:p@h?password=x", "redis://u:***@h?password=***"),
            ("redis:u:p@h", "redis:u:***@h"),
            ("", ""),
        ] {
            assert_eq!(redacted(url), printed);
        }
    }

    #[test]
    fn a_url_starts_with_a_scheme() {
        for url in ["memory:", "redis://host", "kafka+ssl://a:1,b:2", "unix:/run/redis.sock"] {
            assert!(url.parse::<BrokerUrl>().is_ok(), "{url}");
        }
        for text in ["", "redis", "localhost:6379", "://host", "127.0.0.1:6379", "my host://x"] {
            assert_eq!(text.parse::<BrokerUrl>(), Err(NotAUrl), "{text}");
        }
    }
}
