//! What one record changes, in the order in which all nodes note it.
//!
//! Pure. Unlike what subscribers are shown, it depends on no clock: equal records give equal steps.

use std::collections::BTreeMap;

use super::name::Name;
use super::record::Info;

/// A change of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) channel: Box<str>,
    pub(crate) what: What,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The channel has its first subscriber.
    Occupied,
    Joined(Name, Option<Info>),
    Left(Name),
    /// The channel has no subscriber any more.
    Vacated,
}

/// The steps of the record that is being folded, by the numbers that this node gives to channels.
#[derive(Debug, Default)]
pub(super) struct Noted {
    steps: Vec<(u32, What)>,
    /// Whether the channels that it concerns had subscribers before it.
    occupied: BTreeMap<u32, bool>,
}

/// What a record changes in one channel.
#[derive(Debug, Default)]
struct OfChannel {
    occupied: Option<What>,
    members: Vec<What>,
    vacated: Option<What>,
}

impl Noted {
    /// Notes whether a channel has subscribers, unless that is noted already.
    pub(super) fn touch(&mut self, channel: u32, occupied: bool) {
        self.occupied.entry(channel).or_insert(occupied);
    }

    /// Notes that a member has joined or left.
    pub(super) fn add(&mut self, channel: u32, what: What) {
        self.steps.push((channel, what));
    }

    /// Ends the record. `of` says a channel's name, and whether it has subscribers now. The steps come by the names of channels,
    /// because the numbers differ from node to node.
    pub(super) fn take<'a>(&mut self, of: impl Fn(u32) -> (&'a str, bool)) -> Vec<Step> {
        let Self { steps, occupied } = std::mem::take(self);
        let mut all: BTreeMap<&str, OfChannel> = BTreeMap::new();
        for (id, before) in occupied {
            let (name, now) = of(id);
            let occupied = (now && !before).then_some(What::Occupied);
            let vacated = (before && !now).then_some(What::Vacated);
            all.insert(name, OfChannel { occupied, vacated, members: Vec::new() });
        }
        for (id, what) in steps {
            all.entry(of(id).0).or_default().members.push(what);
        }
        let in_order = |(channel, of): (&str, OfChannel)| {
            let all = of.occupied.into_iter().chain(of.members).chain(of.vacated);
            all.map(|what| Step { channel: channel.into(), what }).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(in_order).collect()
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::super::fold::Fold;
    use super::super::record::{Member, OnChannel, Part, Written};
    use super::*;
    use crate::cluster::Life;

    fn on(channel: &str, join: &[&str], leave: &[&str], count: Option<u64>) -> OnChannel {
        let members = |names: &[&str]| names.iter().map(|name| Member::new(&Name::user(name), None)).collect();
        OnChannel { join: members(join), leave: members(leave), count, ..OnChannel::new(channel) }
    }

    fn record(node: u64, number: u64, list: Option<Part>, channels: Vec<OnChannel>) -> Written {
        let life = Some(Life { node, incarnation: 1 });
        Written { life, number, list, channels, ..Written::default() }
    }

    fn words(steps: Vec<Step>) -> Vec<String> {
        let word = |Step { channel, what }| match what {
            What::Occupied => format!("{channel} occupied"),
            What::Vacated => format!("{channel} vacated"),
            What::Joined(name, _) => format!("{channel} +{}", name.text()),
            What::Left(name) => format!("{channel} -{}", name.text()),
        };
        steps.into_iter().map(word).collect()
    }

    #[test]
    fn a_channel_is_occupied_before_its_first_member_joins_and_vacated_after_its_last_has_left() {
        let mut fold = Fold::noting();
        let ended = Written { ended: vec![Life { node: 2, incarnation: 1 }], ..Written::default() };
        let steps: [(Written, &[&str]); 9] = [
            (
                record(1, 1, None, vec![on("b", &["ann"], &[], None), on("a", &[], &[], Some(3))]),
                &["a occupied", "b occupied", "b +ann"],
            ),
            (record(2, 1, None, vec![on("b", &["ann", "bob"], &[], None), on("a", &[], &[], Some(1))]), &["b +bob"]),
            (record(1, 2, None, vec![on("b", &[], &["ann"], None), on("a", &[], &[], Some(0))]), &[]),
            (record(1, 2, None, vec![on("b", &["eve"], &[], None)]), &[]),
            (
                record(2, 2, Some(Part::Whole), vec![on("b", &["ann"], &[], None), on("a", &[], &[], Some(1))]),
                &["b -bob"],
            ),
            (record(1, 3, Some(Part::First), vec![on("c", &["ann"], &[], None)]), &["c occupied", "c +ann"]),
            (record(1, 4, Some(Part::Last), vec![]), &[]),
            (ended, &["a vacated", "b -ann", "b vacated"]),
            (record(1, 5, Some(Part::Whole), vec![]), &["c -ann", "c vacated"]),
        ];
        for (offset, (record, expected)) in (1..).zip(steps) {
            fold.apply(&record, offset);
            assert_eq!(words(fold.steps()), expected, "{record:?}");
        }
        let mut silent = Fold::default();
        silent.apply(&record(1, 1, None, vec![on("b", &["ann"], &[], None)]), 1);
        assert_eq!(silent.steps(), []);
    }

    /// Two folds whose numbers of channels and times of shown changes differ.
    #[test]
    fn equal_records_give_equal_steps_and_the_steps_say_who_is_there() {
        for seed in 0..300 {
            let (mut rng, mut now) = (Rng::with_seed(seed), std::time::Instant::now());
            let (mut one, mut other) = (Fold::noting(), Fold::noting());
            other.apply(&record(9, 1, None, vec![on("z", &["x"], &[], None), on("y", &["x"], &[], None)]), 1);
            drop(other.steps());
            let (mut there, mut numbers) = (std::collections::BTreeSet::new(), [0; 3]);
            for offset in 2..150 {
                let node = rng.usize(..3);
                numbers[node] += 1;
                let channels: Vec<_> = (0..3)
                    .map(|_| {
                        let (channel, name) = (["a", "b"][rng.usize(..2)], ["ann", "bob", "eve"][rng.usize(..3)]);
                        match rng.u8(..4) {
                            0 | 1 => on(channel, &[name], &[], None),
                            2 => on(channel, &[], &[name], None),
                            _ => on("c", &[], &[], Some(rng.u64(..2))),
                        }
                    })
                    .collect();
                let list = (rng.u8(..6) == 0).then_some(Part::Whole);
                let mut written = record(node as u64, numbers[node], list, channels);
                if rng.u8(..10) == 0 {
                    let ended = vec![Life { node: rng.u64(..3), incarnation: 1 }];
                    written = Written { ended, ..Written::default() };
                }
                one.apply(&written, offset);
                other.apply(&written, offset);
                let steps = words(one.steps());
                assert_eq!(steps, words(other.steps()), "seed {seed}");
                for step in steps {
                    let (channel, what) = step.split_once(' ').expect("two words");
                    let fits = match what.split_at(1) {
                        ("+", name) => there.insert((channel.to_owned(), name.to_owned())),
                        ("-", name) => there.remove(&(channel.to_owned(), name.to_owned())),
                        ("o", _) => there.insert((channel.to_owned(), String::new())),
                        _ => there.remove(&(channel.to_owned(), String::new())),
                    };
                    assert!(fits, "seed {seed}: {step} twice");
                }
                for channel in ["a", "b"] {
                    let members: Vec<_> = one
                        .page(channel, None, 9)
                        .members
                        .into_iter()
                        .map(|(name, _)| name.text().to_owned())
                        .collect();
                    let noted: Vec<_> = there
                        .iter()
                        .filter(|(of, name)| of == channel && !name.is_empty())
                        .map(|(_, name)| name.clone())
                        .collect();
                    assert_eq!(members, noted, "seed {seed}");
                    assert_eq!(there.contains(&(channel.to_owned(), String::new())), !noted.is_empty(), "seed {seed}");
                }
                if rng.bool() {
                    now += std::time::Duration::from_secs(1);
                    one.take(now);
                }
            }
        }
    }
}
