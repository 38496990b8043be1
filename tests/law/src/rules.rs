//! The rules, checked for one reader's view of one lane beside what all others met there.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::history::{Met, Outcome, Publish};
use crate::report::Report;
use crate::rights;

/// What one reader met in one lane.
pub(crate) struct View<'a> {
    pub(crate) reader: &'a str,
    /// How many readers met the same.
    pub(crate) count: usize,
    pub(crate) lane: &'a str,
    pub(crate) met: &'a [Met],
    /// What each other reader met there.
    pub(crate) others: Vec<&'a [Met]>,
    /// All publishes in the lane, by payload.
    pub(crate) published: &'a HashMap<&'a str, &'a Publish>,
}

/// Where each message stands in a view.
fn places(met: &[Met]) -> HashMap<&str, usize> {
    met.iter().enumerate().filter_map(|(place, met)| Some((message(met)?, place))).collect()
}

/// Where each message stands that a view has once.
fn single_places(met: &[Met]) -> HashMap<&str, usize> {
    let mut places = places(met);
    let mut seen = HashSet::new();
    let again: Vec<_> = met.iter().filter_map(message).filter(|payload| !seen.insert(*payload)).collect();
    places.retain(|payload, _| !again.contains(payload));
    places
}

fn message(met: &Met) -> Option<&str> {
    match met {
        Met::Message(payload) | Met::Timed(payload, _) => Some(payload),
        Met::Mark | Met::Recovered | Met::Early(_) | Met::Withdrawn { .. } | Met::Given => None,
    }
}

impl View<'_> {
    /// Adds the view's numbers and breaches.
    pub(crate) fn check(&self, report: &mut Report) {
        report.delivered += self.count * self.messages().count();
        report.lost_marked += self.count * self.met.iter().filter(|met| **met == Met::Mark).count();
        self.check_each(report);
        self.check_rights(report);
        self.check_real_time(report);
        self.check_order(report);
        self.check_missing(report);
    }

    fn messages(&self) -> impl Iterator<Item = &str> {
        self.met.iter().filter_map(message)
    }

    fn breach(&self, report: &mut Report, what: fmt::Arguments<'_>) {
        report.breaches.push(format!("{} in lane {}: {what}", self.reader, self.lane));
    }

    /// No duplicate, no invention, no message that failed or that came too early. After a mark a message may come again: a new
    /// log does not know what the old one held, and its publisher may have had to send it again.
    fn check_each(&self, report: &mut Report) {
        let mut before = HashMap::new();
        for (place, payload) in self.met.iter().enumerate().filter_map(|(place, met)| Some((place, message(met)?))) {
            let last = before.insert(payload, place);
            if last.is_some_and(|last| !self.met[last..place].contains(&Met::Mark)) {
                report.duplicate += 1;
                self.breach(report, format_args!("`{payload}` came twice"));
            }
            match self.published.get(payload).map(|publish| publish.ended) {
                None => self.breach(report, format_args!("`{payload}` was never published there")),
                Some(Some((_, Outcome::Failed))) => self.breach(report, format_args!("`{payload}` had failed")),
                Some(_) => {}
            }
        }
        for met in self.met {
            if let Met::Early(why) = met {
                self.breach(report, format_args!("{why}"));
            }
        }
    }

    /// No message after the reader's right to the lane was withdrawn.
    fn check_rights(&self, report: &mut Report) {
        for (payload, why) in rights::late(self.met) {
            self.breach(report, format_args!("`{payload}` came {why}"));
        }
    }

    /// A message whose publish began after the end of another one comes after it.
    fn check_real_time(&self, report: &mut Report) {
        let mut latest: Option<&Publish> = None;
        for publish in self.messages().filter_map(|payload| self.published.get(payload)) {
            if let (Some(before), Some(acked)) = (latest, publish.acked())
                && acked < before.began
            {
                let (late, early) = (&publish.payload, &before.payload);
                self.breach(report, format_args!("`{late}` came after `{early}`, which began after its end"));
            }
            if latest.is_none_or(|latest| latest.began < publish.began) {
                latest = Some(publish);
            }
        }
    }

    /// All readers agree on the order.
    fn check_order(&self, report: &mut Report) {
        for other in &self.others {
            let (mine, theirs) = (single_places(self.met), single_places(other));
            let mut last: Option<(&str, usize)> = None;
            for (payload, place) in self
                .messages()
                .filter(|payload| mine.contains_key(payload))
                .filter_map(|payload| Some((payload, *theirs.get(payload)?)))
            {
                if let Some((before, _)) = last.filter(|(_, last)| *last > place) {
                    let reversed = format_args!("`{before}` before `{payload}`, another reader has it reversed");
                    self.breach(report, reversed);
                }
                last = Some((payload, place));
            }
        }
    }

    /// Every acknowledged message was seen, or a mark stands where it belongs, or the reader had no right to it there.
    fn check_missing(&self, report: &mut Report) {
        let mine = places(self.met);
        let others: Vec<_> = self.others.iter().map(|theirs| (*theirs, places(theirs))).collect();
        for (payload, publish) in self.published {
            let Some(acked) = publish.acked().filter(|_| !mine.contains_key(payload)) else { continue };
            // It belongs behind what surely came before it, and before what surely came after it.
            let (mut from, mut to) = (0, self.met.len());
            for (&other, &place) in &mine {
                let Some(other) = self.published.get(other) else { continue };
                if other.acked().is_some_and(|ended| ended < publish.began) {
                    from = from.max(place + 1);
                }
                if other.began > acked {
                    to = to.min(place);
                }
            }
            for (theirs, places) in &others {
                let Some(&here) = places.get(payload) else { continue };
                let known = |met: &Met| mine.get(message(met)?).copied();
                from = theirs[..here].iter().rev().find_map(known).map_or(from, |place| from.max(place + 1));
                to = theirs[here..].iter().find_map(known).map_or(to, |place| to.min(place));
            }
            let around = self.met.get(from..to).unwrap_or_default();
            if around.contains(&Met::Mark) || rights::excuses(self.met, from, to) {
                continue;
            }
            report.silent_loss += 1;
            let how = if around.contains(&Met::Recovered) {
                "from a recovery that promised all of it"
            } else {
                "and there is no mark"
            };
            self.breach(report, format_args!("`{payload}` was acknowledged, is missing, {how}"));
        }
    }
}
