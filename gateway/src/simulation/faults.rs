//! What goes wrong in a world, when, and for how long.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use tokio::time::sleep;

use broker_adapters::Partition;

use super::broker::{Model, Reach, Weather};

/// What can happen. Nodes and partitions are numbers to be taken modulo how many there are; durations in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A node's link fails at once.
    Cut {
        node: usize,
        lasts: u64,
    },
    /// A node's link carries nothing and shows no error.
    Stall {
        node: usize,
        lasts: u64,
    },
    /// A node's reader shows nothing any more, while all else works.
    Deaf {
        node: usize,
    },
    /// All connections end, and none can be made for a while.
    Restart {
        lasts: u64,
    },
    /// All requests of all nodes are answered badly now and then.
    Weather {
        append: u32,
        read_back: u32,
        delay: u64,
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
    /// A replica that lags by so many records takes over; the old primary goes on for those connections that stay with it.
    Fork {
        records: usize,
        lasts: u64,
    },
    /// The log goes back to an earlier state while it is read, and no connection ends.
    SetBack {
        partition: usize,
        records: usize,
    },
}

/// The kinds of faults, to choose from.
const KINDS: [&str; 13] = [
    "cut",
    "stall",
    "deaf",
    "restart",
    "weather",
    "crash",
    "wipe",
    "trim",
    "roll back",
    "garbage",
    "skip",
    "fork",
    "set back",
];
/// The kinds, from here on, that lose records.
const LOSING: usize = 6;

/// The faults of one world.
pub(super) struct Plan {
    /// Milliseconds from the begin, in rising order.
    pub(super) faults: Vec<(u64, Fault)>,
    /// Those that may happen in this world.
    pub(super) kinds: Vec<&'static str>,
    /// How long the world lasts, in milliseconds.
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

    /// Whether every record that was stored stays, and can be read.
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
            "weather" => Self::Weather {
                append: rng.u32(0..60),
                read_back: rng.u32(0..60),
                delay: rng.u64(1..slow),
                lasts: lasts * 2,
            },
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

    /// Befalls the broker; done when it is over.
    pub(super) async fn happen(self, model: &Model, nodes: usize, mut rng: Rng) {
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
            Self::Weather { append, read_back, delay, lasts } => {
                model.change(|state| state.weather = Weather { append, read_back, delay });
                last(lasts).await;
                model.change(|state| state.weather = Weather { delay: 3, ..Weather::default() });
            }
            Self::Crash { lasts, .. } => last(lasts).await,
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
        // Of a newer release.
        0 => bytes.splice(0..0, [b'F', 2, 1, 0]).for_each(drop),
        1 => bytes.clear(),
        // A head that promises more than there is.
        2 => bytes = [&[b'F', 1, 1, 0][..], &[0xff; 30]].concat(),
        // Of a newer release that allows older ones to skip it: a record like any other, and no loss.
        3 => bytes = [&[b'F', 2, 77, 1][..], &rng.u128(..).to_be_bytes(), &[0; 8], &bytes].concat(),
        _ => bytes.insert(0, 0),
    }
    bytes.into()
}
