//! Messages that flow on a channel while its subscribers' rights come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::history::{Outcome, Run};
use tests::{Client, PATIENCE};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

/// The least time between two messages.
const PACE: Duration = Duration::from_millis(5);

/// A publisher at work.
pub(crate) struct Flow {
    published: watch::Receiver<usize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<()>>,
}

impl Flow {
    /// Publishes one message after the other; each has its number as its data.
    pub(crate) fn start(run: Arc<Run>, speaker: Client) -> Self {
        let (count, published) = watch::channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut pace = interval(PACE);
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                let number = *count.borrow() + 1;
                let outcome = run.publish(&speaker, &number.to_string()).await?;
                ensure!(outcome == Outcome::Acknowledged, "{number} ended with {outcome:?}");
                count.send_replace(number);
            }
            Ok(())
        });
        Self { published, stop, task }
    }

    /// Waits until so many more messages are acknowledged.
    pub(crate) async fn more(&self, count: usize) -> Result<()> {
        let mut published = self.published.clone();
        let until = *published.borrow() + count;
        let enough = timeout(PATIENCE, published.wait_for(|published| *published >= until)).await;
        enough.context("no messages flow")?.context("the flow has ended").map(drop)
    }

    /// Stops, and gives the data of the last message.
    pub(crate) async fn stop(self) -> Result<String> {
        self.stop.store(true, Ordering::Relaxed);
        timeout(PATIENCE, self.task).await.context("the flow does not end")???;
        Ok(self.published.borrow().to_string())
    }
}
