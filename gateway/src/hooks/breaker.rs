//! When a backend is left alone: it is not asked while it gives no valid answers, but for one question now and then.
//!
//! Pure. Closed: all questions pass. After [`IN_A_ROW`] failures in a row, or when half of the last ones failed, it opens: no question
//! passes for a pause. Then one does, the probe. Its answer closes the breaker, or doubles the pause.

use std::time::{Duration, Instant};

/// So many failures in a row open it.
const IN_A_ROW: u32 = 5;
/// So many answers within [`WINDOW`], half of which are failures, open it too.
const ENOUGH: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// The first pause, and the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Whether a question may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Yes.
    Ask,
    /// Yes, and its outcome decides whether others may be asked.
    Probe,
    /// No; the next one may be asked after this time.
    Not(Duration),
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A valid answer, whatever it says.
    Answered,
    /// No valid answer.
    Failed,
    /// It was not asked after all.
    Unasked,
}

/// A change that an operator should see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Opened(Duration),
    Closed,
}

/// The state of one hook's backend.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    in_a_row: u32,
    /// The answers since the window began, and how many of them are failures.
    window: (Instant, u32, u32),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant, pause: Duration, probing: bool },
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Closed, in_a_row: 0, window: (now, 0, 0) }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Asks whether a question may be asked now. [`report`](Self::report) must follow unless it may not.
    pub(super) fn pass(&mut self, now: Instant) -> Pass {
        match &mut self.state {
            State::Closed => Pass::Ask,
            State::Open { until, probing, .. } if *until <= now && !*probing => {
                *probing = true;
                Pass::Probe
            }
            State::Open { until, .. } => Pass::Not(until.saturating_duration_since(now)),
        }
    }

    /// Notes what became of a question that had this pass.
    pub(super) fn report(&mut self, now: Instant, pass: Pass, outcome: Outcome) -> Option<Change> {
        match (&mut self.state, pass) {
            (State::Closed, Pass::Ask) => self.count(now, outcome),
            (State::Open { probing, pause, until }, Pass::Probe) => {
                *probing = false;
                match outcome {
                    Outcome::Unasked => None,
                    Outcome::Failed => {
                        *pause = LONGEST.min(*pause * 2);
                        *until = now + *pause;
                        None
                    }
                    Outcome::Answered => {
                        *self = Self::new(now);
                        Some(Change::Closed)
                    }
                }
            }
            // Asked before it opened, or before it closed: only the probe counts.
            _ => None,
        }
    }

    fn count(&mut self, now: Instant, outcome: Outcome) -> Option<Change> {
        let failed = match outcome {
            Outcome::Unasked => return None,
            outcome => outcome == Outcome::Failed,
        };
        let (began, all, failures) = &mut self.window;
        if now.saturating_duration_since(*began) >= WINDOW {
            (*began, *all, *failures) = (now, 0, 0);
        }
        (*all, *failures) = (*all + 1, *failures + u32::from(failed));
        self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
        if !failed || (self.in_a_row < IN_A_ROW && (*all < ENOUGH || *failures * 2 < *all)) {
            return None;
        }
        self.state = State::Open { until: now + PAUSE, pause: PAUSE, probing: false };
        Some(Change::Opened(PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &mut Breaker, now: Instant) -> Option<Change> {
        let pass = breaker.pass(now);
        breaker.report(now, pass, Outcome::Failed)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_probe_closes_it() {
        let begin = Instant::now();
        let mut breaker = Breaker::new(begin);
        for _ in 1..IN_A_ROW {
            assert_eq!(fail(&mut breaker, begin), None);
        }
        assert_eq!(fail(&mut breaker, begin), Some(Change::Opened(PAUSE)));
        assert_eq!(breaker.pass(begin), Pass::Not(PAUSE));
        let later = begin + PAUSE;
        assert_eq!(breaker.pass(later), Pass::Probe);
        assert!(matches!(breaker.pass(later), Pass::Not(_)), "one probe at a time");
        assert_eq!(breaker.report(later, Pass::Ask, Outcome::Answered), None, "asked before it opened");
        assert_eq!(breaker.report(later, Pass::Probe, Outcome::Answered), Some(Change::Closed));
        assert_eq!((breaker.pass(later), breaker.is_open()), (Pass::Ask, false));
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_the_longest_and_an_unasked_one_changes_nothing() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        for _ in 0..IN_A_ROW {
            fail(&mut breaker, now);
        }
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(breaker.pass(now), Pass::Not(pause));
            now += pause;
            assert_eq!(breaker.pass(now), Pass::Probe);
            breaker.report(now, Pass::Probe, Outcome::Unasked);
            assert_eq!(breaker.pass(now), Pass::Probe);
            breaker.report(now, Pass::Probe, Outcome::Failed);
        }
    }

    #[test]
    fn a_backend_that_fails_half_the_time_is_left_alone_and_one_that_fails_rarely_is_not() {
        for (every, opens) in [(2, true), (5, false)] {
            let now = Instant::now();
            let mut breaker = Breaker::new(now);
            for number in 0..200 {
                let outcome = if number % every == 0 { Outcome::Failed } else { Outcome::Answered };
                breaker.report(now, Pass::Ask, outcome);
            }
            assert_eq!(breaker.is_open(), opens, "one of {every} fails");
        }
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        for number in 0..200 {
            now += WINDOW / 4;
            let outcome = if number % 2 == 0 { Outcome::Failed } else { Outcome::Answered };
            breaker.report(now, Pass::Ask, outcome);
        }
        assert!(!breaker.is_open(), "rare questions say little");
    }
}
