//! Decides what a client may do: the handshake and the commands of all protocols ask here, and nowhere else.
//!
//! A decision may take time. Meanwhile later commands on that connection wait in order, and other connections go on.
//! [`PATIENCE`] limits the time of a decision; the callers limit the number of pending ones.

mod allowance;
mod backend;
mod explain;
mod guesses;
mod identity;
mod names;
mod pace;
mod parties;
mod pattern;
mod permission;
mod policy;
mod rights;
mod rules;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::Payload;
use tokio::time::timeout;

pub(crate) use self::allowance::{Allowance, Limiter, Refusal};
pub(crate) use self::backend::Backend;
pub use self::backend::Right;
pub(crate) use self::explain::{Answer, explain};
pub(crate) use self::guesses::Guesses;
pub(crate) use self::identity::Token;
pub(crate) use self::identity::{Extras, Identity};
pub(crate) use self::pace::{Moment, Rate, SharedPace};
pub(crate) use self::pattern::Name;
pub use self::pattern::{InvalidPattern, Pattern};
pub(crate) use self::permission::{Introduction, Pending, Permission, Visitor};
pub use self::policy::{Attendance, Slow};
pub(crate) use self::policy::{Policy, RuleRate};
pub(crate) use self::rights::Rights;
pub(crate) use self::rights::{Grant, Verb};
pub(crate) use self::rules::{Rules, Ruling};
pub(crate) use self::warnings::warnings;
use crate::protocol::Failure;

/// How long a decision may take: longer than a hook takes, which waits for its turn and has at most 10 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question<'a> {
    /// To connect to a path.
    Connect { path: &'a str },
    /// To receive the messages of a channel.
    Subscribe { channel: &'a str },
    /// To publish a message on a channel.
    Publish { channel: &'a str, payload: &'a Payload },
    /// To read older messages of a channel.
    History { channel: &'a str },
    /// To see who is subscribed to a channel.
    Presence { channel: &'a str },
}

/// Whether an action is allowed and how it is carried out, or why it is not allowed.
pub(crate) type Verdict = Result<Policy, Failure>;

/// The answer to a question.
pub(crate) enum Decision {
    /// The verdict, at once.
    Now(Verdict),
    /// A verdict that takes time. Await it with [`verdict`].
    Later(Pending),
}

/// Decides what clients may do.
pub(crate) trait Judge: Send + Sync {
    /// Decides whether a client may do what it asks for. Must not block: a decision that takes time is a
    /// [`Decision::Later`].
    fn judge(&self, identity: &Arc<Identity>, question: Question<'_>) -> Decision;

    /// Who a client without a token is, if a backend says so. `None` if no backend is asked.
    fn introduce(&self, _visitor: &Visitor<'_>) -> Option<Introduction> {
        None
    }

    /// Decides whether the holder of a key of the API may do something on a channel. Returns the size of the largest message
    /// that the channel's rule allows, if it says one.
    fn judge_backend(&self, backend: &Backend, right: Right, channel: &str) -> Result<Option<usize>, Failure>;
}

/// Waits for a verdict, for at most [`PATIENCE`].
pub(crate) async fn verdict(pending: Pending) -> Result<Permission, Failure> {
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
}
