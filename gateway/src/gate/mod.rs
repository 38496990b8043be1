//! The one place that decides what a client may do: handshakes and the commands of every protocol ask here.
//!
//! A decision may take time. While it does, the commands that follow on that connection wait in their order, and all
//! other connections go on. Waiting is bounded in time, by [`PATIENCE`], and in number, by those who ask.

mod names;

use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Config;
use crate::protocol::Failure;

/// How long a decision may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// For whom a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// For anyone: the client has proven nothing.
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

/// Whether a client may do it, and if not, why.
pub(crate) type Verdict = Result<(), Failure>;

/// A verdict that is yet to come.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Verdict>>>;

/// The answer to a question.
pub(crate) enum Decision {
    /// It is decided.
    Now(Verdict),
    /// It takes time; ask for the verdict with [`verdict`].
    #[cfg_attr(not(test), expect(dead_code, reason = "decisions that wait come with tokens and hooks"))]
    Later(Pending),
}

/// Decides.
pub(crate) trait Judge: Send + Sync {
    /// Whether a client may do what it asks for. Never blocks: what takes time is a [`Decision::Later`].
    fn judge(&self, identity: Identity, question: Question<'_>) -> Decision;
}

/// Lets every client do everything, on every channel whose name is a good one.
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

/// Waits for a verdict, for a bounded time.
pub(crate) async fn verdict(pending: Pending) -> Verdict {
    let late =
        |_| Err(Failure::for_now("unavailable", "it took too long to decide whether this is allowed: try again"));
    timeout(PATIENCE, pending).await.unwrap_or_else(late)
}

/// The failure of a question for which there is no room among those that wait.
pub(crate) fn too_many() -> Failure {
    Failure::for_now("overloaded", "too many decisions are pending on this node: try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_decision_that_never_comes_is_a_failure_to_retry_after_a_bounded_time() {
        let begin = tokio::time::Instant::now();
        let failure = verdict(Box::pin(std::future::pending())).await.expect_err("it never comes");
        assert_eq!((failure.code, failure.retry, begin.elapsed()), ("unavailable", true, PATIENCE));
    }

    #[test]
    fn without_rules_every_good_name_is_allowed() {
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
