//! The fold against a model that knows who is there: any order of records, any reader.

use std::time::Duration;

use fastrand::Rng;

use super::super::record::{Member, Part, divide};
use super::super::samples::{FAULTS, Fault, join, members};
use super::*;

type Who = (String, Name);
type View = BTreeMap<String, BTreeMap<Name, Option<Info>>>;

/// A node as it writes records: who is there, and how far it counted.
#[derive(Debug, Clone)]
struct Writer {
    life: Life,
    number: u64,
    there: BTreeMap<Who, Option<Info>>,
    counts: BTreeMap<String, u64>,
}

impl Writer {
    fn new(node: u64) -> Self {
        Self { life: Life { node, incarnation: 1 }, number: 0, there: BTreeMap::new(), counts: BTreeMap::new() }
    }

    fn record(&mut self, list: Option<Part>, channels: Vec<OnChannel>) -> Written {
        self.number += 1;
        Written { life: Some(self.life), number: self.number, list, channels, ..Written::default() }
    }

    fn join(&mut self, channel: &str, name: &Name, info: Option<&Info>) -> Written {
        self.there.insert((channel.to_owned(), name.clone()), info.cloned());
        let join = vec![Member::new(name, info)];
        self.record(None, vec![OnChannel { join, ..OnChannel::new(channel) }])
    }

    fn leave(&mut self, channel: &str, name: &Name) -> Written {
        self.there.remove(&(channel.to_owned(), name.clone()));
        let leave = vec![Member::new(name, None)];
        self.record(None, vec![OnChannel { leave, ..OnChannel::new(channel) }])
    }

    fn count(&mut self, channel: &str, number: u64) -> Written {
        self.counts.insert(channel.to_owned(), number);
        self.record(None, vec![OnChannel { count: Some(number), ..OnChannel::new(channel) }])
    }

    fn list(&mut self, most: usize) -> Vec<Written> {
        let mut all: BTreeMap<&str, OnChannel> = BTreeMap::new();
        for ((channel, name), info) in &self.there {
            let on = all.entry(channel).or_insert_with(|| OnChannel::new(channel));
            on.join.push(Member::new(name, info.as_ref()));
        }
        for (channel, number) in &self.counts {
            all.entry(channel).or_insert_with(|| OnChannel::new(channel)).count = Some(*number);
        }
        let parts = divide(all.into_values().collect(), most);
        let count = parts.len();
        (0..).zip(parts).map(|(index, part)| self.record(Some(Part::of(index, count)), part)).collect()
    }
}

/// Draws a log of several nodes, and who is there at its end. Nodes end, and some live again.
fn history(rng: &mut Rng) -> (Vec<Written>, Vec<Writer>) {
    let (mut log, mut writers) = (Vec::new(), (1..=rng.u64(1..4)).map(Writer::new).collect::<Vec<_>>());
    for _ in 0..rng.usize(1..80) {
        let number = rng.usize(..writers.len());
        let writer = &mut writers[number];
        let (channel, text) = (["a", "b", "c"][rng.usize(..3)], ["ann", "bob", "eve", "x"][rng.usize(..4)]);
        let name = if text == "x" { Name::client(text) } else { Name::user(text) };
        let info: Option<Info> = rng.bool().then(|| ["1", "{}"][rng.usize(..2)].into());
        match rng.u8(..20) {
            0..8 => log.push(writer.join(channel, &name, info.as_ref())),
            8..13 => log.push(writer.leave(channel, &name)),
            13..15 => log.push(writer.count("n", rng.u64(..3))),
            15..18 => log.extend(writer.list(rng.usize(1..200))),
            18 => {
                let late = writer.clone().join(channel, &name, None);
                log.push(Written { ended: vec![writer.life], ..Written::default() });
                log.push(late);
                writer.life.incarnation += 1;
                (writer.number, writer.there, writer.counts) = (0, BTreeMap::new(), BTreeMap::new());
            }
            // Its end is not written: the next life's list says it.
            _ => {
                writer.life.incarnation += 1;
                writer.number = 0;
                writer.there.clear();
                log.extend(writer.list(50));
            }
        }
    }
    (log, writers)
}

fn truth(writers: &[Writer]) -> View {
    let mut lives: Vec<_> = writers.iter().collect();
    lives.sort_by_key(|writer| writer.life);
    let mut view = View::new();
    for writer in lives {
        for ((channel, name), info) in &writer.there {
            view.entry(channel.clone()).or_default().entry(name.clone()).or_insert_with(|| info.clone());
        }
    }
    view
}

fn view(fold: &Fold) -> View {
    let page = |name: &str| fold.page(name, None, usize::MAX).members.into_iter().collect();
    let all = fold.channels("").map(|(name, _)| (name.to_owned(), page(name)));
    all.filter(|(_, members): &(_, BTreeMap<_, _>)| !members.is_empty()).collect()
}

fn numbers(fold: &Fold, writers: &[Writer]) -> (u64, u64) {
    let sum = writers.iter().filter_map(|writer| writer.counts.get("n")).sum();
    (fold.page("n", None, 0).count, sum)
}

/// Reads from a random place on, with a random break, until each node has written its list. Returns whether the result is right.
fn reads_rightly(seed: u64, fault: Fault) -> bool {
    let mut rng = Rng::with_seed(seed);
    let (mut log, mut writers) = history(&mut rng);
    for writer in &mut writers {
        log.extend(writer.list(rng.usize(1..200)));
    }
    let dead: Vec<_> = log.iter().flat_map(|written| &written.ended).copied().collect();
    // A late record of an ended life can be all that a reader knows of it. Then a node ends that life again.
    log.push(Written { ended: dead, ..Written::default() });
    let lists = log.len();
    for writer in &mut writers {
        log.extend(writer.list(rng.usize(1..200)));
    }
    let (from, broken) = (rng.usize(..lists), rng.usize(..lists));
    let missing = rng.usize(..10);
    let mut fold = Fold::default();
    for (offset, mut written) in (1u64..).zip(log).skip(from) {
        let index = usize::try_from(offset).unwrap_or(usize::MAX);
        if (broken..broken + missing).contains(&index) && index < lists {
            fold.broke();
            continue;
        }
        fault(&mut written);
        fold.apply(&written, offset);
    }
    let lives: Vec<_> = writers.iter().map(|writer| writer.life).collect();
    let (count, sum) = numbers(&fold, &writers);
    view(&fold) == truth(&writers) && count == sum && fold.unknown(&lives).is_empty()
}

#[test]
fn a_reader_that_begins_anywhere_or_misses_records_is_right_once_each_life_has_written_its_list() {
    for seed in 0..2_000 {
        assert!(reads_rightly(seed, |_| {}), "seed {seed}");
    }
}

#[test]
fn bad_folds_are_found() {
    for (what, fault) in FAULTS {
        // Lists heal a reader that has not seen a leave, so that one is looked for without lists.
        let found = (0..2_000).any(|seed| !reads_rightly(seed, fault) || !follows(seed, fault));
        assert!(found, "a fold that {what} passes");
    }
}

/// Reads everything, and compares with the truth after each record of a history without lists in parts.
fn follows(seed: u64, fault: Fault) -> bool {
    let (log, writers) = history(&mut Rng::with_seed(seed));
    let mut fold = Fold::default();
    for (offset, mut written) in (1..).zip(log) {
        fault(&mut written);
        fold.apply(&written, offset);
    }
    // A list that ends a life's earlier one may still be under way only if the log ends within it, which it never does.
    let unended = writers.iter().any(|writer| writer.number == 0);
    unended || view(&fold) == truth(&writers)
}

#[test]
fn a_reader_of_everything_is_right_at_once() {
    for seed in 0..2_000 {
        assert!(follows(seed, |_| {}), "seed {seed}");
    }
}

#[test]
fn who_takes_the_list_and_applies_the_changes_after_it_sees_what_the_fold_holds() {
    for seed in 0..1_000 {
        let mut rng = Rng::with_seed(seed);
        let (log, _) = history(&mut rng);
        let (mut fold, mut seen, begin) = (Fold::default(), View::new(), rng.usize(..log.len()));
        let mut now = Instant::now();
        for (index, written) in log.iter().enumerate() {
            fold.apply(written, index as u64 + 1);
            now += Duration::from_millis(rng.u64(..800));
            let changes = fold.take(now);
            match index {
                _ if index < begin => {}
                _ if index == begin => seen = view(&fold),
                _ => apply(&mut seen, changes),
            }
        }
        apply(&mut seen, fold.take(now + TOGETHER));
        seen.retain(|_, members| !members.is_empty());
        assert_eq!(seen, view(&fold), "seed {seed}");
    }
}

fn apply(seen: &mut View, changes: Vec<Change>) {
    for change in changes {
        let members = seen.entry(change.channel.to_string()).or_default();
        members.extend(change.joined);
        change.left.iter().for_each(|name| drop(members.remove(name)));
    }
}

#[test]
fn the_second_life_of_a_member_is_silent_and_its_last_one_leaves_once() {
    let (mut one, mut other, mut fold) = (Writer::new(1), Writer::new(2), Fold::default());
    let (now, ann) = (Instant::now(), Name::user("ann"));
    fold.apply(&one.join("room", &ann, None), 1);
    let change =
        |joined, left, count| vec![Change { channel: "room".into(), to: Audience::Everyone, joined, left, count }];
    assert_eq!(fold.take(now), change(vec![(ann.clone(), None)], vec![], 1));
    fold.apply(&other.join("room", &ann, None), 2);
    assert_eq!(fold.take(now), []);
    let ended = Written { ended: vec![one.life], ..Written::default() };
    fold.apply(&ended, 3);
    assert_eq!(fold.take(now), []);
    fold.apply(&other.leave("room", &ann), 4);
    assert_eq!(fold.take(now), change(vec![], vec![ann.clone()], 0));
    fold.apply(&ended, 5);
    fold.apply(&one.join("room", &ann, None), 6);
    assert_eq!((fold.take(now), fold.channels("").count()), (vec![], 0), "its life has ended");
    assert_eq!(fold.ghosts(|_| false), []);
}

#[test]
fn a_break_hides_no_member_and_until_the_next_list_the_answer_is_known_to_be_partial() {
    let (mut writer, mut fold) = (Writer::new(1), Fold::default());
    let (ann, bob) = (Name::user("ann"), Name::user("bob"));
    fold.apply(&writer.join("room", &ann, None), 900);
    fold.apply(&writer.join("room", &bob, None), 901);
    assert_eq!(fold.unknown(&[writer.life]), [writer.life], "no list was read yet");
    writer.list(9).iter().zip(902..).for_each(|(written, offset)| fold.apply(written, offset));
    assert_eq!(fold.unknown(&[writer.life]), []);
    fold.take(Instant::now());
    fold.broke();
    assert_eq!((fold.take(Instant::now()), fold.unknown(&[writer.life])), (vec![], vec![writer.life]));
    assert_eq!(fold.page("room", None, 9).count, 2);
    writer.there.remove(&("room".to_owned(), bob.clone()));
    // The new log has small offsets.
    writer.list(9).iter().zip(1..).for_each(|(written, offset)| fold.apply(written, offset));
    let (channel, to) = ("room".into(), Audience::Everyone);
    let left = vec![Change { channel, to, joined: vec![], left: vec![bob], count: 1 }];
    assert_eq!((fold.take(Instant::now()), fold.unknown(&[writer.life])), (left, vec![]));
    writer.number += 1;
    fold.apply(&writer.join("room", &ann, None), 9);
    assert_eq!(fold.unknown(&[writer.life]), [writer.life], "a record is missing");
}

#[test]
fn pages_hold_each_member_once_in_the_order_of_names() {
    let mut fold = Fold::default();
    fold.apply(&join(1, 0..250), 1);
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let page = fold.page("room", after.as_ref(), 100);
        assert_eq!(page.count, 250);
        all.extend(page.members.iter().map(|(name, _)| name.text().to_owned()));
        after = page.members.last().map(|(name, _)| name.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(all, (0..250).map(|number| format!("user{number:06}")).collect::<Vec<_>>());
    assert_eq!(fold.page("other", None, 9), Page::default());
    assert_eq!(fold.channels("ro").collect::<Vec<_>>(), [("room", 250)]);
}

#[test]
fn changes_of_a_large_channel_are_shown_once_a_second_and_of_a_very_large_one_as_a_number() {
    let (mut fold, now) = (Fold::default(), Instant::now());
    fold.apply(&join(1, 0..1_100), 1);
    let first = fold.take(now);
    assert_eq!(first.iter().map(|change| change.joined.len()).collect::<Vec<_>>(), [500, 500, 100]);
    fold.apply(&join(2, 1_100..1_101), 2);
    fold.apply(&join(3, 1_101..1_102), 3);
    assert_eq!(fold.take(now + TOGETHER / 2), []);
    let second = fold.take(now + TOGETHER);
    assert_eq!((second.len(), second[0].joined.len(), second[0].count), (1, 2, 1_102));
    fold.apply(&join(4, 2_000..22_000), 4);
    let third = fold.take(now + 2 * TOGETHER);
    assert_eq!((third[0].to, third[0].joined.len(), third[0].count), (Audience::Others, 0, 21_102));
    let (named, all) = (third[1..].iter(), Audience::OfAll);
    assert!(named.clone().all(|change| change.to == all && change.count == 21_102));
    assert_eq!(named.map(|change| change.joined.len()).sum::<usize>(), 20_000);
    assert!(all.includes(true) && !all.includes(false) && Audience::Others.includes(false));
}

#[test]
fn who_reads_members_that_leave_before_a_change_shows_them_is_shown_that_they_have_left() {
    let (mut fold, now) = (Fold::default(), Instant::now());
    let short = |number| {
        let leave = Written {
            channels: vec![OnChannel { leave: members(1_100..1_101), ..OnChannel::new("room") }],
            ..join(number + 1, 0..0)
        };
        [join(number, 1_100..1_101), leave]
    };
    fold.apply(&join(1, 0..1_100), 1);
    fold.take(now);
    let [joins, leaves] = short(2);
    fold.apply(&joins, 2);
    fold.apply(&leaves, 3);
    assert_eq!(fold.take(now + TOGETHER), [], "no reader saw that member");
    let [joins, leaves] = short(4);
    fold.apply(&joins, 4);
    assert_eq!(fold.page("room", None, usize::MAX).count, 1_101);
    fold.apply(&leaves, 5);
    let changes = fold.take(now + 2 * TOGETHER);
    assert_eq!((changes.len(), changes[0].left.len(), changes[0].count), (1, 1, 1_100));
}

#[test]
fn a_member_takes_at_most_160_bytes() {
    // A leaf of the map has 11 places, and is at least half full after random insertions, two thirds on average.
    let place = size_of::<Key>() + size_of::<Vec<Held>>();
    // The entry of its one life stands apart, with the allocator's 8 bytes.
    let member = place * 3 / 2 + size_of::<Held>() + 8;
    assert!(member <= 160, "{member}");
}
