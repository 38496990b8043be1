//! How a client handles frames: it records the steps of its traces, and breaches of the protocol.

use std::rc::Rc;

use broker_adapters::Position;
use law::Outcome;
use serde_json::Value;

use super::wire::frame;
use super::{Asked, Client, Interest};
use crate::simulation::chronicle::Step;

impl Client {
    /// Handles bytes from the node.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let Some(connection) = &mut self.connection else { return };
        if bytes.is_empty() {
            return self.drop_connection("is cut off");
        }
        connection.input.extend(bytes);
        while let Some((opcode, payload)) = self.connection.as_mut().and_then(|one| frame(&mut one.input)) {
            match opcode {
                1 => match serde_json::from_slice(&payload) {
                    Ok(value) => self.receive(&value),
                    Err(error) => self.breach(format!("a frame that is not JSON: {error}")),
                },
                8 => {
                    let code = payload.iter().take(2).fold(0, |code, byte| code << 8 | u32::from(*byte));
                    self.drop_connection(&format!("is closed with {code}"));
                }
                // An empty pong is enough: the node counts any byte as an answer to its ping.
                9 => drop(self.connection.as_ref().map(|one| one.end.try_write(&[0x8A, 0x80, 0, 0, 0, 0]))),
                _ => self.breach(format!("a frame with opcode {opcode}")),
            }
        }
    }

    fn receive(&mut self, frame: &Value) {
        let mut shown = frame.to_string();
        shown.truncate(shown.floor_char_boundary(120));
        self.note(format_args!("← {shown}"));
        if let Some(id) = frame["id"].as_u64() {
            match self.asked.remove(&id) {
                Some(asked) => self.answered(id, asked, frame),
                None => self.breach(format!("a reply without a command: {frame}")),
            }
        } else if frame["unsubscribed"].is_object() {
            self.unsubscribed(&frame["unsubscribed"]);
        } else if let Some(positions) = frame["ping"]["at"].as_object() {
            for (channel, at) in positions {
                self.reached(channel, at, Step::Reached);
            }
        } else if let Some(channel) = frame["channel"].as_str() {
            if frame["presence"].is_object() {
                self.world.show(self.number, channel, &frame["presence"]);
            } else if frame["lost"].is_object() {
                self.lost(channel, &frame["lost"]["reason"]);
            } else {
                let payload = frame["data"].as_str().unwrap_or_default().to_owned();
                if payload.starts_with("final")
                    && let Some(interest) = self.interests.get_mut(channel)
                {
                    interest.finals += 1;
                }
                let when = self.world.chronicle.now();
                self.reached(channel, &frame["at"], |at| Step::Message { payload, at, when });
                let reading_since = self.connection.as_ref().map(|connection| connection.paused_until);
                let overdue = |since| self.world.tokens.borrow().is_overdue(self.number, since);
                if self.world.is_faultless() && reading_since.is_some_and(overdue) {
                    self.breach(format!("a message although the token was revoked: {frame}"));
                }
            }
        } else if !frame["degraded"].is_boolean() {
            self.breach(format!("an unknown frame: {frame}"));
        }
        let done = |interest: &Interest| !interest.wanted || (interest.joined && interest.finals > 0);
        self.world.done.borrow_mut()[self.number] = self.interests.values().all(done);
    }

    fn reached(&mut self, channel: &str, at: &Value, step: impl FnOnce(Position) -> Step) {
        let position = at.as_str().and_then(|at| at.parse().ok());
        match (self.interests.get_mut(channel), position) {
            (Some(interest), Some(at)) if interest.joined => {
                interest.since = Some((at, interest.trace));
                self.world.chronicle.step(interest.trace, step(at));
            }
            (Some(interest), _) if interest.leaving => {}
            _ => self.breach(format!("a frame for {channel} at {at} without a subscription")),
        }
    }

    fn lost(&mut self, channel: &str, reason: &Value) {
        let (world, number) = (&self.world, self.number);
        let Some(interest) = self.interests.get_mut(channel).filter(|interest| interest.joined) else { return };
        world.chronicle.step(interest.trace, Step::Mark);
        if reason == "reset" {
            interest.trace = world.chronicle.trace(number, channel);
        }
        // The position from before the loss cannot be used to resume.
        interest.since = None;
    }

    fn answered(&mut self, id: u64, asked: Asked, frame: &Value) {
        let code = frame["error"]["code"].as_str();
        match asked {
            Asked::Publish { publishing, .. } => {
                let outcome = match code {
                    None => Outcome::Acknowledged,
                    Some("unavailable" | "overloaded") => Outcome::Failed,
                    Some("unknown") => Outcome::Unknown,
                    Some(_) => return self.breach(format!("publish {id}: {frame}")),
                };
                if outcome != Outcome::Acknowledged && self.world.is_faultless() {
                    self.breach(format!("a publish failed without a fault: {frame}"));
                }
                self.tried(publishing, outcome);
            }
            Asked::History => self.looked_back(id, code, frame),
            Asked::Refresh { token, rights } => match code {
                None => self.accepted(&token, rights),
                // It was revoked meanwhile, or the node cannot know that.
                Some("unauthorised" | "unavailable" | "overloaded") => {}
                Some(_) => self.breach(format!("refresh {id}: {frame}")),
            },
            // The client unsubscribed before this reply.
            Asked::Subscribe { again: false, channel, .. }
                if self.interests.get(&channel).is_some_and(|interest| interest.asked != Some(id)) =>
            {
                if !matches!(code, None | Some("left" | "unavailable")) {
                    self.breach(format!("subscribe {id}: {frame}"));
                }
            }
            Asked::Unsubscribe => {
                let interests = self.interests.values_mut().filter(|interest| interest.asked == Some(id));
                interests.for_each(|interest| (interest.asked, interest.leaving) = (None, false));
            }
            Asked::Subscribe { again: true, channel, .. } => {
                let interest = self.interests.get(&channel);
                // One that asks for members is refused while an earlier one waits.
                let refused = code == Some("unavailable");
                if !refused && interest.is_some_and(|interest| interest.asked.is_some() && !interest.leaving) {
                    self.breach(format!("{id} was answered before an earlier command"));
                }
                // The client unsubscribed, or only the second of two commands was carried out.
                if code.is_none() && interest.is_some_and(|interest| !interest.joined && !interest.leaving) {
                    return self.drop_connection("does not know whether it is subscribed");
                }
                if code.is_none() && interest.is_some_and(|interest| interest.joined) {
                    self.list(&channel, &frame["ok"]);
                }
            }
            Asked::Subscribe { channel, since, .. } => {
                if let Some(interest) = self.interests.get_mut(&channel) {
                    (interest.asked, interest.leaving) = (None, false);
                }
                match code {
                    None => {
                        self.joined(&channel, since, &frame["ok"]);
                        self.list(&channel, &frame["ok"]);
                    }
                    Some("unavailable") => {}
                    // A new token has ended it before it was answered.
                    Some("left") if !self.may(&channel) => {}
                    Some(_) => self.breach(format!("subscribe {id}: {frame}")),
                }
            }
        }
    }

    /// Takes the list of members, if the client has asked for it.
    fn list(&mut self, channel: &str, ok: &Value) {
        if ok["presence"].is_object() {
            self.world.attendance.borrow_mut().list(self.number, channel, &ok["presence"]);
        }
    }

    /// Checks that older messages come in order, each once, and that an incomplete answer says where to go on.
    fn looked_back(&mut self, id: u64, code: Option<&str>, frame: &Value) {
        let ok = &frame["ok"];
        let places = ok["messages"].as_array().into_iter().flatten().map(|message| message["at"].as_str());
        let places: Vec<_> = places.collect();
        let ordered = places.iter().all(Option::is_some) && places.windows(2).all(|two| two[0] < two[1]);
        match code {
            None if ordered && ok["complete"].is_boolean() => {}
            Some("gone") if !self.world.is_faultless() => {}
            Some("unavailable" | "overloaded") => {}
            _ => self.breach(format!("history {id}: {frame}")),
        }
    }

    fn joined(&mut self, channel: &str, since: Option<Position>, ok: &Value) {
        let (world, number) = (Rc::clone(&self.world), self.number);
        let Some(interest) = self.interests.get_mut(channel) else { return };
        let Some(at) = ok["at"].as_str().and_then(|at| at.parse::<Position>().ok()) else {
            return self.breach(format!("no position in {ok}"));
        };
        interest.joined = true;
        world.attendance.borrow_mut().begin(number, channel);
        let known = interest.since.filter(|(known, _)| Some(*known) == since);
        match (ok["recovered"].as_bool(), known) {
            (Some(true), Some((since, trace))) => {
                interest.trace = trace;
                world.chronicle.step(trace, Step::Moved);
                if at != since {
                    self.breach(format!("asked to resume after {since}, but resumed after {at}"));
                }
                return;
            }
            (Some(true), None) => return self.breach(format!("recovered without `since`: {ok}")),
            (Some(false), _) if world.is_faultless() => {
                self.breach(format!("not recovered, although there was no fault: {ok}"));
            }
            _ => {}
        }
        let Some(interest) = self.interests.get_mut(channel) else { return };
        interest.trace = world.chronicle.trace(number, channel);
        interest.since = Some((at, interest.trace));
        world.chronicle.step(interest.trace, Step::Reached(at));
    }
}
