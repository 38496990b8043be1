//! A run of a cluster, judged by the broker suite's history checker: nothing lost without a mark, one order for all.
//!
//! Publishes are recorded as they happen, what clients saw when the run is judged. Clients that saw the same are judged
//! as one, which makes hundreds of them cheap. A connection that has ended is a mark: its client knows that it has missed
//! something, and so does one that came later.

#[path = "../../broker-adapters/tests/conformance/history.rs"]
#[allow(clippy::needless_borrowed_reference)]
pub mod law;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

pub use self::law::{Outcome, Report};
use crate::client::{Client, Frame};

/// What happens on one channel.
#[derive(Debug)]
pub struct Run {
    channel: String,
    publishes: Mutex<Vec<Event>>,
}

/// The begin of a publish, or the end of the one that is so far from the front.
#[derive(Debug)]
enum Event {
    Begin(String),
    End(usize, Outcome),
}

/// What a client met on the channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Met {
    Message(String),
    Mark,
}

impl Run {
    /// A run on this channel.
    #[must_use]
    pub fn on(channel: &str) -> Self {
        Self { channel: channel.to_owned(), publishes: Mutex::default() }
    }

    /// Publishes on the channel, as a client that may or may not be subscribed. Payloads must be unique.
    pub async fn publish(&self, client: &Client, payload: &str) -> Result<Outcome> {
        let publish = self.note(Event::Begin(payload.to_owned()));
        let outcome = client.publish(&self.channel, payload).await?;
        self.note(Event::End(publish, outcome));
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

    /// Judges what was seen by clients that were there from the start, and by clients that came later; prints the numbers.
    pub fn judge<'a>(
        &self,
        clients: impl IntoIterator<Item = &'a Client>,
        late: impl IntoIterator<Item = &'a Client>,
    ) -> Report {
        let views = clients.into_iter().map(|client| self.view(client));
        let late = late.into_iter().map(|client| {
            let mut view = self.view(client);
            view.insert(0, Met::Mark);
            view
        });
        self.report(views.chain(late))
    }

    fn view(&self, client: &Client) -> Vec<Met> {
        let met = |frame: &Frame| match frame {
            Frame::Message { channel, data, .. } if *channel == self.channel => Some(Met::Message(data.clone())),
            Frame::Lost { channel, .. } if *channel == self.channel => Some(Met::Mark),
            _ => None,
        };
        let mut view: Vec<_> = client.frames().iter().filter_map(met).collect();
        if !client.is_open() {
            view.push(Met::Mark);
        }
        view
    }

    fn report(&self, views: impl Iterator<Item = Vec<Met>>) -> Report {
        let (mut readers, mut delivered, mut marks) = (0, 0, 0);
        let mut distinct: HashMap<Vec<Met>, usize> = HashMap::new();
        for view in views {
            readers += 1;
            let messages = view.iter().filter(|met| matches!(met, Met::Message(_))).count();
            (delivered, marks) = (delivered + messages, marks + view.len() - messages);
            *distinct.entry(view).or_default() += 1;
        }
        let history = self.history();
        for (number, (view, count)) in distinct.iter().enumerate() {
            let reader = history.reader(&format!("view {number}, of {count} readers,"));
            for met in view {
                match met {
                    Met::Message(payload) => history.saw(reader, &self.channel, payload),
                    Met::Mark => history.marked(reader, &self.channel),
                }
            }
        }
        let mut report = history.report();
        (report.delivered, report.lost_marked) = (delivered, marks);
        println!("{}: {readers} readers, {} views, {report}", self.channel, distinct.len());
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges views in short words, `!` for a mark, after publishes that were all acknowledged.
    fn judge(publishes: &str, views: &[&str]) -> Report {
        let run = Run::on("lane");
        for payload in publishes.split(' ') {
            let publish = run.note(Event::Begin(payload.to_owned()));
            run.note(Event::End(publish, Outcome::Acknowledged));
        }
        let met = |word: &str| if word == "!" { Met::Mark } else { Met::Message(word.to_owned()) };
        run.report(views.iter().map(|view| view.split(' ').map(met).collect()))
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
}
