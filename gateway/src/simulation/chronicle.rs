//! What happened in one world, in words for people, and in facts for the judge.

use std::cell::{Cell, RefCell};
use std::fmt;

use broker_adapters::Position;
use tokio::time::Instant;

use super::law::Outcome;

/// One step of a client's way through a channel.
#[derive(Debug)]
pub(super) enum Step {
    /// It was told that something may be missing here.
    Mark,
    /// It goes on over another connection.
    Moved,
    Message {
        payload: String,
        at: Position,
    },
    /// It was told that it is up to date with this place.
    Reached(Position),
}

/// What a client knows of a channel between two starts from nothing.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) client: usize,
    pub(super) channel: String,
    pub(super) steps: Vec<Step>,
}

/// A message that a client wants to be published, however often it must try.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) channel: String,
    pub(super) payload: String,
}

/// A publish begins or ends, by the number of its wish.
#[derive(Debug)]
pub(super) enum Turn {
    Begin(usize),
    End(usize, Outcome),
}

pub(super) struct Chronicle {
    began: Instant,
    /// Whether `lines` are kept.
    telling: bool,
    lines: RefCell<Vec<String>>,
    digest: Cell<u64>,
    pub(super) stories: RefCell<Vec<Story>>,
    pub(super) wishes: RefCell<Vec<Wish>>,
    pub(super) turns: RefCell<Vec<Turn>>,
    breaches: RefCell<Vec<String>>,
}

impl Chronicle {
    pub(super) fn new(telling: bool) -> Self {
        Self {
            began: Instant::now(),
            telling,
            lines: RefCell::default(),
            digest: Cell::new(0xcbf2_9ce4_8422_2325),
            stories: RefCell::default(),
            wishes: RefCell::default(),
            turns: RefCell::default(),
            breaches: RefCell::default(),
        }
    }

    /// Notes what happened.
    pub(super) fn tell(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>9.3}  {what}", self.began.elapsed().as_secs_f64());
        let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.digest.set(line.bytes().fold(self.digest.get(), fnv));
        if self.telling {
            self.lines.borrow_mut().push(line);
        }
    }

    /// Notes that a promise was broken.
    pub(super) fn breach(&self, what: String) {
        self.tell(format_args!("BREACH {what}"));
        self.breaches.borrow_mut().push(what);
    }

    /// A new story; gives its number.
    pub(super) fn story(&self, client: usize, channel: &str) -> usize {
        let mut stories = self.stories.borrow_mut();
        stories.push(Story { client, channel: channel.to_owned(), steps: Vec::new() });
        stories.len() - 1
    }

    pub(super) fn step(&self, story: usize, step: Step) {
        self.stories.borrow_mut()[story].steps.push(step);
    }

    /// A new wish; gives its number.
    pub(super) fn wish(&self, channel: &str, payload: &str) -> usize {
        let mut wishes = self.wishes.borrow_mut();
        wishes.push(Wish { channel: channel.to_owned(), payload: payload.to_owned() });
        self.turns.borrow_mut().push(Turn::Begin(wishes.len() - 1));
        wishes.len() - 1
    }

    pub(super) fn end(&self, wish: usize, outcome: Outcome) {
        self.turns.borrow_mut().push(Turn::End(wish, outcome));
    }

    /// All that was noted: breaches, lines, and a digest of all lines.
    pub(super) fn close(&self) -> (Vec<String>, Vec<String>, u64) {
        (self.breaches.take(), self.lines.take(), self.digest.get())
    }
}
