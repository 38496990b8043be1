//! Timers for all connections of a worker: a wheel of slots that turns once per tick.
//!
//! Pure. A timer costs sixteen bytes. It fires within one tick after it is due, never before. Timers are not cancelled:
//! their owner checks whether they still apply.

use std::time::{Duration, Instant};

/// The number of slots. A timer that is due after more than one turn stays in its slot until its turn comes.
const SLOTS: usize = 64;

/// A hashed timer wheel.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Vec<Vec<(u32, T)>>,
    tick: Duration,
    start: Instant,
    /// The number of ticks handled so far.
    now: u32,
}

impl<T> Wheel<T> {
    pub(crate) fn new(tick: Duration, start: Instant) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { slots, tick: tick.max(Duration::from_millis(1)), start, now: 0 }
    }

    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    /// Schedules `what` for the first tick that is not before `at`.
    pub(crate) fn schedule(&mut self, at: Instant, what: T) {
        let since = at.saturating_duration_since(self.start).as_nanos();
        let due = u32::try_from(since.div_ceil(self.tick.as_nanos())).unwrap_or(u32::MAX).max(self.now + 1);
        self.slots[due as usize % SLOTS].push((due, what));
    }

    /// Advances the wheel to `now` and adds the timers that fire to `due`.
    pub(crate) fn turn(&mut self, now: Instant, due: &mut Vec<T>) {
        let since = now.saturating_duration_since(self.start).as_nanos();
        let target = u32::try_from(since / self.tick.as_nanos()).unwrap_or(u32::MAX);
        while self.now < target {
            self.now += 1;
            let slot = &mut self.slots[self.now as usize % SLOTS];
            for index in (0..slot.len()).rev() {
                if slot[index].0 <= self.now {
                    due.push(slot.swap_remove(index).1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_timer_fires_once_within_a_tick_of_its_time(
            delays in proptest::collection::vec(0u64..20_000, 1..100),
            steps in proptest::collection::vec(1u64..3_000, 1..40),
        ) {
            let (start, tick) = (Instant::now(), Duration::from_millis(100));
            let mut wheel = Wheel::new(tick, start);
            for delay in &delays {
                wheel.schedule(start + Duration::from_millis(*delay), *delay);
            }
            let (mut now, mut fired) = (0, Vec::new());
            for step in steps {
                now += step;
                let mut due = Vec::new();
                wheel.turn(start + Duration::from_millis(now), &mut due);
                prop_assert!(due.iter().all(|delay| *delay <= now && delay + 200 > now - step));
                fired.extend(due);
            }
            let mut expected: Vec<_> = delays.into_iter().filter(|delay| (*delay).max(1).div_ceil(100) * 100 <= now).collect();
            expected.sort_unstable();
            fired.sort_unstable();
            prop_assert_eq!(fired, expected);
        }
    }
}
