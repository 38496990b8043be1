//! Follows partitions of the log for ever, through failures, and announces what it cannot prove to be whole.
//!
//! One task per tail, ended by dropping it. Its queue is bounded: a slow owner slows the reading, and the
//! log keeps what was not read. Appends a heartbeat where it has seen nothing for a while; a link that shows
//! no record for three heartbeats is dead, whatever its socket says.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::broker::{Append, Entry, LinkError, OPEN_TIMEOUT, Reader};
use crate::log::backoff::Backoff;
use crate::log::cursor::{Cursor, Reopen};
use crate::log::event::{Break, Resume, TailEvent};
use crate::log::shared::{Outage, Shared, Watched};
use crate::log::witness::Witness;
use crate::stored::envelope;
use crate::stored::position::{Partition, Position};
use crate::stored::record::MessageId;

/// A node appends to each partition at least once in so many heartbeats, however busy others keep it.
const PROOF: f64 = 5.0;
/// Batches that wait for the tail's owner; when full, reading pauses.
const QUEUE: usize = 16;

/// The longest pause before another try, where an operator must change something first.
pub(crate) const SLOWEST: Duration = Duration::from_secs(30);

/// A running tail. Dropping it ends it.
#[derive(Debug)]
pub struct Tail {
    events: mpsc::Receiver<Vec<TailEvent>>,
    task: AbortHandle,
}

impl Tail {
    /// The next events, at least one. Cancel safe. `None` only after the log was closed.
    pub async fn next(&mut self) -> Option<Vec<TailEvent>> {
        self.events.recv().await
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a session with the broker ended.
enum End {
    /// The link failed or fell silent.
    Failed(LinkError),
    /// The cursors moved: open again at once.
    Reopen,
    /// The owner is gone.
    Closed,
}

impl From<Reopen> for End {
    fn from(_: Reopen) -> Self {
        Self::Reopen
    }
}

pub(crate) fn start(shared: Arc<Shared>, from: &[(Partition, Resume)]) -> Tail {
    let (sender, events) = mpsc::channel(QUEUE);
    let cursors = from.iter().map(|&(partition, resume)| Followed::new(partition, resume, &shared)).collect();
    let mut closed = shared.closed.subscribe();
    let task = Task { shared, followed: cursors, sender, outage: None, backoff: link_backoff(), slow: slow_backoff() };
    let task = async move {
        tokio::select! {
            biased;
            () = task.run() => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    };
    Tail { events, task: tokio::spawn(task).abort_handle() }
}

/// Short at first, and at most a second, so that delivery is back soon after the broker.
pub(crate) fn link_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(1))
}

/// For failures that need a change. A change is noticed after at most the time that the failure had lasted.
fn slow_backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), SLOWEST)
}

/// One partition of the tail.
struct Followed {
    partition: Partition,
    cursor: Cursor,
    /// Compares acknowledged records with what this tail reads; `None` where another tail does.
    witness: Option<Watched>,
    /// When its last record came.
    seen: Instant,
    /// When a heartbeat is due if nothing comes.
    beat: Instant,
    /// When a heartbeat is due even if records come: it shows that this node's appends arrive where it reads.
    proof: Instant,
}

impl Followed {
    fn new(partition: Partition, resume: Resume, shared: &Arc<Shared>) -> Self {
        let now = Instant::now();
        let cursor = Cursor::new(partition, resume);
        let witness = Watched::new(shared, partition);
        let mut followed = Self { partition, cursor, witness, seen: now, beat: now, proof: now };
        followed.seen_now(shared.timing.heartbeat);
        followed
    }

    /// Asks the witness, or gives the default where another tail has it.
    fn witness<T: Default>(&self, with: impl FnOnce(&mut Witness) -> T) -> T {
        self.witness.as_ref().map(|watched| watched.with(with)).unwrap_or_default()
    }

    /// This node itself was stopped for a while, so the silence is not the broker's fault.
    fn excuse(&mut self, now: Instant, heartbeat: Duration) {
        self.seen_now(heartbeat);
        self.witness(|witness| witness.excuse(now));
    }

    fn seen_now(&mut self, heartbeat: Duration) {
        self.seen = Instant::now();
        // Jitter lets one node's heartbeat serve all.
        self.beat = self.seen + heartbeat.mul_f64(1.0 + fastrand::f64() / 4.0);
    }
}

struct Task {
    shared: Arc<Shared>,
    followed: Vec<Followed>,
    sender: mpsc::Sender<Vec<TailEvent>>,
    outage: Option<Outage>,
    backoff: Backoff,
    /// Pauses where an operator must change something before a try can work.
    slow: Backoff,
}

impl Task {
    async fn run(mut self) {
        loop {
            match self.session().await {
                End::Closed => return,
                End::Reopen => {}
                End::Failed(error) => {
                    let news = self.outage.as_mut().is_none_or(|outage| outage.goes_on(&error));
                    self.outage.get_or_insert_with(|| Outage::begin(&self.shared, &error));
                    let needs_change = error.kind.needs_change();
                    if news && self.sender.send(vec![TailEvent::Down { why: error.why }]).await.is_err() {
                        return;
                    }
                    if needs_change {
                        tokio::time::sleep(self.slow.delay()).await;
                        continue;
                    }
                    self.slow.reset();
                }
            }
            tokio::time::sleep(self.backoff.delay()).await;
        }
    }

    /// Opens a reader and follows it until it fails.
    async fn session(&mut self) -> End {
        let asked = Instant::now();
        let from: Vec<_> = self.followed.iter().map(|f| (f.partition, f.cursor.start())).collect();
        let opened = match timeout(OPEN_TIMEOUT, self.shared.broker.open(&from)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return End::Failed(error),
            Err(_) => return End::Failed(LinkError::new("no answer from the broker within 5 s")),
        };
        let mut out = Vec::new();
        let mut reopen = false;
        for (followed, standing) in self.followed.iter_mut().zip(opened.standings) {
            reopen |= followed.cursor.opened(standing, &mut out).is_err();
            followed.witness(|witness| witness.opened(asked, standing, Instant::now()));
            followed.seen_now(self.shared.timing.heartbeat);
        }
        if let Err(end) = self.announce(out).await {
            return end;
        }
        if self.is_refuted() || reopen {
            return End::Reopen;
        }
        self.heartbeat(|_| true);
        self.follow(opened.reader).await
    }

    async fn follow(&mut self, mut reader: Box<dyn Reader>) -> End {
        let shared = Arc::clone(&self.shared);
        // One for the session: it also remembers a doubt that comes while records are handed over.
        let doubt = shared.doubt.notified();
        tokio::pin!(doubt);
        let mut tick = interval(shared.timing.heartbeat / 4);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_tick = Instant::now();
        loop {
            // One future until it is done: a dropped one may leave a blocking read behind at the broker.
            let mut next = reader.next();
            let entries = loop {
                let watched = tokio::select! {
                    // In this order: whatever the load, a quiet partition gets its heartbeat.
                    biased;
                    now = tick.tick() => {
                        // After this process itself was stopped, silence says nothing about the link.
                        if now - last_tick > shared.timing.heartbeat {
                            self.followed.iter_mut().for_each(|f| f.excuse(now, shared.timing.heartbeat));
                        }
                        last_tick = now;
                        self.watch(now)
                    }
                    () = &mut doubt => {
                        // Appends reach another log than the one that is read, and either may be the old one.
                        if !self.is_refuted() {
                            self.redial();
                        }
                        Err(End::Reopen)
                    }
                    entries = &mut next => break entries,
                };
                if let Err(end) = watched {
                    return end;
                }
            };
            drop(next);
            let taken = match entries {
                Ok(entries) => self.take(&entries).await,
                Err(error) => Err(End::Failed(error)),
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    async fn take(&mut self, entries: &[Entry]) -> Result<(), End> {
        let mut out = Vec::new();
        let mut result = Ok(());
        let mut shown = None;
        for entry in entries {
            let Some(followed) = self.followed.iter_mut().find(|f| f.partition == entry.partition) else { continue };
            if shown.replace(entry.partition) != Some(entry.partition) {
                followed.seen_now(self.shared.timing.heartbeat);
            }
            result = followed.cursor.accept(entry, &mut out);
            self.shared.counters.duplicates.add(std::mem::take(&mut followed.cursor.duplicates));
            self.shared.skip(std::mem::take(&mut followed.cursor.skipped));
            if result.is_err() {
                break;
            }
        }
        if !out.is_empty() {
            self.backoff.reset();
            self.slow.reset();
            if self.outage.take().is_some() {
                tracing::info!(broker = self.shared.broker.capabilities().name, "broker link up");
            }
        }
        self.announce(out).await?;
        result?;
        if self.is_contradicted() {
            tracing::warn!("another node reads another log than this one; both connect anew");
            self.redial();
            return Err(End::Reopen);
        }
        if self.is_refuted() { Err(End::Reopen) } else { Ok(()) }
    }

    /// Whether an acknowledged record is missing where the tail has read. If so, what was read is given up as another log.
    fn is_refuted(&mut self) -> bool {
        let mut refuted = Vec::new();
        for followed in &mut self.followed {
            if followed.witness(|witness| witness.is_broken()) && followed.cursor.distrust() {
                refuted.push(followed.partition.0);
            }
        }
        if refuted.is_empty() {
            return false;
        }
        tracing::warn!(partitions = ?refuted, "the broker acknowledged records that its log does not show; connecting anew");
        self.redial();
        true
    }

    /// Whether another node's heartbeat names a record that this node has read differently. Until now that node has used
    /// another server, for all partitions, so this node's clients have missed what it published: they get `lost`.
    fn is_contradicted(&mut self) -> bool {
        let mut contradicted = false;
        for followed in &mut self.followed {
            let named = std::mem::take(&mut followed.cursor.named);
            contradicted |=
                followed.witness(|witness| named.iter().any(|&(of, position)| witness.contradicts(of, position)));
        }
        if contradicted {
            for followed in &mut self.followed {
                followed.cursor.distrust();
            }
        }
        contradicted
    }

    /// In a task of its own: an adapter may be dialling right now.
    fn redial(&self) {
        let broker = Arc::clone(&self.shared.broker);
        tokio::spawn(async move { broker.redial().await });
    }

    async fn announce(&self, out: Vec<TailEvent>) -> Result<(), End> {
        let breaks = out.iter().filter_map(|event| if let TailEvent::Lost(lost) = event { Some(lost) } else { None });
        let (count, first) = (breaks.clone().count(), breaks.clone().next());
        if let Some(first) = first {
            self.shared.counters.breaks.add(count as u64);
            let partitions: Vec<_> = breaks.map(|lost| lost.after.partition.0).collect();
            tracing::warn!(?partitions, reason = %first.reason, after = %first.after, at = %first.at,
                "records were lost in the broker; every subscriber of these partitions gets `lost`");
        }
        for event in &out {
            let (TailEvent::Up { at: Position { partition, .. } }
            | TailEvent::Records { partition, .. }
            | TailEvent::Lost(Break { at: Position { partition, .. }, .. })) = event
            else {
                continue;
            };
            let followed = self.followed.iter().find(|followed| followed.partition == *partition);
            followed.inspect(|followed| followed.witness(|witness| witness.saw(event)));
        }
        if out.is_empty() { Ok(()) } else { self.sender.send(out).await.map_err(|_| End::Closed) }
    }

    /// Sends heartbeats where they are due, and finds the link dead where they did not come back.
    fn watch(&mut self, now: Instant) -> Result<(), End> {
        if self.sender.is_closed() {
            return Err(End::Closed);
        }
        let heartbeat = self.shared.timing.heartbeat;
        if let Some(silent) = self.followed.iter().find(|f| now - f.seen > 3 * heartbeat) {
            // Each direction may be dead.
            self.redial();
            let why = format!("partition {} has shown no record for {:?}", silent.partition.0, 3 * heartbeat);
            return Err(End::Failed(LinkError::new(why)));
        }
        for followed in &self.followed {
            if !followed.witness(|witness| witness.is_overdue(now, 2 * heartbeat)) {
                continue;
            }
            let partition = followed.partition.0;
            if now - followed.seen < heartbeat {
                tracing::info!(partition, "acknowledged records do not show among others; reading on a new connection");
                return Err(End::Reopen);
            }
            let why = format!("partition {partition} does not show what was acknowledged {:?} ago", 2 * heartbeat);
            return Err(End::Failed(LinkError::new(why)));
        }
        self.heartbeat(|followed| now >= followed.beat || now >= followed.proof);
        Ok(())
    }

    /// Appends one heartbeat to each partition where it is due, beside the reading.
    fn heartbeat(&mut self, is_due: impl Fn(&Followed) -> bool) {
        let (now, time, heartbeat) = (Instant::now(), (self.shared.timing.clock)(), self.shared.timing.heartbeat);
        let beat = |followed: &mut Followed| {
            followed.beat = now + heartbeat;
            followed.proof = now + heartbeat.mul_f64(PROOF + fastrand::f64());
            let partition = followed.partition;
            let seen = followed.witness(|witness| witness.last(partition));
            Append { partition, bytes: envelope::heartbeat(MessageId::random(), time, seen) }
        };
        let batch: Vec<_> = self.followed.iter_mut().filter(|followed| is_due(followed)).map(beat).collect();
        if batch.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move { shared.append(&batch, Instant::now() + shared.timing.heartbeat).await });
    }
}

#[cfg(test)]
mod tests;
