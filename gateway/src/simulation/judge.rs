//! Whether a world kept the law: by the history checker of all other tests, and by the ledger, which knows the truth.

use std::collections::{BTreeMap, BTreeSet};

use broker_adapters::Position;

use super::chronicle::{Chronicle, Step, Story, Turn, Wish};
use super::law::{History, Outcome, Report};
use super::ledger::{Ledger, Stand};

/// What is expected beyond the law.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The broker lost nothing: nobody may be told so, and no message comes to a client twice in its life.
    pub(super) nothing_lost: bool,
}

/// Judges all stories; notes breaches in the chronicle.
pub(super) fn judge(chronicle: &Chronicle, ledger: &Ledger, expected: Expected) -> Report {
    let stories = chronicle.stories.take();
    for story in &stories {
        follow(chronicle, ledger, story, expected);
    }
    let wishes = chronicle.wishes.take();
    let channels: BTreeSet<&str> = wishes.iter().map(|wish| wish.channel.as_str()).collect();
    let mut sum = Report::default();
    for channel in channels {
        let messages = ledger.messages(channel);
        let court =
            Court { chronicle, ledger, expected, channel, wishes: &wishes, messages, history: History::default() };
        let report = court.report(&stories);
        sum.acked += report.acked;
        sum.delivered += report.delivered;
        sum.lost_marked += report.lost_marked;
        sum.silent_loss += report.silent_loss;
        report.breaches.into_iter().for_each(|breach| chronicle.breach(breach));
    }
    sum
}

/// Each step must follow from the one before.
fn follow(chronicle: &Chronicle, ledger: &Ledger, story: &Story, expected: Expected) {
    let mut from: Option<Position> = None;
    let breach = |why: String| {
        chronicle.breach(format!("client {} on {}, by the ledger: {why}", story.client, story.channel));
    };
    for step in &story.steps {
        let (to, through) = match step {
            Step::Mark => {
                from = None;
                if expected.nothing_lost {
                    breach("told `lost`, although the broker lost nothing".into());
                }
                continue;
            }
            Step::Moved => continue,
            Step::Message { at, payload } => {
                if !ledger.holds(*at, payload) {
                    breach(format!("`{payload}` does not stand at {at}"));
                }
                (*at, false)
            }
            Step::Reached(at) => (*at, true),
        };
        if let Some(why) = from.and_then(|from| ledger.missed(&story.channel, from, to, through)) {
            breach(why);
        }
        from = Some(to);
    }
}

/// Turns what happened on one channel into what the history checker understands.
struct Court<'a> {
    chronicle: &'a Chronicle,
    ledger: &'a Ledger,
    expected: Expected,
    channel: &'a str,
    wishes: &'a [Wish],
    messages: BTreeMap<&'a str, Vec<&'a Stand>>,
    history: History,
}

impl Court<'_> {
    fn report(&self, stories: &[Story]) -> Report {
        self.publishes();
        for (number, story) in stories.iter().enumerate().filter(|(_, story)| story.channel == self.channel) {
            self.tell(number, story);
        }
        self.history.report()
    }

    /// A message that several generations of a log held is another one in each, and none of them had to be seen. What
    /// a roll-back took was never safe.
    fn publishes(&self) {
        let mut begun = BTreeMap::new();
        for turn in self.chronicle.turns.borrow().iter() {
            let (Turn::Begin(wish) | Turn::End(wish, _)) = turn;
            let Wish { channel, payload } = &self.wishes[*wish];
            if channel != self.channel {
                continue;
            }
            match turn {
                Turn::Begin(wish) => {
                    let names = self.names(payload);
                    let publish = |name: &String| self.history.publish(channel, name);
                    begun.insert(*wish, names.iter().map(publish).collect::<Vec<_>>());
                }
                Turn::End(wish, outcome) => {
                    let stands = self.messages.get(payload.as_str());
                    let undone = stands.is_some_and(|stands| stands.iter().any(|stand| stand.undone));
                    let ids = begun.get(wish).map(Vec::as_slice).unwrap_or_default();
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
        let stands = self.messages.get(payload).map(Vec::as_slice).unwrap_or_default();
        let generations: BTreeSet<u32> = stands.iter().map(|stand| stand.generation).collect();
        match generations.len() {
            0 | 1 => vec![payload.to_owned()],
            _ => generations.iter().map(|generation| format!("{payload} in {generation}")).collect(),
        }
    }

    /// One reader per story: it came late and left early. Where records can vanish, a fresh node may not know that a
    /// message is a repeated one, so that only within a connection none comes twice.
    fn tell(&self, number: usize, story: &Story) {
        let begin = |part: usize| {
            let reader = self.history.reader(&format!("client {} (story {number}.{part})", story.client));
            self.history.marked(reader, &story.channel);
            reader
        };
        let position = |step: &Step| if let Step::Message { at, .. } = step { Some(*at) } else { None };
        let read: Vec<Position> = story.steps.iter().filter_map(position).collect();
        let mut generations = self.ledger.generations(&read).into_iter();
        let mut part = 0;
        let mut reader = begin(part);
        for step in &story.steps {
            match step {
                Step::Mark => self.history.marked(reader, &story.channel),
                Step::Moved if !self.expected.nothing_lost => {
                    self.history.marked(reader, &story.channel);
                    part += 1;
                    reader = begin(part);
                }
                Step::Moved | Step::Reached(_) => {}
                Step::Message { payload, at } => {
                    let generation = generations.next().unwrap_or_default();
                    // Two primaries at once are found out only when they are met: what the left one shows until then comes
                    // before the mark.
                    if self.ledger.is_forked(*at) {
                        continue;
                    }
                    // Whoever has not read the first of them cannot know.
                    if !self.expected.nothing_lost && self.ledger.is_repeated(*at) {
                        continue;
                    }
                    let several = self.names(payload).len() > 1;
                    let name = if several { format!("{payload} in {generation}") } else { payload.clone() };
                    self.history.saw(reader, &story.channel, &name);
                }
            }
        }
        self.history.marked(reader, &story.channel);
    }
}
