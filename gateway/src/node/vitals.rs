//! Watches the essential parts of a node, so that none of them ends or stops working unnoticed.
//!
//! A part holds a [`Vital`] while it runs. Dropping it, by a return or a panic, ends the node. A part that does not
//! beat in time makes the node not ready. Owned by [`Health`](crate::node::health::Health); checked on the main thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// The interval of the checks of all parts, and of the beats of an idle part.
pub(crate) const ROUND: Duration = Duration::from_millis(250);

/// How long a worker or the relay may go without a beat.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How late the main thread's checks may be. Longer than [`PATIENCE`], to tolerate a short pause of the whole process.
const MAIN_PATIENCE: Duration = Duration::from_secs(2);

/// All parts of a node.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    state: Mutex<State>,
    ended: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct State {
    parts: Vec<Part>,
    /// The time of the last check, after the first one.
    checked: Option<Instant>,
}

#[derive(Debug)]
struct Part {
    name: String,
    beats: Arc<AtomicU64>,
    /// The number of beats at the last check.
    seen: u64,
    /// The number of checks in a row that found no new beat.
    missed: u32,
    /// The number of missed beats from which the part counts as silent, if it must beat.
    most: Option<u32>,
}

impl Part {
    fn is_silent(&self) -> bool {
        self.most.is_some_and(|most| self.missed >= most)
    }

    fn trouble(&self) -> String {
        format!("{} has not answered for {:?}", self.name, ROUND * self.missed)
    }
}

/// Held by a part: beats while the part works, and reports its end when dropped.
#[derive(Debug)]
pub(crate) struct Vital {
    name: String,
    beats: Arc<AtomicU64>,
    of: Arc<Vitals>,
}

impl Vital {
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        // A part that has ended is not checked any more.
        self.of.lock().parts.retain(|part| !Arc::ptr_eq(&part.beats, &self.beats));
        let how = if thread::panicking() { "has panicked" } else { "has ended" };
        self.of.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| format!("{} {how}", self.name));
            first
        });
    }
}

impl Vitals {
    /// Adds a part, which must beat at least once in each `patience`, if that is given.
    pub(crate) fn part(self: &Arc<Self>, name: impl Into<String>, patience: Option<Duration>) -> Vital {
        let (name, beats) = (name.into(), Arc::<AtomicU64>::default());
        let most = patience.map(|patience| u32::try_from(patience.as_millis() / ROUND.as_millis()).unwrap_or(u32::MAX));
        self.lock().parts.push(Part { name: name.clone(), beats: Arc::clone(&beats), seen: 0, missed: 0, most });
        Vital { name, beats, of: Arc::clone(self) }
    }

    /// Runs a part that does not beat: only its end is a fault.
    pub(crate) fn keep<W: Future<Output = ()>>(
        self: &Arc<Self>,
        name: &str,
        work: W,
    ) -> impl Future<Output = ()> + use<W> {
        let part = self.part(name, None);
        async move {
            work.await;
            drop(part);
        }
    }

    /// Describes the part that keeps the node from serving, if there is one.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(ended) = &*self.ended.borrow() {
            return Some(ended.clone());
        }
        let state = self.lock();
        let late = state.checked.map(|checked| checked.elapsed()).filter(|late| *late >= MAIN_PATIENCE);
        if let Some(late) = late {
            return Some(format!("the main thread has not answered for {} s", late.as_secs()));
        }
        state.parts.iter().find(|part| part.is_silent()).map(Part::trouble)
    }

    /// Waits until a part has ended. Returns its name and how it ended.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            _ => std::future::pending().await,
        }
    }

    /// Checks all parts at each [`ROUND`], for ever.
    pub(crate) async fn watch(&self) {
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.check();
        }
    }

    /// Checks all parts once. Counts checks and not time, so that parts do not count as silent after the whole process
    /// was stopped.
    fn check(&self) {
        let mut state = self.lock();
        state.checked = Some(Instant::now());
        for part in &mut state.parts {
            let (beats, was_silent) = (part.beats.load(Ordering::Relaxed), part.is_silent());
            part.missed = if beats == part.seen { part.missed.saturating_add(1) } else { 0 };
            part.seen = beats;
            match (was_silent, part.is_silent()) {
                (false, true) => tracing::warn!("not ready: {}", part.trouble()),
                (true, false) => tracing::info!("{} answers again", part.name),
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_returns_or_panics_or_whose_thread_panics_is_named() {
        let vitals = Arc::<Vitals>::default();
        tokio::spawn(vitals.keep("the relay", async {}));
        assert_eq!(vitals.ended().await, "the relay has ended");
        assert_eq!(vitals.trouble().as_deref(), Some("the relay has ended"));

        let vitals = Arc::<Vitals>::default();
        tokio::spawn(vitals.keep("the listener", async { panic!("a fault") }));
        assert_eq!(vitals.ended().await, "the listener has panicked");
        drop(vitals.part("another", None));
        assert_eq!(vitals.ended().await, "the listener has panicked", "the first part that ended is reported");

        let vitals = Arc::<Vitals>::default();
        let part = vitals.part("worker-1", Some(PATIENCE));
        let thread = thread::spawn(move || {
            part.beat();
            panic!("a fault");
        });
        assert_eq!(vitals.ended().await, "worker-1 has panicked");
        assert!(thread.join().is_err());
    }

    #[test]
    fn a_part_that_does_not_beat_is_named_until_it_does() {
        let vitals = Arc::<Vitals>::default();
        let (worker, idle) = (vitals.part("worker-0", Some(PATIENCE)), vitals.part("the agent", None));
        let silent = || vitals.trouble();
        for _ in 0..3 {
            vitals.check();
        }
        assert_eq!(silent(), None);
        vitals.check();
        assert_eq!(silent().as_deref(), Some("worker-0 has not answered for 1s"));
        worker.beat();
        assert!(silent().is_some(), "the parts have not been checked again");
        vitals.check();
        assert_eq!(silent(), None);
        drop((worker, idle));
    }
}
