//! Token buckets that are stored as one point in time (GCRA): the time at which the bucket will be full again.
//!
//! Pure. A full bucket takes no work and no timer, so it costs an idle connection its four bytes and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds of a tick, the unit of a connection's buckets. At 10,000 commands a second, the highest rate of a
/// configuration, a command takes six.
const TICK: u64 = 15_625;

/// The seconds whose commands may come at once.
const BURST: u64 = 2;

/// The longest time that a bucket may take to fill, in nanoseconds: far less than the range of a connection's clock.
const LONGEST: u64 = 3600 * 1_000_000_000;

/// A point in time, in nanoseconds since the node's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn new(start: Instant, now: Instant) -> Self {
        Self(u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX >> 1))
    }
}

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Commands a second.
    pub(crate) per_second: u32,
    /// The time that a command takes, in nanoseconds.
    each: u64,
    /// The time that fills an empty bucket, in nanoseconds.
    window: u64,
}

impl Rate {
    /// So many commands a second. After a pause, twice as many may come at once. `None` if that is 0, which means no
    /// limit.
    pub(crate) fn new(per_second: u32) -> Option<Self> {
        Self::with_burst(per_second, 0)
    }

    /// As [`new`](Self::new), with at least `burst` commands at once.
    pub(crate) fn with_burst(per_second: u32, burst: usize) -> Option<Self> {
        let each = 1_000_000_000_u64.checked_div(per_second.into())?.max(1);
        let burst = u64::try_from(burst).unwrap_or(u64::MAX).max(u64::from(per_second) * BURST);
        Some(Self { per_second, each, window: each.saturating_mul(burst).min(LONGEST) })
    }

    /// A bucket that holds as many as `times` of this one, and fills no faster.
    pub(crate) fn deeper(self, times: u64) -> Self {
        Self { window: self.window.saturating_mul(times).min(LONGEST), ..self }
    }
}

/// Takes one command from a bucket that is full after the time `ahead`. Returns that time after the command. Fails with
/// the time to wait for a command. All times are in one unit.
fn take(ahead: u64, each: u64, window: u64) -> Result<u64, u64> {
    let taken = ahead + each;
    if taken <= window.max(each) { Ok(taken) } else { Err(taken - window.max(each)) }
}

/// The bucket of one connection and one kind of command.
///
/// Its clock starts again every 18 hours. A bucket that was last used exactly so long ago may look used, until it is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace(u32);

impl Pace {
    /// Takes one command. Fails with the time after which a retry may succeed.
    pub(crate) fn take(&mut self, rate: Rate, Moment(now): Moment) -> Result<(), Duration> {
        #[expect(clippy::cast_possible_truncation, reason = "this clock starts again")]
        let now = (now / TICK) as u32;
        // Rounded down, in favour of the client.
        let (each, window) = ((rate.each / TICK).max(1), rate.window / TICK);
        let ahead = u64::from(self.0.wrapping_sub(now));
        // What is further ahead than a full window is in the past.
        let ahead = if ahead > window.max(each) { 0 } else { ahead };
        let taken = take(ahead, each, window).map_err(|wait| Duration::from_nanos(wait * TICK))?;
        self.0 = now.wrapping_add(u32::try_from(taken).expect("a window is shorter than the clock's range"));
        Ok(())
    }
}

/// A bucket that connections on all workers share.
#[derive(Debug, Default)]
pub(crate) struct SharedPace(AtomicU64);

impl SharedPace {
    /// As [`Pace::take`].
    pub(crate) fn take(&self, rate: Rate, Moment(now): Moment) -> Result<(), Duration> {
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let ahead = full_at.saturating_sub(now);
            let taken = take(ahead, rate.each, rate.window).map_err(Duration::from_nanos)?;
            match self.0.compare_exchange_weak(full_at, now + taken, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(found) => full_at = found,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The range of a connection's clock, in nanoseconds.
    const AGAIN: u64 = TICK << 32;
    const SECOND: u64 = 1_000_000_000;
    /// The highest rate of a configuration.
    const FASTEST: u32 = 10_000;

    fn rate(per_second: u32) -> Rate {
        Rate::new(per_second).expect("not 0")
    }

    #[test]
    fn two_seconds_of_commands_may_come_at_once_and_then_the_rate() {
        let (mut pace, shared) = (Pace::default(), SharedPace::default());
        let later = AGAIN + SECOND * 90;
        for (now, allowed) in [(0, 200), (SECOND / 2, 50), (SECOND * 60, 200), (later, 200)] {
            let now = Moment(now);
            assert_eq!((0..1000).filter(|_| pace.take(rate(100), now).is_ok()).count(), allowed, "{now:?}");
            assert_eq!((0..1000).filter(|_| shared.take(rate(100), now).is_ok()).count(), allowed, "{now:?}");
        }
        assert_eq!(pace.take(rate(100), Moment(later)), Err(Duration::from_millis(10)));
        assert_eq!(shared.take(rate(100), Moment(later)), Err(Duration::from_millis(10)));
    }

    #[test]
    fn a_rate_of_0_is_no_limit_and_a_burst_may_be_larger_than_two_seconds() {
        assert_eq!(Rate::new(0), None);
        let (mut pace, wide) = (Pace::default(), Rate::with_burst(10, 500).expect("not 0"));
        assert_eq!((0..1000).filter(|_| pace.take(wide, Moment(0)).is_ok()).count(), 500);
        let (mut pace, deep) = (Pace::default(), rate(10).deeper(10));
        assert_eq!((0..1000).filter(|_| pace.take(deep, Moment(0)).is_ok()).count(), 200);
    }

    #[test]
    fn the_fastest_rates_are_exact_enough() {
        let fastest = rate(FASTEST);
        let (mut pace, shared) = (Pace::default(), SharedPace::default());
        let (mut own, mut together) = (0, 0);
        for now in (SECOND * 3..SECOND * 8).step_by(10_000) {
            own += u32::from(pace.take(fastest, Moment(now)).is_ok());
            together += u32::from(shared.take(rate(1_000_000), Moment(now)).is_ok());
        }
        assert!((FASTEST * 7..FASTEST * 8).contains(&own), "{own}");
        assert_eq!(together, 500_000);
    }

    #[test]
    fn a_shared_bucket_gives_no_command_twice() {
        let shared = SharedPace::default();
        let take = || (0..1000).filter(|_| shared.take(rate(500), Moment(7)).is_ok()).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it counts")).sum()
        });
        assert_eq!(taken, 1000);
    }

    #[test]
    fn a_moment_is_counted_from_the_start_and_never_before_it() {
        let start = Instant::now();
        assert_eq!(Moment::new(start, start + Duration::from_millis(3)), Moment(3_000_000));
        assert_eq!(Moment::new(start + Duration::from_secs(1), start), Moment(0));
    }

    /// Counts tokens, each worth `each` of a unit of time.
    struct Tokens {
        each: u64,
        full: u64,
        left: u64,
    }

    impl Tokens {
        fn new(each: u64, full: u64) -> Self {
            Self { each, full, left: full }
        }

        fn take(&mut self) -> Result<(), u64> {
            self.left = self.left.checked_sub(self.each).ok_or_else(|| self.each - self.left)?;
            Ok(())
        }

        fn wait(&mut self, time: u64) {
            self.left = self.full.min(self.left + time);
        }
    }

    proptest! {
        #[test]
        fn buckets_decide_as_ones_that_count_tokens(
            per_second in 1..FASTEST,
            start in 0..2 * AGAIN / TICK,
            gaps in prop::collection::vec(0..200_000_u64, 1..300),
        ) {
            let rate = rate(per_second);
            let mut own = Tokens::new(rate.each / TICK, rate.window / TICK);
            let mut together = Tokens::new(rate.each, rate.window);
            let (mut pace, shared) = (Pace::default(), SharedPace::default());
            let mut now = start * TICK;
            if now % AGAIN >= AGAIN - rate.window - TICK {
                // The one time of the clock at which an unused bucket may look used.
                now += rate.window + TICK;
            }
            for gap in gaps {
                for _ in 0..3 {
                    let wait = own.take().map_err(|ticks| Duration::from_nanos(ticks * TICK));
                    prop_assert_eq!(pace.take(rate, Moment(now)), wait);
                    prop_assert_eq!(shared.take(rate, Moment(now)), together.take().map_err(Duration::from_nanos));
                }
                now += gap * TICK;
                own.wait(gap);
                together.wait(gap * TICK);
            }
        }
    }
}
