//! What the machine adds to every time that a case measures.
//!
//! A thread that sleeps for a short time, again and again: how much longer it slept says how long a thread that was ready to
//! run had to wait.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time that the thread sleeps.
const TICK: Duration = Duration::from_millis(20);
/// How often a task may have to wait for its turn on its way to an answer.
const TURNS: u32 = 4;
/// How late an answer may be on an idle machine.
const SLACK: Duration = Duration::from_millis(500);

static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Starts to watch.
pub(crate) fn watch() {
    static WATCH: OnceLock<()> = OnceLock::new();
    WATCH.get_or_init(|| {
        std::thread::spawn(|| {
            loop {
                let begin = Instant::now();
                std::thread::sleep(TICK);
                let late = begin.elapsed().saturating_sub(TICK).as_millis();
                LONGEST.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
    });
}

/// How late an answer may be on this machine.
pub(crate) fn slack() -> Duration {
    SLACK + TURNS * Duration::from_millis(LONGEST.load(Ordering::Relaxed))
}
