//! How fast a client takes what its socket could not take at once.
//!
//! Pure. A client that takes bytes is alive, however slow it is: the times it has to answer count from its last progress.
//! The kernels on both sides hold bytes that the client has yet to read, and nobody says how many; how long it needs for
//! them is guessed from its pace.

use std::time::{Duration, Instant};

use super::blocked::Place;

/// What the kernels hold of the last that was written, at most, about: unsent bytes here, received ones there.
const HELD: usize = 128 << 10;

/// Bytes that the kernel gets rid of before it takes more, at least: half of `TCP_NOTSENT_LOWAT`.
const STEP: usize = 32 << 10;

/// The most that is allowed for them: a client that is slower than [`HELD`] in this time is of no use.
const MOST: Duration = Duration::from_secs(30);

/// A client whose socket is full.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) place: Place,
    /// The pace is measured from here on.
    begin: Instant,
    /// Bytes taken since.
    taken: usize,
    /// How long the client needs for what the kernels hold.
    lag: Duration,
}

impl Progress {
    /// The socket takes nothing more.
    pub(crate) fn new(place: Place, now: Instant) -> Self {
        Self { place, begin: now, taken: 0, lag: Duration::ZERO }
    }

    /// The socket took so many bytes.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) {
        self.taken += bytes.max(STEP);
        let elapsed = now.saturating_duration_since(self.begin);
        self.lag = elapsed.mul_f64(HELD as f64 / self.taken as f64).min(MOST);
        if self.taken >= HELD {
            (self.begin, self.taken) = (now, 0);
        }
    }

    /// How long the client needs, about, for what it was sent and has not read.
    pub(crate) fn lag(&self) -> Duration {
        self.lag
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocked::Blocked;
    use super::*;

    /// A client that reads so many bytes a second, and is looked at whenever the kernel has room again.
    fn lag(pace: usize, steps: u32) -> Duration {
        let start = Instant::now();
        let mut progress = Progress::new(Blocked::default().enter(1), start);
        for step in 1..=steps {
            progress.took(STEP, start + Duration::from_secs_f64(STEP as f64 / pace as f64) * step);
        }
        progress.lag()
    }

    #[test]
    fn a_client_is_given_the_time_that_it_needs_for_what_the_kernels_hold() {
        for steps in 1..20 {
            for pace in [10_000, 40_000, 700_000] {
                let needed = HELD as f64 / pace as f64;
                let given = lag(pace, steps).as_secs_f64();
                assert!((given / needed - 1.0).abs() < 0.01, "{given} instead of {needed} s after {steps} steps");
            }
        }
    }

    #[test]
    fn it_is_not_given_more_than_a_bound_nor_anything_without_progress() {
        assert_eq!(lag(100, 3), MOST);
        assert_eq!(lag(40_000, 0), Duration::ZERO);
    }

    #[test]
    fn a_client_that_becomes_slower_is_given_more() {
        let start = Instant::now();
        let mut progress = Progress::new(Blocked::default().enter(1), start);
        let mut now = start;
        for pace in [1_000_000, 20_000] {
            for _ in 0..8 {
                now += Duration::from_secs_f64(STEP as f64 / f64::from(pace));
                progress.took(STEP, now);
            }
        }
        assert!(progress.lag() > Duration::from_secs(6), "{:?}", progress.lag());
    }
}
