//! A shed on this node: from the order in the log to what the workers do, and what the node says of it.
//!
//! A node gives up at most what it had above its share when the shed began, so that a balancer that sends clients back makes no
//! endless loop. It stops before that when it is down to its share, which it computes again from the others' reports: these are about
//! a second old.

use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::control::{Progress, Shed, Stage};
use super::shed::{Plan, share};
use super::{Cluster, Live};

/// The longest time to wait for the report of each node. Releases that know no shed report only when it is time.
const FIGURES: Duration = Duration::from_secs(2);

/// How often a node reports during a shed, and the time that each node adds to that in a large cluster.
const REPORT: Duration = Duration::from_secs(1);
const FOR_EACH: Duration = Duration::from_millis(10);

/// How often it looks at how many more clients it may give up.
const LOOK: Duration = Duration::from_millis(100);

/// How much longer than planned a shed may take before the rest is left where it is.
const LATE: Duration = Duration::from_secs(5);

/// The clients of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Clients {
    pub(crate) open: u64,
    /// Of these, those whose protocol can resume.
    pub(crate) resumable: u64,
    /// How many have been sent to other nodes and are gone, since the start.
    pub(crate) moved: u64,
}

/// What the workers of a node carry out.
#[derive(Debug)]
pub(crate) struct Round {
    /// How many clients they close at most, of how many that they may choose from, and in which time.
    gives: u64,
    of: u64,
    pub(crate) span: Duration,
    /// Whether they close clients too whose protocol cannot resume.
    pub(crate) everyone: bool,
    /// How many they have closed, and how many they may have closed by now.
    moved: AtomicU64,
    limit: AtomicU64,
}

impl Round {
    /// How many of its clients a worker closes that has so many to choose from.
    pub(crate) fn share(&self, clients: usize) -> usize {
        let share = (clients as u128 * u128::from(self.gives)).div_ceil(u128::from(self.of.max(1)));
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// Whether one more client may be closed. Counts it.
    pub(crate) fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        self.moved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |moved| (moved < limit).then_some(moved + 1))
            .is_ok()
    }

    fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// What this node knows of sheds.
#[derive(Debug, Default)]
pub(super) struct Shedding {
    /// The last order, and when it was read, in milliseconds since 1970.
    orders: watch::Sender<Option<(Shed, u64)>>,
    rounds: watch::Sender<Option<Arc<Round>>>,
    progress: Mutex<Option<Progress>>,
}

impl Shedding {
    /// Notes an order, which ends the one before.
    pub(super) fn begin(&self, shed: Shed, now: u64) {
        self.orders.send_replace(Some((shed, now)));
    }

    /// How far the last shed is.
    pub(super) fn progress(&self) -> Option<Progress> {
        let moved = self.rounds.borrow().as_ref().map(|round| round.moved());
        let mut progress = self.lock();
        if let (Some(progress), Some(moved)) = (&mut *progress, moved) {
            progress.moved = moved;
        }
        progress.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is under way.
    fn end(&self, stage: Stage) {
        if let Some(round) = &*self.rounds.borrow() {
            round.limit.store(0, Ordering::Relaxed);
        }
        // Counts what was moved for the last time.
        drop(self.progress());
        self.rounds.send_replace(None);
        let mut progress = self.lock();
        let Some(progress) = &mut *progress else { return };
        if matches!(progress.state, Stage::Waiting | Stage::Moving) {
            progress.state = stage;
            let Progress { gives, moved, .. } = *progress;
            if gives > 0 {
                tracing::info!(moved, gives, ?stage, "this node's part of the shed has ended");
            }
        }
    }
}

impl Cluster {
    /// What the workers carry out; `None` when there is nothing.
    pub(crate) fn rounds(&self) -> watch::Receiver<Option<Arc<Round>>> {
        self.shedding.rounds.subscribe()
    }

    /// How far this node is with the last shed.
    pub(crate) fn shed(&self) -> Option<Progress> {
        self.shedding.progress()
    }

    /// How many clients this node has yet to move.
    pub(crate) fn shed_left(&self) -> u64 {
        let moving = self.shed().filter(|progress| progress.state == Stage::Moving);
        moving.map_or(0, |progress| progress.gives.saturating_sub(progress.moved))
    }

    /// How many clients this node has above its share, if it has so many now; `None` if it drains. The others' figures are those
    /// of their reports.
    fn spare(&self, clients: u64) -> Option<u64> {
        let state = self.lock();
        let me = state.lives.me();
        let mut nodes: Vec<_> = state.lives.live().map(|live| live.node.clone()).collect();
        // Without the broker the figures are old, and clients could not resume.
        let is_blind = !state.lives.is_up();
        if state.lives.draining {
            return None;
        }
        drop(state);
        let own = nodes.iter_mut().find(|node| node.life == me);
        let Some(own) = own.filter(|_| !is_blind) else { return Some(0) };
        own.connections = clients;
        let own = own.clone();
        Some(share(&own, nodes.iter()).map_or(0, |share| clients.saturating_sub(share)))
    }

    /// How long to wait between two reports during a shed: longer in large clusters, so that all reports together stay few.
    fn pause(&self) -> Duration {
        REPORT.max(FOR_EACH * u32::try_from(self.size()).unwrap_or(u32::MAX))
    }

    /// Waits until this node and all others have reported since that time, in milliseconds since 1970, or for [`FIGURES`]. Returns
    /// the nodes.
    pub(crate) async fn figures(&self, since: u64) -> Vec<Live> {
        let end = Instant::now() + FIGURES;
        loop {
            let (lives, me) = (self.lives(), self.me());
            let are_new = lives.iter().all(|live| live.heard >= since) && lives.iter().any(|live| live.life() == me);
            if are_new || Instant::now() >= end {
                return lives;
            }
            sleep(LOOK).await;
        }
    }
}

/// What the task of a shed needs.
pub(crate) struct Shedder<C> {
    pub(crate) cluster: Arc<Cluster>,
    /// Which clients the node has.
    pub(crate) clients: C,
}

impl<C: Fn() -> Clients> Shedder<C> {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        let shedding = &self.cluster.shedding;
        let mut orders = shedding.orders.subscribe();
        loop {
            let order = orders.borrow_and_update().clone();
            let carrying_out = async {
                match order {
                    Some((shed, _)) if shed.pace == 0 => self.cluster.report.notify_one(),
                    Some((shed, read)) => self.carry_out(&shed, read).await,
                    None => {}
                }
                pending::<()>().await;
            };
            tokio::select! {
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    shedding.end(Stage::Stopped);
                }
                () = carrying_out => {}
            }
        }
    }

    async fn carry_out(&self, shed: &Shed, read: u64) {
        let shedding = &self.cluster.shedding;
        *shedding.lock() = Some(Progress { id: shed.id.clone(), ..Progress::default() });
        self.cluster.report.notify_one();
        let lives = self.cluster.figures(read).await;
        let plan = Plan::new(shed, lives.iter().map(|live| &live.node));
        let gives = plan.of(self.cluster.me()).map_or(0, |part| part.gives);
        if let Some(progress) = &mut *shedding.lock() {
            (progress.gives, progress.state) = (gives, Stage::Moving);
        }
        if gives > 0 {
            tracing::info!(gives, moves = plan.moves, span = ?plan.span, "this node gives up clients to emptier nodes");
        }
        let clients = (self.clients)();
        let of = if shed.everyone { clients.open } else { clients.resumable };
        let (span, everyone) = (plan.span, shed.everyone);
        let round = Round { gives, of, span, everyone, moved: AtomicU64::new(0), limit: AtomicU64::new(0) };
        let round = Arc::new(round);
        shedding.rounds.send_replace(Some(Arc::clone(&round)));
        let stage = self.watch_over(&round, clients.moved).await;
        shedding.end(stage);
        self.cluster.report.notify_one();
        self.report_for(plan.span + LATE).await;
    }

    /// Sets how many clients the workers may close, until the round is over. `before` is how many had been moved and were gone
    /// when it began.
    async fn watch_over(&self, round: &Round, before: u64) -> Stage {
        let begin = Instant::now();
        let mut reported = begin;
        while round.moved() < round.gives {
            let moved = round.moved();
            let clients = (self.clients)();
            // Those that were sent away and have not closed yet are still open here.
            let leaving = moved.saturating_sub(clients.moved.saturating_sub(before));
            let Some(spare) = self.cluster.spare(clients.open.saturating_sub(leaving)) else { return Stage::Draining };
            if begin.elapsed() > round.span + LATE {
                return Stage::Done;
            }
            round.limit.store(round.gives.min(moved.saturating_add(spare)), Ordering::Relaxed);
            if reported.elapsed() >= self.cluster.pause() {
                reported = Instant::now();
                self.cluster.report.notify_one();
            }
            sleep(LOOK).await;
        }
        Stage::Done
    }

    /// Reports for those nodes that still give up clients.
    async fn report_for(&self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            sleep(self.cluster.pause()).await;
            self.cluster.report.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(gives: u64, of: u64) -> Arc<Round> {
        let (moved, limit) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Round { gives, of, span: Duration::from_secs(1), everyone: false, moved, limit })
    }

    #[test]
    fn the_shares_of_the_workers_are_all_that_the_node_gives_up() {
        for (gives, of, workers, expected) in [
            (10, 40, &[20, 20][..], &[5, 5][..]),
            (10, 40, &[40, 0], &[10, 0]),
            (1, 3, &[1, 1, 1], &[1, 1, 1]),
            (0, 3, &[2, 1], &[0, 0]),
            (5, 0, &[0], &[0]),
        ] {
            let round = round(gives, of);
            assert_eq!(workers.iter().map(|clients| round.share(*clients)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn no_more_clients_go_than_the_limit_allows() {
        let round = round(3, 10);
        assert!(!round.take());
        round.limit.store(2, Ordering::Relaxed);
        assert_eq!([round.take(), round.take(), round.take()], [true, true, false]);
        // What has gone is gone.
        round.limit.store(1, Ordering::Relaxed);
        assert_eq!((round.take(), round.moved()), (false, 2));
    }

    #[test]
    fn the_first_end_of_a_shed_counts_and_says_how_many_have_moved() {
        let shedding = Shedding::default();
        shedding.end(Stage::Stopped);
        assert_eq!(shedding.progress(), None);
        let begun = Progress { id: "a".to_owned(), state: Stage::Moving, gives: 3, moved: 0 };
        *shedding.lock() = Some(begun.clone());
        let round = round(3, 10);
        shedding.rounds.send_replace(Some(Arc::clone(&round)));
        round.limit.store(3, Ordering::Relaxed);
        assert!(round.take());
        assert_eq!(shedding.progress(), Some(Progress { moved: 1, ..begun.clone() }));
        shedding.end(Stage::Stopped);
        shedding.end(Stage::Done);
        assert!(!round.take(), "nothing moves after the end");
        assert_eq!(shedding.progress(), Some(Progress { moved: 1, state: Stage::Stopped, ..begun }));
    }
}
