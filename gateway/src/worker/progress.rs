//! Measures how fast a client reads while its socket is full.
//!
//! Pure. A client that reads is alive, however slow it is, so its deadlines count from its last progress. The kernels
//! on both sides hold bytes that the client has not read yet, and no system call tells how many. The time that the
//! client needs for them is estimated from its pace.

use std::time::{Duration, Instant};

use super::blocked::Place;

/// The approximate maximum of bytes that the two kernels hold: unsent ones on this side, unread ones on the client's.
const HELD: usize = 128 << 10;

/// The fewest bytes that the kernel sends before a full socket accepts more: half of `TCP_NOTSENT_LOWAT`.
const STEP: usize = 32 << 10;

/// The longest time that is allowed for them. A client that needs longer for [`HELD`] bytes counts as stuck.
const MOST: Duration = Duration::from_secs(30);

/// The progress of a client whose socket is full.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) place: Place,
    /// The start of the current measurement.
    begin: Instant,
    /// Bytes that the socket accepted since `begin`.
    taken: usize,
    /// The estimated time that the client needs for the bytes in the kernels.
    lag: Duration,
}

impl Progress {
    /// Begins when the socket becomes full.
    pub(crate) fn new(place: Place, now: Instant) -> Self {
        Self { place, begin: now, taken: 0, lag: Duration::ZERO }
    }

    /// Notes that the socket accepted `bytes`.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) {
        self.taken += bytes.max(STEP);
        let elapsed = now.saturating_duration_since(self.begin);
        self.lag = elapsed.mul_f64(HELD as f64 / self.taken as f64).min(MOST);
        if self.taken >= HELD {
            (self.begin, self.taken) = (now, 0);
        }
    }

    /// The estimated time that the client needs for the bytes it was sent and has not read.
    pub(crate) fn lag(&self) -> Duration {
        self.lag
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocked::Blocked;
    use super::*;

    /// The lag of a client that reads `pace` bytes a second, after the kernel had room again `steps` times.
    fn lag(pace: usize, steps: u32) -> Duration {
        let start = Instant::now();
        let mut progress = Progress::new(Blocked::default().enter(1), start);
        for step in 1..=steps {
            progress.took(STEP, start + Duration::from_secs_f64(STEP as f64 / pace as f64) * step);
        }
        progress.lag()
    }

    #[test]
    fn a_client_gets_the_time_that_it_needs_for_the_bytes_in_the_kernels() {
        for steps in 1..20 {
            for pace in [10_000, 40_000, 700_000] {
                let needed = HELD as f64 / pace as f64;
                let given = lag(pace, steps).as_secs_f64();
                assert!((given / needed - 1.0).abs() < 0.01, "{given} instead of {needed} s after {steps} steps");
            }
        }
    }

    #[test]
    fn the_time_is_bounded_and_zero_without_progress() {
        assert_eq!(lag(100, 3), MOST);
        assert_eq!(lag(40_000, 0), Duration::ZERO);
    }

    #[test]
    fn a_client_that_becomes_slower_gets_more_time() {
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
