//! Decides what a client may do: the handshake and the commands of all protocols ask here, and nowhere else.
//!
//! A decision may take time. Meanwhile later commands on that connection wait in order, and other connections go on.
//! [`PATIENCE`] limits the time of a decision; the callers limit the number of pending ones.

mod identity;
mod names;
mod pattern;
mod rights;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

pub(crate) use self::identity::{Identity, Token};
pub(crate) use self::pattern::{InvalidPattern, Pattern};
pub(crate) use self::rights::{Grant, Rights, Verb};
use crate::config::Config;
use crate::protocol::Failure;

/// How long a decision may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question<'a> {
    /// To connect to a path.
    Connect { path: &'a str },
    /// To receive the messages of a channel.
    Subscribe { channel: &'a str },
    /// To publish a message of this many bytes on a channel.
    Publish { channel: &'a str, bytes: usize },
    /// To read older messages of a channel.
    History { channel: &'a str },
}

/// How an allowed action is carried out: what the channel's rule says besides yes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What happens to a subscriber that reads too slowly.
    pub(crate) slow: Slow,
    /// The most messages that a new subscriber may ask for with `last`; `None` means no limit but the protocol's.
    pub(crate) last: Option<u32>,
    /// The most publishes per second of one connection on channels of this rule.
    pub(crate) rate: Option<u32>,
    /// Whether messages name their publisher.
    pub(crate) tell_publisher: bool,
}

/// What happens to a subscriber that reads more slowly than messages come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Slow {
    /// It is closed with 4410, and resumes.
    #[default]
    Disconnect,
    /// It skips to the newest message, and is notified of the number of messages that it missed.
    Latest,
}

/// Whether an action is allowed and how it is carried out, or why it is not allowed.
pub(crate) type Verdict = Result<Policy, Failure>;

/// A pending verdict.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Verdict>>>;

/// The answer to a question.
pub(crate) enum Decision {
    /// The verdict, at once.
    Now(Verdict),
    /// A verdict that takes time. Await it with [`verdict`].
    #[cfg_attr(not(test), expect(dead_code, reason = "decisions that wait come with tokens and hooks"))]
    Later(Pending),
}

/// Decides what clients may do.
pub(crate) trait Judge: Send + Sync {
    /// Decides whether a client may do what it asks for. Must not block: a decision that takes time is a
    /// [`Decision::Later`].
    fn judge(&self, identity: &Arc<Identity>, question: Question<'_>) -> Decision;
}

/// Allows every client everything, on every channel with a valid name.
#[derive(Debug)]
pub(crate) struct Open {
    /// The longest name of a channel, in bytes.
    channel_name: usize,
}

impl Open {
    pub(crate) fn new(config: &Config) -> Self {
        Self { channel_name: config.limits.channel_name.bytes() }
    }
}

impl Judge for Open {
    fn judge(&self, _identity: &Arc<Identity>, question: Question<'_>) -> Decision {
        let named = match question {
            Question::Connect { .. } => Ok(()),
            Question::Subscribe { channel } | Question::Publish { channel, .. } | Question::History { channel } => {
                names::check(channel, self.channel_name)
            }
        };
        Decision::Now(named.map(|()| Policy::default()))
    }
}

/// Waits for a verdict, for at most [`PATIENCE`].
pub(crate) async fn verdict(pending: Pending) -> Verdict {
    let late =
        |_| Err(Failure::for_now("unavailable", "it took too long to decide whether this is allowed: try again"));
    timeout(PATIENCE, pending).await.unwrap_or_else(late)
}

/// The failure of a question when too many decisions are pending.
pub(crate) fn too_many() -> Failure {
    Failure::for_now("overloaded", "too many decisions are pending on this node: try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_decision_that_never_comes_is_a_failure_to_retry_after_a_bounded_time() {
        let begin = tokio::time::Instant::now();
        let failure = verdict(Box::pin(std::future::pending())).await.expect_err("the decision never comes");
        assert_eq!((failure.code, failure.retry, begin.elapsed()), ("unavailable", true, PATIENCE));
    }

    #[test]
    fn without_rules_every_valid_name_is_allowed() {
        let open = Open::new(&Config::default());
        for (question, allowed) in [
            (Question::Connect { path: "/" }, true),
            (Question::Subscribe { channel: "news" }, true),
            (Question::Publish { channel: "news", bytes: 1 }, true),
            (Question::Subscribe { channel: "{app}/ws" }, false),
            (Question::Publish { channel: "", bytes: 1 }, false),
        ] {
            let Decision::Now(verdict) = open.judge(&Identity::anonymous(), question) else { panic!("it takes no time") };
            assert_eq!(verdict.is_ok(), allowed, "{question:?}");
        }
    }
}
