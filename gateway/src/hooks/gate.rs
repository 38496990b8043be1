//! The judge of a node with hooks: the rules first, then the backend.

use std::sync::Arc;

use bytes::Bytes;

use super::answer::Decision as Answer;
use super::counters::Answered;
use super::line::{Asked, Line, Settled};
use super::{Hooks, question};
use crate::config::Hook;
use crate::gate::{
    Backend, Decision, Identity, Introduction, Judge, Permission, Policy, Question, Right, Rules, Ruling, Visitor,
};
use crate::protocol::Failure;

/// Decides by the rules, and asks the backend where they say so.
pub(crate) struct Gate {
    rules: Rules,
    hooks: Hooks,
    /// The most bytes of a message.
    message: usize,
}

impl Gate {
    pub(crate) fn new(rules: Rules, hooks: Hooks, message: usize) -> Self {
        Self { rules, hooks, message }
    }
}

impl Judge for Gate {
    fn judge(&self, identity: &Arc<Identity>, question: Question<'_>) -> Decision {
        let policy = match self.rules.rule(identity, question) {
            Ok(Ruling::Ask(policy)) => policy,
            Ok(Ruling::Allowed(policy)) => return Decision::Now(Ok(policy)),
            Err(failure) => return Decision::Now(Err(failure)),
        };
        let user = identity.user();
        let (hook, json, most) = match question {
            Question::Publish { channel, payload } => {
                let most = self.rules.largest(channel, user).map_or(self.message, |most| most.min(self.message));
                (Hook::Publish, question::publish(user, channel, payload), most)
            }
            Question::Subscribe { channel } => (Hook::Subscribe, question::subscribe(user, channel), 0),
            // The configuration lets no rule leave these to a backend.
            Question::Connect { .. } | Question::History { .. } | Question::Presence { .. } => {
                return Decision::Now(Err(unasked()));
            }
        };
        let Some(line) = self.hooks.line(hook) else { return Decision::Now(Err(unasked())) };
        match line.ask(json, most) {
            Asked::Now(settled) => Decision::Now(line.permission(settled, policy).map(|permission| permission.policy)),
            Asked::Later(receiver) => {
                let line = Arc::clone(line);
                Decision::Later(Box::pin(async move {
                    let settled = line.settled(receiver).await;
                    line.permission(settled, policy)
                }))
            }
        }
    }

    fn introduce(&self, visitor: &Visitor<'_>) -> Option<Introduction> {
        let line = Arc::clone(self.hooks.line(Hook::Connect)?);
        let json: Bytes = question::connect(visitor, &self.hooks.passed);
        Some(Box::pin(async move {
            let settled = match line.ask(json, 0) {
                Asked::Now(settled) => settled,
                Asked::Later(receiver) => line.settled(receiver).await,
            };
            line.identity(settled)
        }))
    }

    fn judge_backend(&self, backend: &Backend, right: Right, channel: &str) -> Result<Option<usize>, Failure> {
        self.rules.judge_backend(backend, right, channel)
    }
}

impl Line {
    /// What the end of a question allows, if it allows anything.
    fn permission(&self, settled: Settled, policy: Policy) -> Result<Permission, Failure> {
        let payload = match self.allowed(settled)?.as_deref().map(|answer| &answer.decision) {
            Some(Answer::Changed(payload)) => Some(payload.clone()),
            _ => None,
        };
        Ok(Permission { policy, payload })
    }

    /// Who the client is, if it may connect.
    fn identity(&self, settled: Settled) -> Result<Arc<Identity>, Failure> {
        Ok(match self.allowed(settled)?.as_deref().map(|answer| &answer.decision) {
            Some(Answer::Introduced(identity)) => Arc::clone(identity),
            _ => Identity::anonymous(),
        })
    }

    /// The answer that allows it; `None` if it is allowed because there is no valid answer.
    fn allowed(&self, settled: Settled) -> Result<Option<Arc<super::answer::Answer>>, Failure> {
        let counters = self.terms.counters.of(self.terms.hook);
        match settled {
            Settled::Answered(answer, kept) => {
                let refused = match &answer.decision {
                    Answer::Refused(failure) => Some(failure.clone()),
                    _ => None,
                };
                counters.answered(match &refused {
                    _ if kept => Answered::Kept,
                    Some(_) => Answered::Refused,
                    None => Answered::Allowed,
                });
                refused.map_or(Ok(Some(answer)), Err)
            }
            Settled::Failed(_) if self.terms.fails_open => {
                counters.answered(Answered::FailedOpen);
                Ok(None)
            }
            Settled::Failed(rest) => {
                counters.answered(Answered::FailedClosed);
                let after = rest.map_or(1000, |rest| u64::try_from(rest.as_millis()).unwrap_or(u64::MAX).max(1));
                let why = "the application's backend gives no valid answer about this: try again";
                Err(Failure::for_a_time("unavailable", why, after))
            }
            Settled::Overloaded => {
                counters.answered(Answered::Overloaded);
                Err(Failure::for_a_time(
                    "overloaded",
                    "too many questions wait for the application's backend: try again",
                    1000,
                ))
            }
        }
    }
}

fn unasked() -> Failure {
    Failure::for_now("unavailable", "only the backend can decide this, and there is no URL to ask (`hooks`)")
}
