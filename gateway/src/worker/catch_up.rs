//! The way of one channel of one connection from where its client has been to what is live.
//!
//! Pure. Says at each step what must happen next: messages to be queued, or something to wait for, or the end. Holds where
//! it stands and no message: what is owed stays in the window, so a slow client costs no memory. Never goes back.

use std::sync::Arc;

use broker_adapters::Position;

use crate::message::Message;
use crate::window::Owed;

/// Commands to subscribe that wait for the first answer, at most.
const AGAIN: usize = 16;

/// A later command to subscribe to the same channel: its number, and from where.
pub(super) type Again = (Option<u64>, Option<Position>);

#[derive(Debug)]
pub(super) struct CatchUp {
    /// The number of the command.
    pub(super) id: Option<u64>,
    /// Where the client has been.
    pub(super) since: Position,
    /// What was given so far: the rest is owed.
    at: Position,
    /// The client was told that it is whole, so that a gap from now on must be told as well.
    pub(super) answered: bool,
    /// Nothing more can be had of it.
    over: bool,
    /// In their order.
    pub(super) again: Vec<Again>,
}

/// What must happen next.
#[derive(Debug)]
pub(super) enum Step {
    /// These are queued, as many as there is room for: each is told by [`CatchUp::gave`], and the last by `to`.
    Give {
        messages: Vec<Arc<Message>>,
        to: Position,
    },
    /// All is given up to where the worker is: what follows is live.
    Live,
    /// What is owed cannot be had.
    Over,
    Wait(Wait),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// This node has yet to get to where the client, or the window, is.
    Node(Position),
    /// Older records must be read.
    Page(Position),
    /// The client must take what is queued.
    Room,
}

impl CatchUp {
    pub(super) fn new(id: Option<u64>, since: Position) -> Self {
        Self { id, since, at: since, answered: false, over: false, again: Vec::new() }
    }

    /// What comes next at a worker that has got to `worker`; `owed` looks for what follows a position.
    pub(super) fn step(&self, worker: Position, owed: impl FnOnce(Position) -> Owed) -> Step {
        if self.over || self.at.partition != worker.partition {
            return Step::Over;
        }
        if self.at.offset > worker.offset {
            return Step::Wait(Wait::Node(self.at));
        }
        match owed(self.at) {
            Owed::These { messages, to } if messages.is_empty() && to.offset >= worker.offset => Step::Live,
            Owed::These { messages, to } => Step::Give { messages, to },
            Owed::Ahead => Step::Wait(Wait::Node(self.at)),
            Owed::Older => Step::Wait(Wait::Page(self.at)),
            Owed::Unknown => Step::Over,
        }
    }

    /// Everything up to here was given.
    pub(super) fn gave(&mut self, to: Position) {
        self.at = to;
    }

    /// Where it stands.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// What was waited for will not come.
    pub(super) fn give_up(&mut self) {
        self.over = true;
    }

    /// Notes a later command to subscribe; false if too many wait.
    pub(super) fn asked_again(&mut self, again: Again) -> bool {
        let room = self.again.len() < AGAIN;
        if room {
            self.again.push(again);
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
            Step::Give { messages, to } => format!("give {} up to {}", messages.len(), to.offset.0),
            step => format!("{step:?}").to_lowercase().split('(').take(2).collect::<Vec<_>>().join(" "),
        }
    }

    #[test]
    fn each_finding_has_its_step() {
        let catch_up = CatchUp::new(Some(1), at(10));
        let these = |to| Owed::These { messages: Vec::new(), to: at(to) };
        assert_eq!(step(&catch_up, 9, these(9)), "wait node", "never back");
        assert_eq!(step(&catch_up, 20, these(20)), "live");
        assert_eq!(step(&catch_up, 20, these(15)), "give 0 up to 15");
        assert_eq!(step(&catch_up, 20, Owed::Ahead), "wait node");
        assert_eq!(step(&catch_up, 20, Owed::Older), "wait page");
        assert_eq!(step(&catch_up, 20, Owed::Unknown), "over");
        let elsewhere = Position { partition: Partition(PARTITION.0 + 1), ..at(10) };
        assert_eq!(step(&CatchUp::new(None, elsewhere), 20, these(20)), "over");
        let mut catch_up = catch_up;
        catch_up.give_up();
        assert_eq!(step(&catch_up, 20, these(20)), "over");
    }

    #[test]
    fn commands_that_wait_for_the_first_are_bounded() {
        let mut catch_up = CatchUp::new(Some(1), at(10));
        assert_eq!((0..100).filter(|id| catch_up.asked_again((Some(*id), None))).count(), AGAIN);
    }

    proptest! {
        /// Whatever the window has lost meanwhile, however far the worker is, and however little room there is.
        #[test]
        fn what_was_missed_is_given_whole_and_in_order_or_it_is_over(
            log in proptest::collection::vec(proptest::option::of(0u8..3), 2..150),
            from in 1u64..100,
            deeds in proptest::collection::vec((0usize..4, 1usize..8), 0..200),
        ) {
            let end = log.len() as u64;
            let from = from.min(end);
            let mut past = Past::of(&log);
            let mut catch_up = CatchUp::new(None, at(from));
            let mut worker = from;
            let mut found = Vec::new();
            let mut deeds = deeds.into_iter().chain(std::iter::repeat((3, 7)));
            for _ in 0..5_000 {
                let (deed, much) = deeds.next().unwrap_or((3, 7));
                match deed {
                    0 => past.evict(much),
                    1 => worker = (worker + much as u64).min(end),
                    _ => worker = (worker + u64::from(deed == 3)).min(end),
                }
                match catch_up.step(at(worker), |since| past.owed("a", since, at(worker), much)) {
                    Step::Give { messages, to } => {
                        let taken = messages.len().min(much);
                        for message in &messages[..taken] {
                            found.push(message.record.offset.0);
                            catch_up.gave(message.record.position());
                        }
                        if taken == messages.len() {
                            catch_up.gave(to);
                        }
                    }
                    Step::Live if worker == end => break,
                    Step::Live => {}
                    Step::Wait(Wait::Page(since)) => past.read("a", since, much),
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
