//! Publishers on all nodes that go on whatever happens, and the record of what became of their messages.
//!
//! A seed decides what is published where and when. A publisher whose node is gone goes to the next one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::history::{Outcome, Run};
use tests::{Client, PATIENCE};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Publishers, spread over the nodes.
pub(crate) const PUBLISHERS: usize = 6;
/// The longest pause of a publisher between two messages, in milliseconds.
const PAUSE: u64 = 30;
/// One message in so many is a large one.
const LARGE: usize = 50;
/// The pause before another try to connect.
const AGAIN: Duration = Duration::from_millis(20);

/// How publishes ended so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcomes {
    pub(crate) acked: usize,
    pub(crate) failed: usize,
    pub(crate) unknown: usize,
}

/// A running load.
pub(crate) struct Load {
    /// One for each channel.
    pub(crate) runs: Arc<[Run]>,
    nodes: Arc<[String]>,
    outcomes: watch::Sender<Outcomes>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// Publishes at nodes, by their URLs.
    pub(crate) fn start(nodes: Vec<String>, channels: &[&str], seed: u64) -> Self {
        let runs = channels.iter().map(|channel| Run::on(channel)).collect();
        let (stop, outcomes) = (watch::Sender::default(), watch::Sender::default());
        let mut load = Self { runs, nodes: nodes.into(), outcomes, stop, tasks: JoinSet::new() };
        for number in 0..PUBLISHERS {
            let publisher = Publisher {
                number,
                random: fastrand::Rng::with_seed(seed.wrapping_add(number as u64)),
                runs: Arc::clone(&load.runs),
                nodes: Arc::clone(&load.nodes),
                outcomes: load.outcomes.clone(),
                stop: load.stop.subscribe(),
            };
            load.tasks.spawn(publisher.run());
        }
        load
    }

    /// Waits until so many more publishes ended as wanted.
    pub(crate) async fn more(&self, what: &str, count: usize, which: fn(Outcomes) -> usize) -> Result<()> {
        let mut outcomes = self.outcomes.subscribe();
        let before = which(*outcomes.borrow());
        let enough = outcomes.wait_for(|now| which(*now) >= before + count);
        timeout(PATIENCE, enough).await.with_context(|| format!("too few publishes are {what}"))??;
        Ok(())
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        *self.outcomes.borrow()
    }

    /// Stops, and gives the last message of each channel, which comes after all that was acknowledged.
    pub(crate) async fn stop(&mut self) -> Result<Vec<String>> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let mut client = connect(&self.nodes, 0).await?;
        let mut last = Vec::new();
        for run in &*self.runs {
            let mut tries = 0;
            last.push(loop {
                let word = format!("the last word on {}, try {tries}", run.channel());
                tries += 1;
                if run.publish(&client, &word).await? == Outcome::Acknowledged {
                    break word;
                }
                anyhow::ensure!(tries < 10, "the last word on {} is never acknowledged", run.channel());
                if !client.is_open() {
                    client = connect(&self.nodes, tries).await?;
                }
            });
        }
        Ok(last)
    }
}

struct Publisher {
    number: usize,
    random: fastrand::Rng,
    runs: Arc<[Run]>,
    nodes: Arc<[String]>,
    outcomes: watch::Sender<Outcomes>,
    stop: watch::Receiver<bool>,
}

impl Publisher {
    async fn run(mut self) -> Result<()> {
        let mut node = self.number;
        let mut client = connect(&self.nodes, node).await?;
        for count in 0.. {
            let pause = Duration::from_millis(self.random.u64(0..=PAUSE));
            // The end is an error, if the load was dropped.
            let stopped = timeout(pause, self.stop.wait_for(|stop| *stop)).await.is_ok();
            if stopped {
                break;
            }
            if !client.is_open() {
                node += 1;
                client = connect(&self.nodes, node).await?;
            }
            let size = if self.random.usize(..LARGE) == 0 { 4096 } else { self.random.usize(..128) };
            let payload = format!("{}-{count} {}", self.number, "x".repeat(size));
            let outcome = self.runs[self.random.usize(..self.runs.len())].publish(&client, &payload).await?;
            self.outcomes.send_modify(|outcomes| match outcome {
                Outcome::Acknowledged => outcomes.acked += 1,
                Outcome::Failed => outcomes.failed += 1,
                Outcome::Unknown => outcomes.unknown += 1,
            });
        }
        Ok(())
    }
}

/// Connects to a node, or to the first after it that is there.
async fn connect(nodes: &[String], first: usize) -> Result<Client> {
    let tries = async {
        for url in nodes.iter().cycle().skip(first % nodes.len()) {
            match Client::native(url).await {
                Ok(client) => return client,
                Err(_) => sleep(AGAIN).await,
            }
        }
        std::future::pending().await
    };
    timeout(PATIENCE, tries).await.context("no node takes a publisher")
}
