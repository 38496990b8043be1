//! The faults of a world: their kinds, times and durations.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tokio::time::sleep;

use broker_adapters::Partition;

use super::broker::{Flakiness, Model, Reach};

/// One fault. Numbers of nodes and partitions are taken modulo their count; durations are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A node's link to the broker fails at once.
    Cut {
        node: usize,
        lasts: u64,
    },
    /// A node's link to the broker hangs without an error.
    Stall {
        node: usize,
        lasts: u64,
    },
    /// A node's reader returns no more records; everything else works.
    Deaf {
        node: usize,
    },
    /// All connections to the broker end, and new ones fail for a while.
    Restart {
        lasts: u64,
    },
    /// Some requests of all nodes fail or are slow.
    Flakiness {
        append: u32,
        read_back: u32,
        delay: u64,
        lasts: u64,
    },
    /// A node does nothing for a while, as a stopped process.
    Pause {
        node: usize,
        lasts: u64,
    },
    Crash {
        node: usize,
        lasts: u64,
    },
    Wipe {
        partition: usize,
    },
    Trim {
        partition: usize,
        keep: u64,
    },
    RollBack {
        partition: usize,
        records: usize,
        lasts: u64,
    },
    Garbage {
        partition: usize,
        kind: u8,
    },
    Skip {
        node: usize,
    },
    /// A replica that lags by `records` takes over. The old primary keeps serving its old connections.
    Fork {
        records: usize,
        lasts: u64,
    },
    /// The log loses its last `records` while it is read, and no connection ends.
    SetBack {
        partition: usize,
        records: usize,
    },
}

/// The kinds of faults.
const KINDS: [&str; 14] = [
    "cut",
    "stall",
    "deaf",
    "restart",
    "flakiness",
    "pause",
    "crash",
    "wipe",
    "trim",
    "roll back",
    "garbage",
    "skip",
    "fork",
    "set back",
];
/// The index in [`KINDS`] from which on the kinds lose records.
const LOSING: usize = 7;

/// The faults of one world.
pub(super) struct Plan {
    /// The faults with their times, in milliseconds from the start, in rising order.
    pub(super) faults: Vec<(u64, Fault)>,
    /// The kinds that may happen in this world.
    pub(super) kinds: Vec<&'static str>,
    /// The duration of the world, in milliseconds.
    pub(super) length: u64,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let length = rng.u64(4_000..14_000);
        let count = rng.usize(0..4);
        let mut kinds: Vec<usize> = (0..count).map(|_| rng.usize(0..KINDS.len())).collect();
        kinds.dedup();
        let often = if kinds.is_empty() { 0 } else { rng.usize(1..10) };
        let mut faults: Vec<_> = (0..often)
            .map(|_| {
                let kind = kinds[rng.usize(0..kinds.len())];
                (rng.u64(200..length), Fault::draw(KINDS[kind], rng))
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self { faults, kinds: kinds.into_iter().map(|kind| KINDS[kind]).collect(), length }
    }

    /// Whether no fault hides a node that runs from the others: each ends the node, or concerns all of them.
    pub(super) fn hides_no_node(&self) -> bool {
        const ALIKE: [&str; 8] = ["restart", "crash", "wipe", "trim", "roll back", "garbage", "skip", "set back"];
        self.kinds.iter().all(|kind| ALIKE.contains(kind))
    }

    /// Whether all stored records remain readable.
    pub(super) fn loses_nothing(&self) -> bool {
        !self.kinds.iter().any(|kind| KINDS[LOSING..].contains(kind))
    }
}

impl Fault {
    fn draw(kind: &str, rng: &mut Rng) -> Self {
        let (node, partition) = (rng.usize(0..6), rng.usize(0..6));
        let (most, slow) = ([50, 800, 5_000][rng.usize(0..3)], [5, 100, 900][rng.usize(0..3)]);
        let lasts = rng.u64(1..most);
        match kind {
            "cut" => Self::Cut { node, lasts },
            "stall" => Self::Stall { node, lasts },
            "deaf" => Self::Deaf { node },
            "restart" => Self::Restart { lasts },
            "flakiness" => Self::Flakiness {
                append: rng.u32(0..60),
                read_back: rng.u32(0..60),
                delay: rng.u64(1..slow),
                lasts: lasts * 2,
            },
            "pause" => Self::Pause { node, lasts: lasts * 3 },
            "crash" => Self::Crash { node, lasts },
            "wipe" => Self::Wipe { partition },
            "trim" => Self::Trim { partition, keep: rng.u64(0..20) },
            "roll back" => Self::RollBack { partition, records: rng.usize(0..12), lasts: lasts / 4 },
            "garbage" => Self::Garbage { partition, kind: rng.u8(0..5) },
            "fork" => Self::Fork { records: rng.usize(0..6), lasts: lasts * 3 },
            "set back" => Self::SetBack { partition, records: rng.usize(1..12) },
            _ => Self::Skip { node },
        }
    }

    /// Applies the fault to the broker, and returns when it is over.
    pub(super) async fn run(self, model: &Model, nodes: usize, mut rng: Rng) {
        let last = |lasts| sleep(Duration::from_millis(lasts));
        let reach = |of: usize, reach: Reach| model.change(|state| state.links[of % nodes].reach = reach);
        let partitions = model.lock().ledger.partitions.len();
        match self {
            Self::Cut { node, lasts } => {
                reach(node, Reach::Cut);
                model.end_sessions(|one| one == node % nodes);
                last(lasts).await;
                reach(node, Reach::Whole);
            }
            Self::Stall { node, lasts } => {
                reach(node, Reach::Stalled);
                last(lasts).await;
                reach(node, Reach::Whole);
            }
            Self::Deaf { node } => model.change(|state| {
                let link = &mut state.links[node % nodes];
                link.deaf = link.opened;
            }),
            Self::Restart { lasts } => Self::outage(model, nodes, lasts, || {}).await,
            Self::Flakiness { append, read_back, delay, lasts } => {
                model.change(|state| state.flakiness = Flakiness { append, read_back, delay });
                last(lasts).await;
                model.change(|state| state.flakiness = Flakiness { delay: 3, ..Flakiness::default() });
            }
            Self::Pause { lasts, .. } | Self::Crash { lasts, .. } => last(lasts).await,
            Self::Wipe { partition } => model.wipe(partition % partitions),
            Self::Trim { partition, keep } => {
                model.change(|state| state.ledger.trim(partition % partitions, keep));
            }
            Self::RollBack { partition, records, lasts } => {
                let back = || model.change(|state| state.ledger.roll_back(partition % partitions, records));
                Self::outage(model, nodes, lasts, back).await;
            }
            Self::Garbage { partition, kind } => model.change(|state| {
                let partition = Partition((partition % partitions) as u16);
                state.ledger.append(partition, garbage(kind, &mut rng));
            }),
            Self::Fork { records, lasts } => Self::fork(model, records, lasts, &mut rng).await,
            Self::SetBack { partition, records } => model.set_back(partition % partitions, records),
            Self::Skip { node } => model.change(|state| state.links[node % nodes].skip = true),
        }
    }

    async fn fork(model: &Model, records: usize, lasts: u64, rng: &mut Rng) {
        if !model.fork(records, rng) {
            return;
        }
        sleep(Duration::from_millis(lasts)).await;
        model.join();
    }

    async fn outage(model: &Model, nodes: usize, lasts: u64, meanwhile: impl FnOnce()) {
        let all = |reach| model.change(|state| state.links.iter_mut().for_each(|link| link.reach = reach));
        all(Reach::Cut);
        model.end_sessions(|node| node < nodes);
        meanwhile();
        sleep(Duration::from_millis(lasts)).await;
        all(Reach::Whole);
    }
}

/// Bytes that this release does not write.
fn garbage(kind: u8, rng: &mut Rng) -> Bytes {
    let mut bytes: Vec<u8> = (0..rng.usize(0..60)).map(|_| rng.u8(..)).collect();
    match kind {
        // A record of a newer release.
        0 => bytes.splice(0..0, [b'F', 2, 1, 0]).for_each(drop),
        1 => bytes.clear(),
        // A header with lengths beyond the end of the record.
        2 => bytes = [&[b'F', 1, 1, 0][..], &[0xff; 30]].concat(),
        // A record of a newer release that older nodes may skip. Skipping it is not a loss.
        3 => bytes = [&[b'F', 2, 77, 1][..], &rng.u128(..).to_be_bytes(), &[0; 8], &bytes].concat(),
        _ => bytes.insert(0, 0),
    }
    bytes.into()
}
