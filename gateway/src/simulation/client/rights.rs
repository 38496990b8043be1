//! The channels that a client's token allows, and how they change while it is connected.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Asked, Client};
use crate::simulation::chronicle::Step;
use crate::simulation::tokens::Token;

impl Client {
    /// Draws the channels of a next token. After the faults it allows all.
    pub(super) fn draw_rights(&mut self) -> BTreeSet<String> {
        let all = self.world.calm.get() || self.rights.bool();
        let channels = self.world.channels.iter().filter(|_| all || self.rights.u8(0..3) > 0);
        channels.cloned().collect()
    }

    /// Whether the client may subscribe to a channel, with its token and with the next one that is under way.
    pub(super) fn may(&self, channel: &str) -> bool {
        self.allowed.contains(channel) && self.next_rights().is_none_or(|next| next.contains(channel))
    }

    /// Whether the client may subscribe to all channels.
    pub(super) fn may_all(&self) -> bool {
        self.world.channels.iter().all(|channel| self.may(channel))
    }

    fn next_rights(&self) -> Option<&BTreeSet<String>> {
        self.asked
            .values()
            .find_map(|asked| if let Asked::Refresh { rights, .. } = asked { Some(rights) } else { None })
    }

    /// Sends a new token, unless one is under way.
    pub(super) fn refresh(&mut self) {
        if self.next_rights().is_some() {
            return;
        }
        let rights = self.draw_rights();
        let token = self.world.tokens.borrow().issue(self.number, &rights);
        let shown: Vec<_> = rights.iter().collect();
        self.note(format_args!("wants to be allowed {shown:?}"));
        self.ask("refresh", &json!({ "token": token.text }), Asked::Refresh { token, rights });
    }

    /// A node has accepted a token: what it does not allow must have ended.
    pub(super) fn accepted(&mut self, token: &Token, rights: BTreeSet<String>) {
        self.world.tokens.borrow_mut().hold(self.number, token);
        self.allowed = rights;
        let (mut kept, chronicle) = (Vec::new(), &self.world.chronicle);
        for (channel, interest) in &mut self.interests {
            let allowed = self.allowed.contains(channel);
            if allowed && std::mem::take(&mut interest.withdrawn) {
                chronicle.step(interest.trace, Step::Given);
            } else if !allowed && interest.joined {
                // Whatever comes from now on is judged by the law.
                interest.withdrawn = true;
                chronicle.step(interest.trace, Step::Withdrawn(chronicle.now()));
                kept.push(channel.clone());
            }
        }
        if !kept.is_empty() {
            self.breach(format!("the new token does not allow {kept:?}, which did not end"));
        }
    }

    /// A node has ended a subscription that the next token does not allow.
    pub(super) fn unsubscribed(&mut self, notice: &Value) {
        let channel = notice["channel"].as_str().unwrap_or_default();
        let expected = self.next_rights().is_some_and(|next| !next.contains(channel));
        if !expected || notice["reason"] != "forbidden" {
            self.breach(format!("a subscription ended without a reason: {notice}"));
        }
        let Some(interest) = self.interests.get_mut(channel).filter(|interest| interest.joined) else { return };
        (interest.joined, interest.withdrawn) = (false, true);
        self.world.attendance.borrow_mut().end(self.number, channel);
        let chronicle = &self.world.chronicle;
        chronicle.step(interest.trace, Step::Withdrawn(chronicle.now()));
    }
}
