//! Answers that hold for a time, which the backend has set.
//!
//! Pure. Bounded in number and bytes; when full, the oldest goes. Keeps a hash of each question, never the question, which may
//! have cookies in it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::Answer;

/// The most answers of one hook.
const MOST: usize = 16_384;
/// The most bytes of all answers of one hook, as they came.
const BYTES: usize = 16 << 20;
/// The longest time that an answer is kept, whatever the backend says.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// A hash of a question.
pub(super) type Key = [u8; 32];

struct Kept {
    answer: Arc<Answer>,
    until: Instant,
    bytes: usize,
    /// Unlike that of any other answer.
    number: u64,
}

/// The answers of one hook.
#[derive(Default)]
pub(super) struct Cache {
    answers: HashMap<Key, Kept>,
    /// In the order of their coming. May name answers that were replaced.
    order: VecDeque<(u64, Key)>,
    number: u64,
    bytes: usize,
}

impl Cache {
    pub(super) fn find(&mut self, key: &Key, now: Instant) -> Option<Arc<Answer>> {
        let kept = self.answers.get(key)?;
        if now < kept.until {
            return Some(Arc::clone(&kept.answer));
        }
        self.forget(key);
        None
    }

    /// Keeps an answer of so many bytes.
    pub(super) fn keep(&mut self, key: Key, answer: Arc<Answer>, bytes: usize, until: Instant) {
        self.forget(&key);
        self.number += 1;
        self.bytes += bytes;
        self.order.push_back((self.number, key));
        self.answers.insert(key, Kept { answer, until, bytes, number: self.number });
        while self.order.len() > MOST || self.bytes > BYTES {
            let Some((number, key)) = self.order.pop_front() else { return };
            if self.answers.get(&key).is_some_and(|kept| kept.number == number) {
                self.forget(&key);
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(kept) = self.answers.remove(key) {
            self.bytes -= kept.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn an_answer_holds_until_its_time_and_a_newer_one_replaces_it() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let (allowed, refused) = (Arc::new(Answer::default()), Arc::new(Answer::default()));
        let mut cache = Cache::default();
        cache.keep(key(1), Arc::clone(&allowed), 10, now + second);
        assert!(cache.find(&key(1), now).is_some_and(|found| Arc::ptr_eq(&found, &allowed)));
        assert!(cache.find(&key(2), now).is_none());
        cache.keep(key(1), Arc::clone(&refused), 10, now + 2 * second);
        assert!(cache.find(&key(1), now + second).is_some_and(|found| Arc::ptr_eq(&found, &refused)));
        assert!(cache.find(&key(1), now + 2 * second).is_none());
        assert_eq!((cache.answers.len(), cache.bytes), (0, 0));
    }

    #[test]
    fn it_is_bounded_in_number_and_bytes_and_the_oldest_goes_first() {
        let until = Instant::now() + LONGEST;
        let mut cache = Cache::default();
        for number in 0..2 * MOST {
            cache.keep(key(number), Arc::default(), 1, until);
            cache.keep(key(0), Arc::default(), 1, until);
        }
        assert!(cache.answers.len() <= MOST && cache.order.len() <= MOST);
        assert!(cache.find(&key(2 * MOST - 1), Instant::now()).is_some());
        assert!(cache.find(&key(1), Instant::now()).is_none());
        for number in 0..100 {
            cache.keep(key(number), Arc::default(), BYTES / 10, until);
        }
        assert!(cache.bytes <= BYTES && cache.answers.len() <= 10);
    }
}
