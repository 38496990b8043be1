//! `[hooks]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::config::{HookUrl, Secret, duration, number, optional};

/// Your backend decides: it is asked before the node lets a client in, subscribes it or publishes its message. docs/hooks.md has
/// the questions and the answers. The nodes follow no redirects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// URL that is asked about each client that brings no token and no ticket: https or http; empty means that nothing is asked.
    /// `auth.anonymous` then has no effect. Sockets of apps that embed the library are asked about too.
    #[serde(with = "optional")]
    pub connect: Option<HookUrl>,
    /// URL that is asked about subscriptions to channels whose rule says `subscribe = "hook"`.
    #[serde(with = "optional")]
    pub subscribe: Option<HookUrl>,
    /// URL that is asked about each message for a channel whose rule says `publish = "hook"`. The answer may change the message.
    #[serde(with = "optional")]
    pub publish: Option<HookUrl>,
    /// Which of "connect", "subscribe" and "publish" allow what they are asked about while your backend cannot be reached, is too
    /// slow, or gives no valid answer. The others then refuse it (`unavailable`), and clients try again.
    pub fail_open: Vec<Hook>,
    /// Time that your backend has for an answer; at most "10s".
    #[serde(serialize_with = "duration::serialize", deserialize_with = "within_ten_seconds")]
    pub timeout: Duration,
    /// Maximum number of questions of each hook that your backend has at a time. Others wait for 1 s at most, and are then refused
    /// (`overloaded`), also with `fail_open`. Set it to what your backend answers at once.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000>")]
    pub max_concurrent: usize,
    /// Headers of a client's request that `connect` passes on, such as "cookie", "authorization" or "user-agent".
    pub headers: Vec<String>,
    /// Secret by which your backend recognises the node, of at least 32 bytes: sent as `Authorization: Bearer SECRET`; empty means
    /// that none is sent. `openssl rand -hex 32` makes one.
    #[serde(with = "optional")]
    pub secret: Option<Secret>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            connect: None,
            subscribe: None,
            publish: None,
            fail_open: Vec::new(),
            timeout: Duration::from_secs(2),
            max_concurrent: 100,
            headers: vec!["cookie".to_owned()],
            secret: None,
        }
    }
}

impl Hooks {
    /// The URL of a hook.
    pub(crate) fn url(&self, hook: Hook) -> Option<&HookUrl> {
        match hook {
            Hook::Connect => self.connect.as_ref(),
            Hook::Subscribe => self.subscribe.as_ref(),
            Hook::Publish => self.publish.as_ref(),
        }
    }
}

/// What a backend can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Hook {
    /// Whether a client without a token may connect, and who it is.
    Connect,
    /// Whether a client may subscribe to a channel.
    Subscribe,
    /// Whether a client may publish a message.
    Publish,
}

impl Hook {
    /// All of them, in the order of the enum.
    pub(crate) const ALL: [Self; 3] = [Self::Connect, Self::Subscribe, Self::Publish];

    /// The word as configurations and questions have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
        }
    }
}

impl TryFrom<String> for Hook {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let expected = "expected \"connect\", \"subscribe\" or \"publish\"";
        Self::ALL.into_iter().find(|hook| hook.name() == text).ok_or(expected)
    }
}

/// A question holds up its client's later commands, so it must end soon.
fn within_ten_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let time = duration::deserialize(deserializer)?;
    let expected =
        || de::Error::custom("expected a duration of at most \"10s\": the client's later commands wait for it");
    if time <= Duration::from_secs(10) { Ok(time) } else { Err(expected()) }
}
