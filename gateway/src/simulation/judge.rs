//! Checks whether a world kept the law, with the history checker that all tests share and with the ledger.

use std::collections::{BTreeMap, BTreeSet};

use broker_adapters::Position;
use law::{History, Outcome, Report};

use super::chronicle::{Chronicle, Event, Intent, Step, Trace};
use super::ledger::{Ledger, Written};

/// Expectations beyond the law.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The broker loses nothing: no client may receive `lost`, and no client may receive a message twice.
    pub(super) nothing_lost: bool,
    /// The faults hide no node from the others: no running node may count as gone.
    pub(super) nobody_gone: bool,
}

/// Checks all traces and records breaches in the chronicle.
pub(super) fn judge(chronicle: &Chronicle, ledger: &Ledger, expected: Expected) -> Report {
    let traces = chronicle.traces.take();
    for trace in &traces {
        follow(chronicle, ledger, trace, expected);
    }
    let intents = chronicle.intents.take();
    let channels: BTreeSet<&str> = intents.iter().map(|intent| intent.channel.as_str()).collect();
    let mut sum = Report::default();
    for channel in channels {
        let messages = ledger.messages(channel);
        let check = ChannelCheck {
            chronicle,
            ledger,
            expected,
            channel,
            intents: &intents,
            messages,
            history: History::default(),
        };
        let report = check.report(&traces);
        sum.acked += report.acked;
        sum.delivered += report.delivered;
        sum.lost_marked += report.lost_marked;
        sum.silent_loss += report.silent_loss;
        report.breaches.into_iter().for_each(|breach| chronicle.breach(breach));
    }
    sum
}

/// Checks that each step of a trace follows the one before without a gap.
fn follow(chronicle: &Chronicle, ledger: &Ledger, trace: &Trace, expected: Expected) {
    let mut from: Option<Position> = None;
    let breach = |why: String| {
        chronicle.breach(format!("client {} on {}, by the ledger: {why}", trace.client, trace.channel));
    };
    for step in &trace.steps {
        let (to, through) = match step {
            Step::Mark => {
                from = None;
                if expected.nothing_lost {
                    breach("received `lost`, although the broker lost nothing".into());
                }
                continue;
            }
            Step::Moved | Step::Withdrawn(_) | Step::Given => continue,
            Step::Message { at, payload, .. } => {
                if !ledger.holds(*at, payload) {
                    breach(format!("`{payload}` was never at {at}"));
                }
                (*at, false)
            }
            Step::Reached(at) => (*at, true),
        };
        if let Some(why) = from.and_then(|from| ledger.missed(&trace.channel, from, to, through)) {
            breach(why);
        }
        from = Some(to);
    }
}

/// Translates the events and traces of one channel into a [`History`].
struct ChannelCheck<'a> {
    chronicle: &'a Chronicle,
    ledger: &'a Ledger,
    expected: Expected,
    channel: &'a str,
    intents: &'a [Intent],
    messages: BTreeMap<&'a str, Vec<&'a Written>>,
    history: History,
}

impl ChannelCheck<'_> {
    fn report(&self, traces: &[Trace]) -> Report {
        self.publishes();
        for (number, trace) in traces.iter().enumerate().filter(|(_, trace)| trace.channel == self.channel) {
            self.replay(number, trace);
        }
        self.history.report()
    }

    /// Adds the publishes. If several generations of a log held a message, it counts as one message per generation, and
    /// clients need not have received any of them. A message that a roll-back removed counts as unacknowledged.
    fn publishes(&self) {
        let mut begun = BTreeMap::new();
        for event in self.chronicle.events.borrow().iter() {
            let (Event::Begin(intent) | Event::End(intent, _)) = event;
            let Intent { channel, payload } = &self.intents[*intent];
            if channel != self.channel {
                continue;
            }
            match event {
                Event::Begin(intent) => {
                    let names = self.names(payload);
                    let publish = |name: &String| self.history.publish(channel, name);
                    begun.insert(*intent, names.iter().map(publish).collect::<Vec<_>>());
                }
                Event::End(intent, outcome) => {
                    let copies = self.messages.get(payload.as_str());
                    let undone = copies.is_some_and(|copies| copies.iter().any(|written| written.undone));
                    let ids = begun.get(intent).map(Vec::as_slice).unwrap_or_default();
                    let outcome = match outcome {
                        Outcome::Acknowledged if undone || ids.len() > 1 => Outcome::Unknown,
                        outcome => *outcome,
                    };
                    ids.iter().for_each(|id| self.history.ended(*id, outcome));
                }
            }
        }
    }

    fn names(&self, payload: &str) -> Vec<String> {
        let copies = self.messages.get(payload).map(Vec::as_slice).unwrap_or_default();
        let generations: BTreeSet<u32> = copies.iter().map(|written| written.generation).collect();
        match generations.len() {
            0 | 1 => vec![payload.to_owned()],
            _ => generations.iter().map(|generation| format!("{payload} in {generation}")).collect(),
        }
    }

    /// Adds one reader per trace, with a mark at its begin and end. If records can vanish, a new node may not recognise a
    /// repeated message. A client may then receive a message again over another connection, so each connection counts as a
    /// separate reader.
    fn replay(&self, number: usize, trace: &Trace) {
        let begin = |part: usize| {
            let reader = self.history.reader(&format!("client {} (trace {number}.{part})", trace.client));
            self.history.marked(reader, &trace.channel);
            reader
        };
        let position = |step: &Step| if let Step::Message { at, .. } = step { Some(*at) } else { None };
        let read: Vec<Position> = trace.steps.iter().filter_map(position).collect();
        let mut generations = self.ledger.generations(&read).into_iter();
        let mut part = 0;
        let mut reader = begin(part);
        for step in &trace.steps {
            match step {
                Step::Mark => self.history.marked(reader, &trace.channel),
                Step::Moved if !self.expected.nothing_lost => {
                    self.history.marked(reader, &trace.channel);
                    part += 1;
                    reader = begin(part);
                }
                // What was missed without the right comes too: the position was proven.
                Step::Moved => self.history.recovered(reader, &trace.channel),
                Step::Withdrawn(by) => self.history.withdrawn(reader, &trace.channel, *by),
                Step::Given => self.history.given(reader, &trace.channel),
                Step::Reached(_) => {}
                Step::Message { payload, at, when } => {
                    let generation = generations.next().unwrap_or_default();
                    // A node notices a fork only when it reads from the new primary. Records of the old one before that do
                    // not count; a mark follows them.
                    if self.ledger.is_forked(*at) {
                        continue;
                    }
                    // A node that has not read the first copy cannot recognise the second.
                    if !self.expected.nothing_lost && self.ledger.is_repeated(*at) {
                        continue;
                    }
                    let several = self.names(payload).len() > 1;
                    let name = if several { format!("{payload} in {generation}") } else { payload.clone() };
                    self.history.saw_at(reader, &trace.channel, &name, *when);
                }
            }
        }
        self.history.marked(reader, &trace.channel);
    }
}
