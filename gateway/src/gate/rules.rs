//! The rules of `[[channels]]`, as the gate applies them: the first rule that matches a channel decides.
//!
//! Decides at once, without allocation for what is allowed. The rules never change while the node runs.

use std::sync::Arc;

use super::backend::{Backend, Right};
use super::identity::Identity;
use super::pace::Rate;
use super::pattern::{Name, Pattern};
use super::policy::{Attendance, Policy, RuleRate};
use super::rights::Verb;
use super::{Decision, Judge, Question, Verdict, names};
use crate::config::{Channel, Config, Who};
use crate::protocol::Failure;

/// Decides by the rules. Without any, a token that lists channels limits its client to them, and all other clients may use
/// every channel with a valid name.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Box<[Rule]>,
    /// The longest name of a channel, in bytes.
    channel_name: usize,
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    /// What it asks for, by verb, in the order of [`Verb::ALL`].
    asks: [Ask; Verb::ALL.len()],
    /// The largest message, in bytes, if it is smaller than that of all channels.
    message: Option<usize>,
    policy: Policy,
}

/// What the rules say about an action that they do not forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It is allowed.
    Allowed(Policy),
    /// It is allowed if the backend says so, which has to be asked.
    Ask(Policy),
}

/// What a rule asks of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// What a node without rules asks: if the client's token lists channels, that it grants this.
    Listed,
    /// What the rule says.
    For(Who),
}

/// The verbs of which one that a rule names changes what the others ask for.
const ACCESS: [Verb; 3] = [Verb::Subscribe, Verb::Publish, Verb::History];

/// What a rule of the configuration says about a verb.
pub(super) fn said(rule: &Channel, verb: Verb) -> Option<Who> {
    match verb {
        Verb::Subscribe => rule.subscribe,
        Verb::Publish => rule.publish,
        Verb::History => rule.history,
        Verb::Presence => rule.see_presence,
    }
}

/// What it asks for, also where it says nothing.
pub(super) fn ask(rule: &Channel, verb: Verb) -> Ask {
    match said(rule, verb) {
        Some(who) => Ask::For(who),
        None if ACCESS.iter().all(|verb| said(rule, *verb).is_none()) => Ask::Listed,
        None => Ask::For(Who::Token),
    }
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Self {
        let rules = (0..).zip(&config.channels).map(|(number, rule)| Rule {
            pattern: rule.r#match.clone(),
            asks: Verb::ALL.map(|verb| ask(rule, verb)),
            message: rule.message.map(|size| size.bytes()),
            policy: Policy {
                slow: rule.slow,
                last: rule.last,
                rate: rule.rate.and_then(Rate::new).map(|rate| RuleRate { rule: number, rate }),
                tell_publisher: rule.tell_publisher,
                attendance: rule.presence,
            },
        });
        Self { rules: rules.collect(), channel_name: config.limits.channel_name.bytes() }
    }

    /// The number of the rule that decides about a channel, from 0.
    pub(super) fn deciding(&self, channel: &Name<'_>, user: Option<&str>) -> Option<usize> {
        self.rules.iter().position(|rule| rule.pattern.matches(channel, user))
    }

    /// As [`rule`](Self::rule), on a node that has no backend to ask.
    pub(super) fn decide(&self, identity: &Identity, question: Question<'_>) -> Verdict {
        match self.rule(identity, question) {
            Ok(Ruling::Allowed(policy)) => Ok(policy),
            Ok(Ruling::Ask(_)) => Err(Failure::for_now("unavailable", "only the backend can decide this (`hooks`)")),
            Err(failure) => Err(failure),
        }
    }

    /// Decides, as far as the rules can. Fails if they do not allow it.
    pub(crate) fn rule(&self, identity: &Identity, question: Question<'_>) -> Result<Ruling, Failure> {
        let (verb, channel, bytes) = match question {
            Question::Connect { .. } => return Ok(Ruling::Allowed(Policy::default())),
            Question::Subscribe { channel } => (Verb::Subscribe, channel, 0),
            Question::Publish { channel, payload } => (Verb::Publish, channel, payload.bytes().len()),
            Question::History { channel } => (Verb::History, channel, 0),
            Question::Presence { channel } => (Verb::Presence, channel, 0),
        };
        names::check(channel, self.channel_name)?;
        let channel = &Name::new(channel);
        if identity.within().is_some_and(|within| within.entry(verb, channel, None).is_none()) {
            return Err(Failure::new("forbidden", "the API key that made this client's ticket has no right to this"));
        }
        if self.rules.is_empty() {
            if !meets(Ask::Listed, identity, verb, channel) {
                return Err(refusal(None, Ask::Listed, identity, verb));
            }
            if verb == Verb::Presence {
                return Err(without_presence());
            }
            return Ok(Ruling::Allowed(with_last(Policy::default(), Ask::Listed, identity, verb, channel)));
        }
        let Some(number) = self.deciding(channel, identity.user()) else {
            return Err(Failure::new("forbidden", "no rule of this node's `[[channels]]` matches this channel"));
        };
        let Rule { pattern, asks, message, policy } = &self.rules[number];
        let ask = asks[verb as usize];
        if !meets(ask, identity, verb, channel) {
            return Err(refusal(Some(pattern), ask, identity, verb));
        }
        if verb == Verb::Presence && policy.attendance == Attendance::Off {
            return Err(without_presence());
        }
        match message {
            Some(most) if bytes > *most => {
                let why = format!("a message on `{pattern}` has at most {most} bytes; this one has {bytes}");
                Err(Failure::new("too_large", why))
            }
            _ => {
                let policy = with_last(*policy, asks[Verb::History as usize], identity, verb, channel);
                Ok(if ask == Ask::For(Who::Hook) { Ruling::Ask(policy) } else { Ruling::Allowed(policy) })
            }
        }
    }

    /// The largest message that a channel's rule allows, in bytes, if it says one.
    pub(crate) fn largest(&self, channel: &str, user: Option<&str>) -> Option<usize> {
        self.rules[self.deciding(&Name::new(channel), user)?].message
    }
}

/// A subscription gives no older messages to a client that may not read them, unless the rule says how many it gives. `history` is
/// what the rule asks for that.
fn with_last(policy: Policy, history: Ask, identity: &Identity, verb: Verb, channel: &Name<'_>) -> Policy {
    let unsaid = verb == Verb::Subscribe && policy.last.is_none();
    match unsaid && !meets(history, identity, Verb::History, channel) {
        true => Policy { last: Some(0), ..policy },
        false => policy,
    }
}

impl Judge for Rules {
    fn judge(&self, identity: &Arc<Identity>, question: Question<'_>) -> Decision {
        Decision::Now(self.decide(identity, question))
    }

    fn judge_backend(&self, backend: &Backend, right: Right, channel: &str) -> Result<Option<usize>, Failure> {
        names::check(channel, self.channel_name)?;
        backend.check_on(right, channel)?;
        Ok(self.largest(channel, None))
    }
}

fn without_presence() -> Failure {
    Failure::new("forbidden", "no rule of `[[channels]]` gives this channel `presence`")
}

/// Whether a client has what is asked for, as far as the node knows.
fn meets(ask: Ask, identity: &Identity, verb: Verb, channel: &Name<'_>) -> bool {
    let granted = || identity.rights.as_ref().map(|rights| rights.entry(verb, channel, identity.user()).is_some());
    match ask {
        Ask::Listed => granted().unwrap_or(true),
        Ask::For(Who::Anyone | Who::Hook) => true,
        Ask::For(Who::User) => identity.user().is_some(),
        Ask::For(Who::Token) => granted().unwrap_or(false),
        Ask::For(Who::Nobody) => false,
    }
}

/// The failure of a client that lacks what is asked for. Names the rule, and nothing of any client.
fn refusal(pattern: Option<&Pattern>, ask: Ask, identity: &Identity, verb: Verb) -> Failure {
    let doing = match verb {
        Verb::Subscribe => "subscribing to",
        Verb::Publish => "publishing on",
        Verb::History => "reading older messages of",
        Verb::Presence => "reading the presence of",
    };
    let what = pattern.map_or_else(|| format!("{doing} this channel"), |pattern| format!("{doing} `{pattern}`"));
    let known = identity.token.is_some() || identity.user.is_some();
    let (code, why) = match (ask, known) {
        (Ask::Listed, _) => ("forbidden", "is not among what your token grants: see `fanfare explain`"),
        (Ask::For(Who::Token), true) => ("forbidden", "needs a token that grants it: see `fanfare explain`"),
        (Ask::For(Who::Token), false) => ("unauthorised", "needs a token that grants it: connect with one"),
        (Ask::For(Who::User), true) => ("forbidden", "needs a token that names a user (`sub`)"),
        (Ask::For(Who::User), false) => ("unauthorised", "needs a user: connect with a token that names one (`sub`)"),
        (Ask::For(Who::Nobody | Who::Hook | Who::Anyone), _) => ("forbidden", "is not allowed to any client"),
    };
    Failure::new(code, format!("{what} {why}"))
}

#[cfg(test)]
mod tests;
