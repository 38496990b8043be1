//! The answer to one `history` command: messages of a channel in the order of the log, and where the following ones are.
//!
//! Pure. Says at each step whether the answer is complete or what must be waited for. Holds no message while it waits: an
//! answer that has messages is given before older records are read back, and the client asks for the rest. What it cannot
//! prove is never called complete.

use std::sync::Arc;

use broker_adapters::Position;

use super::catch_up::Wait;
use crate::message::Message;
use crate::protocol::{Failure, Start};
use crate::window::{Edge, Owed, Preceding, Rest};

/// The most pages that are read back for one answer. After that it is given without messages.
const PAGES: u32 = 32;

#[derive(Debug)]
pub(crate) struct Excerpt {
    cursor: Cursor,
    /// The client asked for the newest messages, from wherever the node is.
    newest: bool,
    /// The cursor has left the client's position: this node has proven it.
    moved: bool,
    limit: usize,
    /// Bytes of frames.
    room: usize,
    pages: u32,
}

#[derive(Debug, Clone, Copy)]
enum Cursor {
    Later(Position),
    Earlier(Edge),
    End,
}

/// The outcome of a step.
#[derive(Debug)]
pub(crate) enum Drawn {
    Answer(Answer),
    /// The log does not hold the client's position, or it cannot be proven.
    Gone,
    /// The records could not be read.
    Unavailable,
    Wait(Wait),
}

#[derive(Debug)]
pub(crate) struct Answer {
    /// Oldest first.
    pub(crate) messages: Vec<Arc<Message>>,
    /// Where the following messages are; `None` if nothing can be asked for in this direction.
    pub(crate) next: Option<Position>,
    /// There is nothing more in this direction.
    pub(crate) complete: bool,
}

/// The failure of a question whose position the log does not hold.
pub(crate) fn gone() -> Failure {
    Failure::new(
        "gone",
        "the log no longer holds this position, or it is of another log: ask without `since` and `before`",
    )
}

/// The failure of a question for records that could not be read.
pub(crate) fn unavailable() -> Failure {
    Failure::for_now("unavailable", "this node cannot read these messages at present: try again")
}

/// The messages of one answer, in the direction of reading.
struct Taken<'a> {
    messages: Vec<Arc<Message>>,
    bytes: usize,
    limit: usize,
    room: usize,
    size: &'a dyn Fn(&Message) -> usize,
}

impl Taken<'_> {
    /// Takes a message; false if the answer is full.
    fn take(&mut self, message: &Arc<Message>) -> bool {
        let size = (self.size)(message).max(1);
        if self.is_full() || (self.bytes > 0 && self.bytes + size > self.room) {
            return false;
        }
        self.bytes += size;
        self.messages.push(Arc::clone(message));
        true
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= self.limit
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn answer(self, next: Option<Position>, complete: bool) -> Drawn {
        Drawn::Answer(Answer { messages: self.messages, next, complete })
    }

    /// As [`Taken::answer`], of messages that were taken from the newest to the oldest.
    fn answer_back(mut self, next: Option<Position>, complete: bool) -> Drawn {
        self.messages.reverse();
        self.answer(next, complete)
    }
}

impl Excerpt {
    /// At most `limit` messages, whose frames have about `room` bytes.
    pub(crate) fn new(start: Start, limit: u32, room: usize) -> Self {
        let cursor = match start {
            Start::Since(since) => Cursor::Later(since),
            Start::Before(before) => Cursor::Earlier(Edge::before(before)),
            Start::End => Cursor::End,
        };
        let (newest, limit) = (matches!(start, Start::End), limit.max(1) as usize);
        Self { cursor, newest, moved: false, limit, room, pages: 0 }
    }

    /// The next step at a worker whose position is `worker`. `size` gives the size of a message's frame; `owed` and
    /// `preceding` look up the messages after a position and before an edge.
    pub(crate) fn step(
        &mut self,
        worker: Position,
        size: &dyn Fn(&Message) -> usize,
        owed: impl FnMut(Position) -> Owed,
        preceding: impl FnMut(Edge, (usize, usize)) -> Preceding,
    ) -> Drawn {
        let taken = Taken { messages: Vec::new(), bytes: 0, limit: self.limit, room: self.room, size };
        let edge = match self.cursor {
            Cursor::Later(since) => return self.later(since, worker, taken, owed),
            Cursor::Earlier(edge) => edge,
            Cursor::End => Edge::with(worker),
        };
        self.cursor = Cursor::Earlier(edge);
        if edge.at.partition != worker.partition {
            return Drawn::Gone;
        }
        if edge.at.offset > worker.offset {
            return self.wait(Cursor::Earlier(edge), Wait::Node(edge.at));
        }
        self.earlier(edge, taken, preceding)
    }

    /// Whether it waits for a position that only the client has named so far.
    pub(crate) fn is_unfounded(&self) -> bool {
        !self.moved && !self.newest
    }

    /// Notes that the log does not hold the record that was waited for. `held` says whether it is known to hold it without
    /// anything readable beside it. `None` means: try again.
    pub(crate) fn not_held(&mut self, held: bool) -> Option<Drawn> {
        match self.cursor {
            Cursor::End if self.pages < PAGES => None,
            Cursor::End => Some(Drawn::Unavailable),
            Cursor::Earlier(_) if self.moved || self.newest || held => {
                Some(Drawn::Answer(Answer { messages: Vec::new(), next: None, complete: false }))
            }
            Cursor::Earlier(_) | Cursor::Later(_) => Some(Drawn::Gone),
        }
    }

    fn wait(&mut self, cursor: Cursor, wait: Wait) -> Drawn {
        self.pages += 1;
        self.cursor = cursor;
        Drawn::Wait(wait)
    }

    fn later(
        &mut self,
        since: Position,
        worker: Position,
        mut taken: Taken<'_>,
        mut owed: impl FnMut(Position) -> Owed,
    ) -> Drawn {
        if since.partition != worker.partition {
            return Drawn::Gone;
        }
        if since.offset > worker.offset {
            return self.wait(Cursor::Later(since), Wait::Node(since));
        }
        let mut at = since;
        loop {
            match owed(at) {
                Owed::These { messages, to } => {
                    for message in &messages {
                        if !taken.take(message) {
                            return taken.answer(Some(at), false);
                        }
                        at = message.record.position();
                    }
                    (at, self.moved) = (to, true);
                    if to.offset >= worker.offset {
                        return taken.answer(Some(to), true);
                    }
                }
                Owed::Unknown if taken.is_empty() => return Drawn::Gone,
                Owed::Older if taken.is_empty() && self.pages < PAGES => {
                    return self.wait(Cursor::Later(at), Wait::Page(at));
                }
                Owed::Ahead if taken.is_empty() => return self.wait(Cursor::Later(at), Wait::Node(at)),
                Owed::Older if !self.moved => return Drawn::Unavailable,
                Owed::Older | Owed::Unknown | Owed::Ahead => return taken.answer(Some(at), false),
            }
        }
    }

    fn earlier(
        &mut self,
        mut edge: Edge,
        mut taken: Taken<'_>,
        mut preceding: impl FnMut(Edge, (usize, usize)) -> Preceding,
    ) -> Drawn {
        loop {
            let left = self.limit - taken.messages.len();
            match preceding(edge, (left, self.room)) {
                Preceding::These { messages, from, rest } => {
                    for message in messages.iter().rev() {
                        if !taken.take(message) {
                            let oldest = taken.messages.last().map(|oldest| oldest.record.position());
                            return taken.answer_back(oldest, false);
                        }
                    }
                    (edge, self.moved) = (Edge::before(from), true);
                    match rest {
                        Rest::None => return taken.answer_back(None, true),
                        Rest::Unproven => return taken.answer_back(None, false),
                        Rest::More if taken.is_full() => return taken.answer_back(Some(from), false),
                        Rest::More => {}
                    }
                }
                Preceding::Unknown if self.is_unfounded() => return Drawn::Gone,
                Preceding::Unknown => return taken.answer_back(None, false),
                Preceding::Older if taken.is_empty() && self.pages < PAGES => {
                    return self.wait(Cursor::Earlier(edge), Wait::Earlier(edge.at));
                }
                Preceding::Ahead if taken.is_empty() => {
                    let cursor = if self.newest { Cursor::End } else { Cursor::Earlier(edge) };
                    return self.wait(cursor, Wait::Node(edge.at));
                }
                // `before` this position would leave out its own message.
                Preceding::Older | Preceding::Ahead if edge.inclusive => return Drawn::Unavailable,
                Preceding::Older | Preceding::Ahead => return taken.answer_back(Some(edge.at), false),
            }
        }
    }
}

#[cfg(test)]
mod tests;
