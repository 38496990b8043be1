//! The record of one world: lines for people and facts for the judge.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use broker_adapters::Position;
use law::Outcome;
use tokio::time::Instant;

/// One step of a client on a channel.
#[derive(Debug)]
pub(super) enum Step {
    /// It received `lost`: messages may be missing here.
    Mark,
    /// It resumed over another connection.
    Moved,
    Message {
        payload: String,
        at: Position,
        /// When it came.
        when: Duration,
    },
    /// Its token no longer allows the channel: nothing may come after this time.
    Withdrawn(Duration),
    /// Its token allows the channel again.
    Given,
    /// The node said that the client has everything up to this position.
    Reached(Position),
}

/// A client's steps on a channel, from one start without history to the next.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) client: usize,
    pub(super) channel: String,
    pub(super) steps: Vec<Step>,
}

/// A message that a client wants to publish, with any number of retries.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) channel: String,
    pub(super) payload: String,
}

/// The begin or end of a publish, by the number of its intent.
#[derive(Debug)]
pub(super) enum Event {
    Begin(usize),
    End(usize, Outcome),
}

pub(super) struct Chronicle {
    began: Instant,
    /// Whether `lines` are kept.
    keep_lines: bool,
    lines: RefCell<Vec<String>>,
    digest: Cell<u64>,
    pub(super) traces: RefCell<Vec<Trace>>,
    pub(super) intents: RefCell<Vec<Intent>>,
    pub(super) events: RefCell<Vec<Event>>,
    breaches: RefCell<Vec<String>>,
}

impl Chronicle {
    pub(super) fn new(keep_lines: bool) -> Self {
        Self {
            began: Instant::now(),
            keep_lines,
            lines: RefCell::default(),
            digest: Cell::new(0xcbf2_9ce4_8422_2325),
            traces: RefCell::default(),
            intents: RefCell::default(),
            events: RefCell::default(),
            breaches: RefCell::default(),
        }
    }

    /// The time since the world began.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Records an event.
    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>9.3}  {what}", self.began.elapsed().as_secs_f64());
        let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.digest.set(line.bytes().fold(self.digest.get(), fnv));
        if self.keep_lines {
            self.lines.borrow_mut().push(line);
        }
    }

    /// Records a breach of the law.
    pub(super) fn breach(&self, what: String) {
        self.note(format_args!("BREACH {what}"));
        self.breaches.borrow_mut().push(what);
    }

    /// Starts a trace and returns its number.
    pub(super) fn trace(&self, client: usize, channel: &str) -> usize {
        let mut traces = self.traces.borrow_mut();
        traces.push(Trace { client, channel: channel.to_owned(), steps: Vec::new() });
        traces.len() - 1
    }

    pub(super) fn step(&self, trace: usize, step: Step) {
        self.traces.borrow_mut()[trace].steps.push(step);
    }

    /// Starts an intent and returns its number.
    pub(super) fn intent(&self, channel: &str, payload: &str) -> usize {
        let mut intents = self.intents.borrow_mut();
        intents.push(Intent { channel: channel.to_owned(), payload: payload.to_owned() });
        self.events.borrow_mut().push(Event::Begin(intents.len() - 1));
        intents.len() - 1
    }

    pub(super) fn end(&self, intent: usize, outcome: Outcome) {
        self.events.borrow_mut().push(Event::End(intent, outcome));
    }

    /// Returns the breaches, the lines, and a digest of all lines.
    pub(super) fn close(&self) -> (Vec<String>, Vec<String>, u64) {
        (self.breaches.take(), self.lines.take(), self.digest.get())
    }
}
