//! Finds where the last messages of a channel begin, for a client that subscribes with `last`.
//!
//! Pure. Goes back from the worker's position and counts messages; holds a position and none of them. The messages are then
//! sent like missed ones.

use broker_adapters::Position;

use super::catch_up::Wait;
use crate::window::{Edge, Preceding, Rest};

/// The most pages of older records that one search has read back.
const PAGES: u32 = 64;

#[derive(Debug)]
pub(super) struct Search {
    edge: Edge,
    /// The number of messages wanted, and about how many bytes.
    most: u32,
    room: usize,
    found: u32,
    bytes: usize,
    oldest: Option<Position>,
    pages: u32,
}

/// The outcome of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Searched {
    /// So many messages follow this position.
    At(Position, u32),
    Wait(Wait),
}

impl Search {
    /// Searches back from the worker's position for at most `most` messages and about `room` bytes.
    pub(super) fn new(worker: Position, most: u32, room: usize) -> Self {
        Self { edge: Edge::with(worker), most, room, found: 0, bytes: 0, oldest: None, pages: 0 }
    }

    /// Goes back as far as possible now. `preceding` looks up the messages before an edge.
    pub(super) fn step(&mut self, mut preceding: impl FnMut(Edge, (usize, usize)) -> Preceding) -> Searched {
        while self.most > 0 {
            // One more than wanted: that one is the position before the wanted ones.
            let left = (self.most - self.found + 1) as usize;
            match preceding(self.edge, (left, self.room)) {
                Preceding::These { messages, from, rest } => {
                    for message in messages.iter().rev() {
                        let (at, size) = (message.record.position(), message.record.size().max(1));
                        if self.found >= self.most || (self.found > 0 && self.bytes + size > self.room) {
                            return Searched::At(at, self.found);
                        }
                        (self.found, self.bytes, self.oldest) = (self.found + 1, self.bytes + size, Some(at));
                    }
                    self.edge = Edge::before(from);
                    if rest != Rest::More {
                        break;
                    }
                }
                Preceding::Older if self.pages < PAGES => {
                    self.pages += 1;
                    return Searched::Wait(Wait::Earlier(self.edge.at));
                }
                Preceding::Older | Preceding::Unknown => break,
                Preceding::Ahead => return Searched::Wait(Wait::Node(self.edge.at)),
            }
        }
        let (at, found) = self.end();
        Searched::At(at, found)
    }

    /// Where the search ends if it goes no further back. What follows a position does not include its own record.
    pub(super) fn end(&self) -> (Position, u32) {
        (self.edge.at, self.found - u32::from(self.oldest == Some(self.edge.at)))
    }
}
