//! What the machine adds to every time that a test measures.
//!
//! A clock that ticks beside the test: the latest of its ticks says how long a program that was ready to run had to wait.
//! A bound on a server's time is extended by it, so that it holds on a busy machine and still says something.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::sleep;

/// The time between two ticks.
const TICK: Duration = Duration::from_millis(20);

/// The longest that this process had to wait for its turn.
#[derive(Debug)]
pub struct Lateness {
    longest: Arc<Mutex<Duration>>,
    clock: AbortHandle,
}

impl Lateness {
    /// Watches from now on, within a tokio runtime.
    #[must_use]
    pub fn watch() -> Self {
        let longest = Arc::new(Mutex::default());
        let noted = Arc::clone(&longest);
        let clock = tokio::spawn(async move {
            loop {
                let begin = Instant::now();
                sleep(TICK).await;
                let mut longest: MutexGuard<'_, Duration> = noted.lock().unwrap_or_else(PoisonError::into_inner);
                *longest = longest.max(begin.elapsed().saturating_sub(TICK));
            }
        });
        Self { longest, clock: clock.abort_handle() }
    }

    /// The longest so far.
    #[must_use]
    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.clock.abort();
    }
}
