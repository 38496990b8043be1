//! What a client makes of what it hears: the steps of its stories, and breaches of the protocol.

use std::rc::Rc;

use broker_adapters::Position;
use serde_json::Value;

use super::wire::frame;
use super::{Asked, Client, Ear};
use crate::simulation::chronicle::Step;
use crate::simulation::law::Outcome;

impl Client {
    /// Takes bytes from the node.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let Some(connection) = &mut self.connection else { return };
        if bytes.is_empty() {
            return self.drop_connection("is cut off");
        }
        connection.input.extend(bytes);
        while let Some((opcode, payload)) = self.connection.as_mut().and_then(|one| frame(&mut one.input)) {
            match opcode {
                1 => match serde_json::from_slice(&payload) {
                    Ok(value) => self.hear(&value),
                    Err(error) => self.breach(format!("a frame that is no JSON: {error}")),
                },
                8 => {
                    let code = payload.iter().take(2).fold(0, |code, byte| code << 8 | u32::from(*byte));
                    self.drop_connection(&format!("is closed with {code}"));
                }
                // Any byte answers a ping.
                9 => drop(self.connection.as_ref().map(|one| one.end.try_write(&[0x8A, 0x80, 0, 0, 0, 0]))),
                _ => self.breach(format!("a frame with opcode {opcode}")),
            }
        }
    }

    fn hear(&mut self, frame: &Value) {
        let mut shown = frame.to_string();
        shown.truncate(shown.floor_char_boundary(120));
        self.tell(format_args!("← {shown}"));
        if let Some(id) = frame["id"].as_u64() {
            match self.asked.remove(&id) {
                Some(asked) => self.answered(id, asked, frame),
                None => self.breach(format!("an answer to no question: {frame}")),
            }
        } else if let Some(positions) = frame["ping"]["at"].as_object() {
            for (channel, at) in positions {
                self.reached(channel, at, Step::Reached);
            }
        } else if let Some(channel) = frame["channel"].as_str() {
            if frame["lost"].is_object() {
                self.lost(channel, &frame["lost"]["reason"]);
            } else {
                let payload = frame["data"].as_str().unwrap_or_default().to_owned();
                if payload.starts_with("final")
                    && let Some(ear) = self.ears.get_mut(channel)
                {
                    ear.finals += 1;
                }
                self.reached(channel, &frame["at"], |at| Step::Message { payload, at });
            }
        } else if !frame["degraded"].is_boolean() {
            self.breach(format!("an unknown frame: {frame}"));
        }
        let done = |ear: &Ear| !ear.wanted || (ear.joined && ear.finals > 0);
        self.world.done.borrow_mut()[self.number] = self.ears.values().all(done);
    }

    fn reached(&mut self, channel: &str, at: &Value, step: impl FnOnce(Position) -> Step) {
        let position = at.as_str().and_then(|at| at.parse().ok());
        match (self.ears.get_mut(channel), position) {
            (Some(ear), Some(at)) if ear.joined => {
                ear.since = Some((at, ear.story));
                self.world.chronicle.step(ear.story, step(at));
            }
            (Some(ear), _) if ear.blurred => {}
            _ => self.breach(format!("something for {channel} at {at}, which is not subscribed to")),
        }
    }

    fn lost(&mut self, channel: &str, reason: &Value) {
        let (world, number) = (&self.world, self.number);
        let Some(ear) = self.ears.get_mut(channel).filter(|ear| ear.joined) else { return };
        world.chronicle.step(ear.story, Step::Mark);
        if reason == "reset" {
            ear.story = world.chronicle.story(number, channel);
        }
        // What the client has handled before says nothing about what comes after.
        ear.since = None;
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
                if outcome != Outcome::Acknowledged && self.world.calm_from_the_start() {
                    self.breach(format!("a publish failed without a fault: {frame}"));
                }
                self.tried(publishing, outcome);
            }
            // Left before it was answered.
            Asked::Subscribe { again: false, channel, .. }
                if self.ears.get(&channel).is_some_and(|ear| ear.asked != Some(id)) =>
            {
                if !matches!(code, None | Some("left" | "unavailable")) {
                    self.breach(format!("subscribe {id}: {frame}"));
                }
            }
            Asked::Unsubscribe => {
                let ears = self.ears.values_mut().filter(|ear| ear.asked == Some(id));
                ears.for_each(|ear| (ear.asked, ear.blurred) = (None, false));
            }
            Asked::Subscribe { again: true, channel, .. } => {
                let ear = self.ears.get(&channel);
                if ear.is_some_and(|ear| ear.asked.is_some() && !ear.blurred) {
                    self.breach(format!("{id} was answered before an earlier command"));
                }
                // It was left, or only the second of two commands was carried out.
                if code.is_none() && ear.is_some_and(|ear| !ear.joined && !ear.blurred) {
                    self.drop_connection("does not know where it stands");
                }
            }
            Asked::Subscribe { channel, since, .. } => {
                if let Some(ear) = self.ears.get_mut(&channel) {
                    (ear.asked, ear.blurred) = (None, false);
                }
                match code {
                    None => self.joined(&channel, since, &frame["ok"]),
                    Some("unavailable") => {}
                    Some(_) => self.breach(format!("subscribe {id}: {frame}")),
                }
            }
        }
    }

    fn joined(&mut self, channel: &str, since: Option<Position>, ok: &Value) {
        let (world, number) = (Rc::clone(&self.world), self.number);
        let Some(ear) = self.ears.get_mut(channel) else { return };
        let Some(at) = ok["at"].as_str().and_then(|at| at.parse::<Position>().ok()) else {
            return self.breach(format!("no position in {ok}"));
        };
        ear.joined = true;
        let known = ear.since.filter(|(known, _)| Some(*known) == since);
        match (ok["recovered"].as_bool(), known) {
            (Some(true), Some((since, story))) => {
                ear.story = story;
                world.chronicle.step(story, Step::Moved);
                if at != since {
                    self.breach(format!("asked for what follows {since}, got what follows {at}"));
                }
                return;
            }
            (Some(true), None) => return self.breach(format!("recovered what was not asked for: {ok}")),
            (Some(false), _) if world.calm_from_the_start() => {
                self.breach(format!("nothing recovered without a fault: {ok}"));
            }
            _ => {}
        }
        let Some(ear) = self.ears.get_mut(channel) else { return };
        ear.story = world.chronicle.story(number, channel);
        ear.since = Some((at, ear.story));
        world.chronicle.step(ear.story, Step::Reached(at));
    }
}
