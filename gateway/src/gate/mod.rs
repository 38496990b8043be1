//! Decides what a client may do: the handshake and the commands of all protocols ask here, and nowhere else.
//!
//! A decision may take time. Meanwhile later commands on that connection wait in order, and other connections go on.
//! [`PATIENCE`] limits the time of a decision; the callers limit the number of pending ones.

mod names;

use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Config;
use crate::protocol::Failure;

/// How long a decision may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The proven identity of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The client has proven no identity.
    Anonymous,
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question<'a> {
    /// To connect to a path.
    Connect { path: &'a str },
    /// To receive the messages of a channel.
    Subscribe { channel: &'a str },
    /// To publish on a channel.
    Publish { channel: &'a str },
}

/// Whether an action is allowed, and if not, why.
pub(crate) type Verdict = Result<(), Failure>;

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
    fn judge(&self, identity: Identity, question: Question<'_>) -> Decision;
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
    fn judge(&self, Identity::Anonymous: Identity, question: Question<'_>) -> Decision {
        Decision::Now(match question {
            Question::Connect { .. } => Ok(()),
            Question::Subscribe { channel } | Question::Publish { channel } => names::check(channel, self.channel_name),
        })
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
            (Question::Publish { channel: "news" }, true),
            (Question::Subscribe { channel: "{app}/ws" }, false),
            (Question::Publish { channel: "" }, false),
        ] {
            let Decision::Now(verdict) = open.judge(Identity::Anonymous, question) else { panic!("it takes no time") };
            assert_eq!(verdict.is_ok(), allowed, "{question:?}");
        }
    }
}
