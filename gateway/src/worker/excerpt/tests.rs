//! History against a model: a log with several channels, repeated messages, a break, and a beginning that is trimmed while it
//! is read.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::protocol::Format;
use crate::window::tests::{Past, at};
use crate::worker::search::{Search, Searched};

/// One client's answers to one `history`.
struct Reader<'a> {
    past: &'a mut Past,
    /// The channel's number; its name is a letter.
    channel: u8,
    limit: u32,
    room: usize,
    /// Records of one reading.
    page: usize,
    worker: Position,
}

impl Reader<'_> {
    fn name(&self) -> &'static str {
        ["a", "b", "c"][usize::from(self.channel)]
    }

    fn ask(&mut self, start: Start) -> Result<Answer, &'static str> {
        let name = self.name();
        let mut excerpt = Excerpt::new(start, self.limit, self.room);
        for _ in 0..200 {
            let past = &*self.past;
            let drawn = excerpt.step(
                self.worker,
                &|message| message.frame(Format::NATIVE).len(),
                |at| past.owed(name, at, self.worker, self.room),
                |edge, most| past.preceding(name, edge, most),
            );
            let read = match drawn {
                Drawn::Answer(answer) => return Ok(answer),
                Drawn::Gone => return Err("gone"),
                Drawn::Unavailable => return Err("unavailable"),
                Drawn::Wait(Wait::Page(at)) => self.past.read(name, at, self.page),
                Drawn::Wait(Wait::Earlier(at)) => self.past.read_up_to(name, at, self.page),
                Drawn::Wait(wait) => panic!("{wait:?}"),
            };
            if !read {
                match excerpt.not_held(false) {
                    Some(Drawn::Answer(answer)) => return Ok(answer),
                    Some(Drawn::Gone) => return Err("gone"),
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("it has no end");
    }

    fn offsets(&self, answer: &Answer) -> Vec<u64> {
        let offsets: Vec<_> = answer.messages.iter().map(|message| message.record.offset.0).collect();
        let bytes: usize = answer.messages.iter().map(|message| message.frame(Format::NATIVE).len()).sum();
        assert!(offsets.len() <= self.limit as usize && (bytes <= self.room || offsets.len() == 1));
        assert!(answer.messages.iter().all(|message| message.record.channel() == self.name()), "of another channel");
        assert!(offsets.is_sorted(), "{offsets:?}");
        offsets
    }
}

/// What the model draws: the log, repeated messages, the offset before which the log breaks.
fn logs() -> impl Strategy<Value = (Vec<Option<u8>>, BTreeSet<u64>, Option<u64>)> {
    let log = proptest::collection::vec(proptest::option::of(0u8..3), 2..150);
    (log, proptest::collection::btree_set(2u64..150, 0..10), proptest::option::of(2u64..60))
}

proptest! {
    #[test]
    fn history_read_back_is_the_newest_messages_in_order_and_complete_is_never_a_lie(
        (log, repeated, broken) in logs(),
        evicted in 0usize..150,
        trims in proptest::collection::vec(0u64..160, 0..4),
        sizes in (0u8..3, 1u32..20, 1usize..600, 1usize..40),
    ) {
        let end = log.len() as u64;
        let broken = broken.filter(|broken| *broken < end);
        let mut past = Past::with(&log, repeated, broken);
        past.evict(evicted);
        let mut trims = trims.into_iter();
        let mut reader =
            Reader { past: &mut past, channel: sizes.0, limit: sizes.1, room: sizes.2, page: sizes.3, worker: at(end) };
        let after = broken.map_or(0, |broken| broken - 1);
        let all = reader.past.held(sizes.0, after);
        let (mut found, mut start) = (Vec::new(), Start::End);
        for _ in 0..500 {
            if let Some(trim) = trims.next() {
                reader.past.trim(trim);
            }
            let answer = reader.ask(start);
            let Ok(answer) = answer else {
                prop_assert_eq!(answer.err(), Some("gone"));
                prop_assert!(matches!(start, Start::Before(_)));
                break;
            };
            found.splice(0..0, reader.offsets(&answer));
            prop_assert!(all.ends_with(&found), "{found:?} is not the end of {all:?}");
            if answer.complete {
                let held = reader.past.held(sizes.0, 0);
                prop_assert!(found.ends_with(&held), "{found:?} is not all of {held:?}");
            }
            match answer.next {
                Some(next) => start = Start::Before(next),
                None => {
                    // The ring may have more than the log: what the log does not have proves nothing.
                    let unharmed = broken.is_none() && reader.past.held(sizes.0, 0) == all;
                    prop_assert!(answer.complete || !unharmed || reader.past.is_trimmed());
                    prop_assert!(!unharmed || found == all, "{found:?} instead of {all:?}");
                    return Ok(());
                }
            }
        }
        prop_assert!(reader.past.is_trimmed(), "it has no end");
    }

    #[test]
    fn history_read_onwards_is_what_follows_a_position_in_order(
        (log, repeated, broken) in logs(),
        evicted in 0usize..150,
        from in 1u64..150,
        sizes in (0u8..3, 1u32..20, 1usize..600, 1usize..40),
    ) {
        let end = log.len() as u64;
        let broken = broken.filter(|broken| *broken < end);
        let from = from.min(end);
        let mut past = Past::with(&log, repeated, broken);
        past.evict(evicted);
        let mut reader =
            Reader { past: &mut past, channel: sizes.0, limit: sizes.1, room: sizes.2, page: sizes.3, worker: at(end) };
        let all = reader.past.held(sizes.0, from);
        let (mut found, mut since) = (Vec::new(), at(from));
        for _ in 0..1000 {
            let answer = reader.ask(Start::Since(since));
            let Ok(answer) = answer else {
                prop_assert_eq!(answer.err(), Some("gone"));
                prop_assert!(broken.is_some_and(|broken| from < broken), "a position is not proven across a break");
                return Ok(());
            };
            found.extend(reader.offsets(&answer));
            prop_assert!(all.starts_with(&found), "{found:?} does not begin {all:?}");
            let next = answer.next.expect("there is always more to come");
            if answer.complete {
                prop_assert_eq!(found, all);
                return Ok(());
            }
            prop_assert!(next.offset > since.offset, "it goes on");
            since = next;
        }
        prop_assert!(false, "it has no end");
    }

    #[test]
    fn the_last_messages_are_those_after_the_position_that_the_search_finds(
        (log, repeated, broken) in logs(),
        evicted in 0usize..150,
        trimmed in 0u64..60,
        most in 0u32..30,
        page in 1usize..40,
        channel in 0u8..3,
    ) {
        let end = log.len() as u64;
        let broken = broken.filter(|broken| *broken < end);
        let mut past = Past::with(&log, repeated, broken);
        past.evict(evicted);
        let after = broken.map_or(0, |broken| broken - 1);
        let all = past.held(channel, after);
        past.trim(trimmed);
        let name = ["a", "b", "c"][usize::from(channel)];
        let mut search = Search::new(at(end), most, usize::MAX);
        let (position, found) = loop {
            match search.step(|edge, most| past.preceding(name, edge, most)) {
                Searched::At(at, found) => break (at, found),
                Searched::Wait(Wait::Earlier(at)) if past.read_up_to(name, at, page) => {}
                Searched::Wait(Wait::Earlier(_)) => break search.end(),
                Searched::Wait(wait) => prop_assert!(false, "{wait:?}"),
            }
        };
        let follow = all.iter().filter(|offset| **offset > position.offset.0).count();
        prop_assert_eq!((follow, position), (found as usize, at(position.offset.0)));
        prop_assert!(found <= most);
        // The first record that is held has nothing before it to begin after. A search reads 64 pages at most.
        let held = past.held(channel, after).len().min(most as usize);
        prop_assert!(found as usize + 1 >= held || end > 64 * page as u64, "{found} of {held}");
    }
}
