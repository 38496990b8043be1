//! The parts that a node cannot serve without: none of them ends, or stops working, unseen.
//!
//! A part holds a [`Vital`] for as long as it runs. Dropping it, by a return or a panic, ends the node; a part that does
//! not beat for its patience makes the node not ready. Owned by [`Health`](crate::node::health::Health); looked at on the main thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two looks at all parts, and between two beats of a part that has nothing else to do.
pub(crate) const ROUND: Duration = Duration::from_millis(250);

/// How long a worker, the relay or the main thread may take to show that it works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The main thread may look this late: it is not late if the whole process stood still.
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
    /// The last look, once there was one.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Part {
    name: String,
    beats: Arc<AtomicU64>,
    /// The beats at the last look.
    seen: u64,
    /// Looks in a row that found no beat, and how many of them are too many, if any number is.
    missed: u32,
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

/// A part's own proof that it works.
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
        // It cannot fall silent any more.
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
    /// A part that must beat within its patience, if it has one.
    pub(crate) fn part(self: &Arc<Self>, name: impl Into<String>, patience: Option<Duration>) -> Vital {
        let (name, beats) = (name.into(), Arc::<AtomicU64>::default());
        let most = patience.map(|patience| u32::try_from(patience.as_millis() / ROUND.as_millis()).unwrap_or(u32::MAX));
        self.lock().parts.push(Part { name: name.clone(), beats: Arc::clone(&beats), seen: 0, missed: 0, most });
        Vital { name, beats, of: Arc::clone(self) }
    }

    /// Runs a part that shows by its end alone that something is wrong.
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

    /// What keeps the node from serving, in words.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(ended) = &*self.ended.borrow() {
            return Some(ended.clone());
        }
        let state = self.lock();
        let late = state.looked.map(|looked| looked.elapsed()).filter(|late| *late >= MAIN_PATIENCE);
        if let Some(late) = late {
            return Some(format!("the main thread has not answered for {} s", late.as_secs()));
        }
        state.parts.iter().find(|part| part.is_silent()).map(Part::trouble)
    }

    /// Waits until a part has ended; says which, and how.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            _ => std::future::pending().await,
        }
    }

    /// Looks at all parts for ever.
    pub(crate) async fn watch(&self) {
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    /// Looks are counted, not timed: a process that was itself stopped has no right to call its parts silent.
    fn look(&self) {
        let mut state = self.lock();
        state.looked = Some(Instant::now());
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
    async fn a_part_that_returns_or_panics_or_whose_thread_does_is_named() {
        let vitals = Arc::<Vitals>::default();
        tokio::spawn(vitals.keep("the relay", async {}));
        assert_eq!(vitals.ended().await, "the relay has ended");
        assert_eq!(vitals.trouble().as_deref(), Some("the relay has ended"));

        let vitals = Arc::<Vitals>::default();
        tokio::spawn(vitals.keep("the listener", async { panic!("a fault") }));
        assert_eq!(vitals.ended().await, "the listener has panicked");
        drop(vitals.part("another", None));
        assert_eq!(vitals.ended().await, "the listener has panicked", "what came first is the reason");

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
            vitals.look();
        }
        assert_eq!(silent(), None);
        vitals.look();
        assert_eq!(silent().as_deref(), Some("worker-0 has not answered for 1s"));
        worker.beat();
        assert!(silent().is_some(), "nobody has looked yet");
        vitals.look();
        assert_eq!(silent(), None);
        drop((worker, idle));
    }
}
