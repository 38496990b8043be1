//! The catch-up of one channel of one connection, from the client's position to the worker's.
//!
//! Pure. Says at each step what must happen next: queue messages, wait, or end. Holds a position and no messages:
//! missed messages stay in the window, so a slow client costs no memory. Never goes back.

use std::sync::Arc;

use broker_adapters::Position;

use super::attending::Seating;
use super::search::{Search, Searched};
use crate::message::Message;
use crate::window::{Edge, Owed, Preceding};

/// The most repeated `subscribe` commands that may wait for the first answer.
const REPEATS: usize = 16;

/// A repeated `subscribe` to the same channel: its id and its `since`.
pub(super) type Repeat = (Option<u64>, Option<Position>);

#[derive(Debug)]
pub(super) struct CatchUp {
    /// The id of the command.
    pub(super) id: Option<u64>,
    /// The position that the client named, or the one before the last messages that it asked for.
    pub(super) since: Position,
    /// The messages up to here are queued or sent.
    at: Position,
    /// Whether the client was promised all messages. From then on a gap must be reported as `lost`.
    pub(super) answered: bool,
    /// Whether the missed messages are unavailable.
    unavailable: bool,
    /// What the reply says of the client's position; `None` if it named none.
    pub(super) recovered: Option<bool>,
    /// The number of last messages that are given if the client's position proves nothing; taken when they are searched.
    last: Option<u32>,
    /// The search for the last messages.
    search: Option<Search>,
    /// The number of last messages that follow, if the client asked for any.
    given: Option<u32>,
    /// Repeated commands that are unanswered, in their order.
    pub(super) repeats: Vec<Repeat>,
    /// How the client subscribes.
    pub(super) seating: Seating,
}

/// What must happen next.
#[derive(Debug)]
pub(super) enum Step {
    /// Queue these messages, as many as there is room for. Note each with [`CatchUp::queued_to`], and `to` after the last.
    Queue { messages: Vec<Arc<Message>>, to: Position },
    /// Everything up to the worker's position is queued: the hub delivers the rest.
    Live,
    /// The missed messages are unavailable.
    Over,
    /// Wait for something, then ask again.
    Wait(Wait),
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until the worker has read up to the client's position, or as far as the window.
    Node(Position),
    /// Until records older than the window are read back from the broker.
    Page(Position),
    /// The same, for the records before a position.
    Earlier(Position),
    /// Until the outbox has room.
    Room,
    /// Until everything else that is ready has run: other catch-ups have queued enough at a time.
    Turn,
}

impl CatchUp {
    pub(super) fn new(id: Option<u64>, since: Position) -> Self {
        Self {
            id,
            since,
            at: since,
            answered: false,
            unavailable: false,
            recovered: Some(true),
            last: None,
            search: None,
            given: None,
            repeats: Vec::new(),
            seating: Seating::default(),
        }
    }

    /// Gives this number of last messages if the client's position proves nothing.
    pub(super) fn or_last(self, last: Option<u32>) -> Self {
        Self { last, given: last.map(|_| 0), ..self }
    }

    /// Gives this number of last messages of about `room` bytes to a client without a position.
    pub(super) fn of_last(id: Option<u64>, worker: Position, last: u32, room: usize) -> Self {
        let mut catch_up = Self { recovered: None, ..Self::new(id, worker) }.or_last(Some(last));
        catch_up.search_last(worker, room);
        catch_up
    }

    /// Begins to search for the last messages instead of those that were missed. Returns false if none were asked for, or
    /// they were searched already.
    pub(super) fn search_last(&mut self, worker: Position, room: usize) -> bool {
        let Some(last) = self.last.take().filter(|_| !self.answered) else { return false };
        self.search = Some(Search::new(worker, last, room));
        (self.unavailable, self.recovered) = (false, self.recovered.map(|_| false));
        true
    }

    /// Goes on with the search for the last messages, if there is one. Returns what it must wait for.
    pub(super) fn search(&mut self, preceding: impl FnMut(Edge, (usize, usize)) -> Preceding) -> Option<Wait> {
        match self.search.as_mut()?.step(preceding) {
            Searched::Wait(wait) => return Some(wait),
            Searched::At(at, found) => self.found(at, found),
        }
        None
    }

    /// Ends the search where it is. Returns false if there is none.
    pub(super) fn end_search(&mut self) -> bool {
        let Some(search) = &self.search else { return false };
        let (at, found) = search.end();
        self.found(at, found);
        true
    }

    fn found(&mut self, at: Position, found: u32) {
        (self.search, self.given) = (None, Some(found));
        (self.since, self.at) = (at, at);
    }

    /// What the reply says of the last messages: their number, unless the client gets everything after its position.
    pub(super) fn last(&self) -> Option<u32> {
        self.given.filter(|_| self.recovered != Some(true))
    }

    /// The next step at a worker whose position is `worker`. `owed` looks up the messages after a position.
    pub(super) fn step(&self, worker: Position, owed: impl FnOnce(Position) -> Owed) -> Step {
        if self.unavailable || self.at.partition != worker.partition {
            return Step::Over;
        }
        if self.at.offset > worker.offset {
            return Step::Wait(Wait::Node(self.at));
        }
        match owed(self.at) {
            Owed::These { messages, to } if messages.is_empty() && to.offset >= worker.offset => Step::Live,
            Owed::These { messages, to } => Step::Queue { messages, to },
            Owed::Ahead => Step::Wait(Wait::Node(self.at)),
            Owed::Older => Step::Wait(Wait::Page(self.at)),
            Owed::Unknown => Step::Over,
        }
    }

    /// The same if the client gets none of them.
    pub(super) fn last_unavailable(&self) -> Option<u32> {
        self.given.map(|_| 0)
    }

    /// Notes that everything up to here is queued.
    pub(super) fn queued_to(&mut self, to: Position) {
        self.at = to;
    }

    /// The position up to which everything is queued.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// Notes that the missed messages are unavailable.
    pub(super) fn mark_unavailable(&mut self) {
        self.unavailable = true;
    }

    /// Notes a repeated `subscribe`. Returns false if too many of them wait.
    pub(super) fn add_repeat(&mut self, repeat: Repeat) -> bool {
        let room = self.repeats.len() < REPEATS;
        if room {
            self.repeats.push(repeat);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use broker_adapters::{Check, Partition};
    use proptest::prelude::*;

    use super::*;
    use crate::window::tests::{PARTITION, Past, at};

    fn step(catch_up: &CatchUp, worker: u64, owed: Owed) -> String {
        match catch_up.step(at(worker), |_| owed) {
            Step::Queue { messages, to } => format!("give {} up to {}", messages.len(), to.offset.0),
            step => format!("{step:?}").to_lowercase().split('(').take(2).collect::<Vec<_>>().join(" "),
        }
    }

    #[test]
    fn each_answer_of_the_window_leads_to_its_step() {
        let catch_up = CatchUp::new(Some(1), at(10));
        let these = |to| Owed::These { messages: Vec::new(), to: at(to) };
        assert_eq!(step(&catch_up, 9, these(9)), "wait node", "a catch-up never goes back");
        assert_eq!(step(&catch_up, 20, these(20)), "live");
        assert_eq!(step(&catch_up, 20, these(15)), "give 0 up to 15");
        assert_eq!(step(&catch_up, 20, Owed::Ahead), "wait node");
        assert_eq!(step(&catch_up, 20, Owed::Older), "wait page");
        assert_eq!(step(&catch_up, 20, Owed::Unknown), "over");
        let elsewhere = Position { partition: Partition(PARTITION.0 + 1), ..at(10) };
        assert_eq!(step(&CatchUp::new(None, elsewhere), 20, these(20)), "over");
        let mut catch_up = catch_up;
        catch_up.mark_unavailable();
        assert_eq!(step(&catch_up, 20, these(20)), "over");
    }

    #[test]
    fn the_number_of_repeated_commands_is_limited() {
        let mut catch_up = CatchUp::new(Some(1), at(10));
        assert_eq!((0..100).filter(|id| catch_up.add_repeat((Some(*id), None))).count(), REPEATS);
    }

    proptest! {
        /// Holds whatever the window has evicted, however far the worker is, and however little room the outbox has.
        #[test]
        fn missed_messages_are_queued_completely_and_in_order(
            log in proptest::collection::vec(proptest::option::of(0u8..3), 2..150),
            from in 1u64..100,
            actions in proptest::collection::vec((0usize..4, 1usize..8), 0..200),
        ) {
            let end = log.len() as u64;
            let from = from.min(end);
            let mut past = Past::of(&log);
            let mut catch_up = CatchUp::new(None, at(from));
            let mut worker = from;
            let mut found = Vec::new();
            let mut actions = actions.into_iter().chain(std::iter::repeat((3, 7)));
            for _ in 0..5_000 {
                let (action, much) = actions.next().unwrap_or((3, 7));
                match action {
                    0 => past.evict(much),
                    1 => worker = (worker + much as u64).min(end),
                    _ => worker = (worker + u64::from(action == 3)).min(end),
                }
                match catch_up.step(at(worker), |since| past.owed("a", since, at(worker), much)) {
                    Step::Queue { messages, to } => {
                        let taken = messages.len().min(much);
                        for message in &messages[..taken] {
                            found.push(message.record.offset.0);
                            catch_up.queued_to(message.record.position());
                        }
                        if taken == messages.len() {
                            catch_up.queued_to(to);
                        }
                    }
                    Step::Live if worker == end => break,
                    Step::Live => {}
                    Step::Wait(Wait::Page(since)) => drop(past.read("a", since, much)),
                    step => prop_assert!(false, "{step:?}"),
                }
            }
            let expected: Vec<u64> = (1u64..).zip(&log)
                .filter(|(offset, said)| **said == Some(0) && *offset > from).map(|(offset, _)| offset).collect();
            prop_assert_eq!(found, expected);
            let forged = CatchUp::new(None, Position { check: Check(7), ..at(from) });
            let step = forged.step(at(end), |since| past.owed("a", since, at(end), 1));
            let unproven = matches!(step, Step::Over | Step::Wait(Wait::Page(_)));
            prop_assert!(unproven, "{step:?}");
        }
    }
}
