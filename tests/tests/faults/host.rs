//! What the machine denies a node: a log that can be written, descriptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Client, Conditions, Log, PATIENCE, http};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::stage::{Case, Stage};

/// Clients that connect at the same time.
const ABREAST: usize = 16;
/// How long the broker is away.
const AWAY: Duration = Duration::from_secs(3);
/// Few enough to be used up.
const FILES: u32 = 256;
/// The pause before a client that was refused tries again.
const AGAIN: Duration = Duration::from_millis(5);

pub(crate) async fn a_log_whose_reader_is_gone_costs_its_lines_alone(case: Case) -> Result<()> {
    let conditions = Conditions { log: Log::Gone, ..Conditions::default() };
    let stage = Stage::planned(case, |plan| plan.under(conditions)).await?;
    stage.cluster.broker().kill().await?;
    stage.cluster.broker().start().await?;
    stage.back().await?;
    for node in 1..=3 {
        ensure!(dropped(&stage, node).await? > 0, "a node counts no line that was dropped");
    }
    stage.whole().await
}

pub(crate) async fn a_log_without_a_reader_loses_only_its_lines(case: Case) -> Result<()> {
    let conditions = Conditions { log: Log::Stalled, ..Conditions::default() };
    let stage = Stage::planned(case, |plan| plan.under(conditions)).await?;
    let comers = Comers::start(&stage.node(1), drop);
    let full = async {
        while dropped(&stage, 1).await? == 0 {
            comers.more(200).await;
        }
        anyhow::Ok(())
    };
    timeout(3 * PATIENCE, full).await.context("the log never fills up")??;
    drop(comers);
    stage.cluster.broker().kill().await?;
    stage.cluster.broker().start().await?;
    stage.back().await?;
    stage.whole().await
}

pub(crate) async fn descriptors_used_up_while_the_broker_is_away_let_the_link_return(case: Case) -> Result<()> {
    let conditions = Conditions { files: Some(FILES), ..Conditions::default() };
    let stage = Stage::planned(case, |plan| plan.under(conditions)).await?;
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let mut stay = Vec::new();
    let comers = Comers::start(&stage.node(1), move |client| match client {
        Ok(client) => stay.push(client),
        Err(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
    });
    let full = async {
        while refused.load(Ordering::Relaxed) == 0 {
            comers.more(1).await;
        }
    };
    timeout(PATIENCE, full).await.context("the descriptors are never used up")?;
    stage.cluster.broker().kill().await?;
    stage.notice(true, |_| true).await?;
    sleep(AWAY).await;
    stage.cluster.broker().start().await?;
    stage.back().await?;
    ensure!(refused.load(Ordering::Relaxed) > ABREAST, "too few have tried");
    let output = stage.cluster.output("node-1")?;
    let said = output.lines().filter(|line| line.contains("clients are refused") || line.contains("cannot accept"));
    ensure!(said.clone().count() == 1, "the log says {:?}", said.collect::<Vec<_>>());
    ensure!(output.contains("leaves room for"), "nothing was said at the start:\n{output}");
    drop(comers);
    stage.whole().await
}

/// Lines of a node's log that were dropped.
async fn dropped(stage: &Stage, node: usize) -> Result<u64> {
    let metrics = http::get(stage.cluster.node_address(node), "/metrics").await?.body;
    let value = metrics.lines().find_map(|line| line.strip_prefix("fanfare_log_lines_dropped_total "));
    Ok(value.context("no such metric")?.parse()?)
}

/// Clients that come to a node one after the other.
struct Comers {
    came: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Comers {
    /// Connections that were opened go to `with`, and so do those that were refused.
    fn start(url: &str, with: impl FnMut(Result<Client>) + Send + 'static) -> Self {
        let (came, with) = (Arc::<AtomicUsize>::default(), Arc::new(std::sync::Mutex::new(with)));
        let mut tasks = JoinSet::new();
        for _ in 0..ABREAST {
            let (came, with, url) = (Arc::clone(&came), Arc::clone(&with), url.to_owned());
            tasks.spawn(async move {
                loop {
                    let client = Client::native(&url).await;
                    if client.is_err() {
                        sleep(AGAIN).await;
                    }
                    with.lock().unwrap_or_else(std::sync::PoisonError::into_inner)(client);
                    came.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { came, _tasks: tasks }
    }

    /// Waits until so many more have come.
    async fn more(&self, count: usize) {
        let enough = self.came.load(Ordering::Relaxed) + count;
        while self.came.load(Ordering::Relaxed) < enough {
            sleep(AGAIN).await;
        }
    }
}
