//! A run of a cluster, judged by the broker suite's history checker: nothing lost without a mark, one order for all.
//!
//! Publishes are recorded as they happen, what clients saw when the run is judged. Clients that saw the same are
//! judged as one, which makes hundreds of them cheap. A connection that has ended is a mark: its client knows that it
//! has missed something, and so does one that came later. Who comes back with a position is judged by all that it saw,
//! over all its connections ([`Returning`](crate::Returning)).

#[path = "../../broker-adapters/tests/conformance/history.rs"]
#[allow(clippy::needless_borrowed_reference)]
pub mod law;

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use self::law::{Outcome, Report};
use crate::client::{Client, Frame};

/// What happens on one channel.
#[derive(Debug)]
pub struct Run {
    channel: String,
    publishes: Mutex<Vec<Event>>,
    longest: Mutex<Duration>,
}

/// The begin of a publish, or the end of the one that is so far from the front.
#[derive(Debug)]
enum Event {
    Begin(String),
    End(usize, Outcome),
}

/// What a client met on the channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Met {
    /// A message.
    Message(String),
    /// It was told, or knows, that messages may be missing here.
    Mark,
    /// It was away, and was told that it gets all that it has missed.
    Recovered,
    /// A message that stands at or before the place from which on it was to get messages, in words.
    Early(String),
}

impl Run {
    /// A run on this channel.
    #[must_use]
    pub fn on(channel: &str) -> Self {
        Self { channel: channel.to_owned(), publishes: Mutex::default(), longest: Mutex::default() }
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The longest that a publish took so far.
    #[must_use]
    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes on the channel, as a client that may or may not be subscribed. Payloads must be unique.
    pub async fn publish(&self, client: &Client, payload: &str) -> Result<Outcome> {
        let publish = self.note(Event::Begin(payload.to_owned()));
        let begin = Instant::now();
        let outcome = client.publish(&self.channel, payload).await?;
        self.note(Event::End(publish, outcome));
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = longest.max(begin.elapsed());
        Ok(outcome)
    }

    fn note(&self, event: Event) -> usize {
        let mut publishes = self.publishes.lock().unwrap_or_else(PoisonError::into_inner);
        publishes.push(event);
        publishes.len() - 1
    }

    fn history(&self) -> law::History {
        let history = law::History::default();
        let mut begun = HashMap::new();
        for (place, event) in self.publishes.lock().unwrap_or_else(PoisonError::into_inner).iter().enumerate() {
            match event {
                Event::Begin(payload) => drop(begun.insert(place, history.publish(&self.channel, payload))),
                Event::End(publish, outcome) => history.ended(begun[publish], *outcome),
            }
        }
        history
    }

    /// Judges what clients saw that were there from the start, and clients that came later; prints the numbers.
    pub fn judge<'a>(
        &self,
        clients: impl IntoIterator<Item = &'a Client>,
        late: impl IntoIterator<Item = &'a Client>,
    ) -> Report {
        let views = clients.into_iter().map(|client| self.view(client));
        let late = late.into_iter().map(|client| [vec![Met::Mark], self.view(client)].concat());
        let report = self.judge_views(views.chain(late));
        println!("{}: {report}", self.channel);
        report
    }

    /// What a client met that was there from the start.
    #[must_use]
    pub fn view(&self, client: &Client) -> Vec<Met> {
        let mut view: Vec<_> = client.frames().iter().filter_map(|frame| met(&self.channel, frame)).collect();
        if !client.is_open() {
            view.push(Met::Mark);
        }
        view
    }

    /// Judges views.
    pub fn judge_views(&self, views: impl Iterator<Item = Vec<Met>>) -> Report {
        let (mut delivered, mut marks) = (0, 0);
        let mut distinct: HashMap<Vec<Met>, usize> = HashMap::new();
        for view in views {
            delivered += view.iter().filter(|met| matches!(met, Met::Message(_))).count();
            marks += view.iter().filter(|met| **met == Met::Mark).count();
            *distinct.entry(view).or_default() += 1;
        }
        let (history, mut early) = (self.history(), Vec::new());
        for (number, (view, count)) in distinct.iter().enumerate() {
            let reader = history.reader(&format!("view {number}, of {count} readers,"));
            for met in view {
                match met {
                    Met::Message(payload) => history.saw(reader, &self.channel, payload),
                    Met::Mark => history.marked(reader, &self.channel),
                    Met::Recovered => history.recovered(reader, &self.channel),
                    Met::Early(why) => early.push(format!("view {number}, of {count} readers: {why}")),
                }
            }
        }
        let mut report = history.report();
        (report.delivered, report.lost_marked) = (delivered, marks);
        report.breaches.append(&mut early);
        report
    }
}

/// What a frame is on a channel; nothing if it has nothing to do with it.
#[must_use]
pub fn met(channel: &str, frame: &Frame) -> Option<Met> {
    match frame {
        Frame::Message { channel: found, data, .. } if found == channel => Some(Met::Message(data.clone())),
        Frame::Lost { channel: found, .. } if found == channel => Some(Met::Mark),
        _ => None,
    }
}

/// The offset in a position, by which those of one log can be compared. For judges only: clients have no use for it.
pub fn offset(position: &str) -> Result<u64> {
    let last = position.rsplit('-').next().unwrap_or_default();
    u64::from_str_radix(last, 16).with_context(|| format!("{position:?} is not a position"))
}

/// The numbers of several channels together.
impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.duplicate += other.duplicate;
        self.lost_marked += other.lost_marked;
        self.silent_loss += other.silent_loss;
        self.breaches.extend(other.breaches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges views in short words, `!` for a mark, `^` for a recovery, `<` for an early message, after publishes that
    /// were all acknowledged.
    fn judge(publishes: &str, views: &[&str]) -> Report {
        let run = Run::on("lane");
        for payload in publishes.split(' ') {
            let publish = run.note(Event::Begin(payload.to_owned()));
            run.note(Event::End(publish, Outcome::Acknowledged));
        }
        let met = |word: &str| match word {
            "!" => Met::Mark,
            "^" => Met::Recovered,
            "<" => Met::Early("it is early".into()),
            _ => Met::Message(word.to_owned()),
        };
        run.judge_views(views.iter().map(|view| view.split(' ').map(met).collect()))
    }

    #[test]
    fn clients_that_saw_the_same_are_counted_one_by_one() {
        let report = judge("a b c", &["a b c", "a b c", "a b c"]);
        report.assert_whole();
        assert_eq!((report.acked, report.delivered), (3, 9));
    }

    #[test]
    fn one_client_that_saw_less_than_the_others_is_found() {
        let report = judge("a b c", &["a b c", "a c", "a b c", "a b c"]);
        assert_eq!((report.silent_loss, report.delivered), (1, 11));
        assert!(judge("a b c", &["a b c", "b a c"]).breaches.iter().any(|breach| breach.contains("reversed")));
        assert_eq!(judge("a b", &["a b", "a b b"]).duplicate, 1);
    }

    #[test]
    fn a_client_that_came_later_or_whose_connection_ended_has_lost_nothing_silently() {
        let report = judge("a b c", &["a b c", "! c", "a !"]);
        report.assert_lawful();
        assert_eq!(report.lost_marked, 2);
        assert_eq!(judge("a b c", &["a b c", "! a c"]).silent_loss, 1);
    }

    #[test]
    fn a_client_that_came_back_has_missed_nothing_or_knows_it() {
        let report = judge("a b c", &["a ^ b c", "a ! c", "a b c"]);
        report.assert_lawful();
        assert_eq!((report.delivered, report.lost_marked), (8, 1));
        assert_eq!(judge("a b c", &["a ^ c", "a b c"]).silent_loss, 1);
        assert_eq!(judge("a b c", &["a b ^ b c", "a b c"]).duplicate, 1);
        assert_eq!(judge("a b c", &["a ! < b c", "a b c"]).breaches.len(), 1, "a refused recovery gives nothing of it");
    }

    #[test]
    fn numbers_of_channels_are_added() {
        let mut sum = judge("a b", &["a b"]);
        sum += judge("a b c", &["a ! c c", "a b c"]);
        assert_eq!((sum.acked, sum.delivered, sum.duplicate, sum.lost_marked), (5, 8, 1, 1));
        assert_eq!(sum.breaches.len(), 1);
    }

    #[test]
    fn offsets_of_positions_can_be_compared() -> Result<()> {
        assert!(offset("ab-2-ff")? < offset("9-2-100")?);
        assert!(offset("somewhere").is_err());
        Ok(())
    }
}
