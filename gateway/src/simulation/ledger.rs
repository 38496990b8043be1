//! What the model broker holds, and all that it ever held: the truth that clients' stories are compared with.
//!
//! Every record knows the one before it, so that records which a roll-back took away stay a branch of their own.

use std::collections::BTreeMap;

use broker_adapters::{Check, ENVELOPE_OVERHEAD, Epoch, MessageId, Offset, Partition, Position};
use bytes::Bytes;

/// What an envelope says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Heartbeat,
    Garbage,
    Message { id: MessageId, channel: String, payload: String },
}

/// A record that stands, or stood, in a partition.
pub(super) struct Stand {
    before: Option<usize>,
    pub(super) at: Position,
    /// Of the partition's log: rises with each wipe and roll-back.
    pub(super) generation: u32,
    /// A roll-back took it, or a fork: it stands on the side that was left.
    pub(super) undone: bool,
    /// It stands, or stood, only on the left side of a fork, or where the log was set back while it was read.
    forked: bool,
    pub(super) said: Said,
    pub(super) bytes: Bytes,
}

/// Which of two servers that both take themselves for the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that new connections lead to.
    New,
    /// The one that was left.
    Left,
}

/// One partition as it is now.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) epoch: Epoch,
    /// The oldest offset that can be read.
    pub(super) first: u64,
    /// Numbers of records, from offset 1 on.
    log: Vec<usize>,
    generation: u32,
}

impl Kept {
    /// The offset that comes next.
    pub(super) fn next(&self) -> u64 {
        self.log.len() as u64 + 1
    }
}

pub(super) struct Ledger {
    pub(super) partitions: Vec<Kept>,
    /// The same partitions on the side that was left, while there is a fork.
    left: Option<Vec<Kept>>,
    pub(super) all: Vec<Stand>,
    places: BTreeMap<(u16, u64), Vec<usize>>,
}

impl Ledger {
    pub(super) fn new(partitions: u16) -> Self {
        let kept = |n: u16| Kept { epoch: Epoch(u64::from(n) + 1), first: 1, log: Vec::new(), generation: 0 };
        Self { partitions: (0..partitions).map(kept).collect(), left: None, all: Vec::new(), places: BTreeMap::new() }
    }

    /// A partition on one side; none when that side is gone.
    pub(super) fn side(&self, side: Side, partition: Partition) -> Option<&Kept> {
        match side {
            Side::New => self.partitions.get(usize::from(partition.0)),
            Side::Left => self.left.as_ref()?.get(usize::from(partition.0)),
        }
    }

    /// Stores an envelope.
    pub(super) fn append(&mut self, partition: Partition, bytes: Bytes) -> (Epoch, Offset) {
        self.append_on(Side::New, partition, bytes).expect("the new side is always there")
    }

    pub(super) fn append_on(&mut self, side: Side, partition: Partition, bytes: Bytes) -> Option<(Epoch, Offset)> {
        let kept = match side {
            Side::New => &mut self.partitions,
            Side::Left => self.left.as_mut()?,
        };
        let kept = &mut kept[usize::from(partition.0)];
        let forked = side == Side::Left;
        let said = read(&bytes);
        let check = match &said {
            Said::Garbage => Check::UNKNOWN,
            Said::Heartbeat | Said::Message { .. } => {
                id(&bytes).check(u64::try_from(number(&bytes[20..28])).unwrap_or_default())
            }
        };
        let offset = Offset(kept.next());
        let at = Position { partition, offset, check };
        let count = self.all.len();
        let (before, generation) = (kept.log.last().copied(), kept.generation);
        kept.log.push(count);
        self.places.entry((partition.0, offset.0)).or_default().push(count);
        self.all.push(Stand { before, at, generation, undone: forked, forked, said, bytes });
        Some((kept.epoch, offset))
    }

    /// A lagging replica takes over, while the old primary goes on for those who stay with it.
    pub(super) fn fork(&mut self, records: usize) {
        self.left = Some(self.partitions.clone());
        (0..self.partitions.len()).for_each(|partition| self.set_back(partition, records));
    }

    /// Goes back to the state of `records` ago, unseen by those who read: what they show until they find out is of a side of
    /// its own.
    pub(super) fn set_back(&mut self, partition: usize, records: usize) {
        let kept = &self.partitions[partition].log;
        for number in &kept[kept.len().saturating_sub(records)..] {
            self.all[*number].forked = true;
        }
        self.roll_back(partition, records);
    }

    /// Whether there is a fork.
    pub(super) fn is_split(&self) -> bool {
        self.left.is_some()
    }

    /// The side that was left is gone.
    pub(super) fn join(&mut self) {
        self.left = None;
    }

    /// Whether what stands at a position stood only where the log was left behind unseen.
    pub(super) fn is_forked(&self, at: Position) -> bool {
        self.candidates(at).any(|number| self.all[number].forked)
    }

    /// The fingerprint of the record before one, as it was when that one was appended.
    pub(super) fn previous(&self, of: &Stand) -> Option<Check> {
        of.before.map(|number| self.all[number].at.check)
    }

    /// The record at an offset, if it can be read.
    pub(super) fn at(&self, side: Side, partition: Partition, offset: u64) -> Option<&Stand> {
        let kept = self.side(side, partition)?;
        let number = kept.log.get(usize::try_from(offset.checked_sub(1)?).ok()?)?;
        (offset >= kept.first).then(|| &self.all[*number])
    }

    /// Begins a new, empty log.
    pub(super) fn wipe(&mut self, partition: usize, epoch: u64) {
        let kept = &mut self.partitions[partition];
        *kept = Kept { epoch: Epoch(epoch), first: 1, log: Vec::new(), generation: kept.generation + 1 };
    }

    /// Forgets all but the last `keep` records.
    pub(super) fn trim(&mut self, partition: usize, keep: u64) {
        let kept = &mut self.partitions[partition];
        kept.first = kept.first.max(kept.next().saturating_sub(keep));
    }

    /// Goes back to the state of `records` ago.
    pub(super) fn roll_back(&mut self, partition: usize, records: usize) {
        let kept = &mut self.partitions[partition];
        let left = kept.log.len().saturating_sub(records);
        for number in kept.log.drain(left..) {
            self.all[number].undone = true;
        }
        kept.generation += 1;
        kept.first = kept.first.min(kept.next());
    }

    /// All records that ever held a message of a channel, by payload.
    pub(super) fn messages(&self, channel: &str) -> BTreeMap<&str, Vec<&Stand>> {
        let mut by_payload: BTreeMap<&str, Vec<&Stand>> = BTreeMap::new();
        for stand in &self.all {
            if let Said::Message { payload, channel: on, .. } = &stand.said
                && on == channel
            {
                by_payload.entry(payload).or_default().push(stand);
            }
        }
        by_payload
    }

    /// Whether this message stands, or stood, at this position.
    pub(super) fn holds(&self, at: Position, payload: &str) -> bool {
        let said = |stand: &Stand| matches!(&stand.said, Said::Message { payload: known, .. } if known == payload);
        self.candidates(at).any(|number| said(&self.all[number]))
    }

    /// The generations of the records at these positions, which one client read in a row. A key makes the same message of
    /// two logs one position: what is read in a row is of one log.
    pub(super) fn generations(&self, read: &[Position]) -> Vec<u32> {
        let candidates: Vec<Vec<usize>> = read.iter().map(|at| self.candidates(*at).collect()).collect();
        let certain = candidates.iter().rev().find(|numbers| numbers.len() == 1).map(|numbers| numbers[0]);
        let of = |numbers: &Vec<usize>| {
            let related = |number: &&usize| certain.is_none_or(|certain| self.is_on_path(**number, certain));
            let number = numbers.iter().rev().find(related).or(numbers.last());
            number.map_or(0, |number| self.all[*number].generation)
        };
        candidates.iter().map(of).collect()
    }

    /// Whether one of two records stands before the other.
    fn is_on_path(&self, one: usize, other: usize) -> bool {
        let (early, mut late) = (one.min(other), one.max(other));
        while late > early {
            let Some(before) = self.all[late].before else { return false };
            late = before;
        }
        late == early
    }

    /// Whether the message at this position stood in the log before.
    pub(super) fn is_repeated(&self, at: Position) -> bool {
        self.candidates(at).any(|number| match self.all[number].said {
            Said::Message { id, .. } => self.repeats(number, id),
            _ => false,
        })
    }

    fn candidates(&self, at: Position) -> impl Iterator<Item = usize> {
        let here = self.places.get(&(at.partition.0, at.offset.0)).into_iter().flatten().copied();
        here.filter(move |number| self.all[*number].at.check == at.check)
    }

    /// Why a client that has heard of everything up to `from` and then of `to` has missed something of `channel`;
    /// `through` if it should have heard of `to` itself before.
    pub(super) fn missed(&self, channel: &str, from: Position, to: Position, through: bool) -> Option<String> {
        if to.check == Check::UNKNOWN {
            return (to.offset < from.offset).then(|| format!("{to} goes back from {from}"));
        }
        let mut why = Some(format!("{to} is no record of the log"));
        for number in self.candidates(to) {
            why = self.missed_on_path(channel, from, number, through);
            why.as_ref()?;
        }
        why
    }

    fn missed_on_path(&self, channel: &str, from: Position, to: usize, through: bool) -> Option<String> {
        let mut next = Some(to);
        while let Some(number) = next {
            let stand = &self.all[number];
            if stand.at.offset <= from.offset {
                let same = stand.at.offset == from.offset && (from.check == Check::UNKNOWN || from == stand.at);
                return (!same).then(|| format!("{} does not follow {from}, but {}", self.all[to].at, stand.at));
            }
            if number != to || through {
                match &stand.said {
                    Said::Garbage => return Some(format!("the unreadable record at {} was passed over", stand.at)),
                    Said::Message { id, channel: on, payload } if on == channel && !self.repeats(number, *id) => {
                        return Some(format!("`{payload}` at {} was passed over after {from}", stand.at));
                    }
                    _ => {}
                }
            }
            next = stand.before;
        }
        (from.offset.0 > 0).then(|| format!("{from} is not of the same log as {}", self.all[to].at))
    }

    /// Whether the same message stands before this record.
    fn repeats(&self, number: usize, wanted: MessageId) -> bool {
        let mut next = self.all[number].before;
        while let Some(number) = next {
            if matches!(self.all[number].said, Said::Message { id, .. } if id == wanted) {
                return true;
            }
            next = self.all[number].before;
        }
        false
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn id(envelope: &[u8]) -> MessageId {
    MessageId(number(&envelope[4..20]))
}

fn read(envelope: &[u8]) -> Said {
    if let [b'F', 2, 77, 1, ..] = envelope {
        return Said::Heartbeat;
    }
    let [b'F', 1, kind @ 0..=3, 0, ..] = envelope else { return Said::Garbage };
    if envelope.len() < ENVELOPE_OVERHEAD {
        return Said::Garbage;
    }
    let channel = usize::try_from(number(&envelope[28..30])).unwrap_or(usize::MAX);
    let text = String::from_utf8(envelope[ENVELOPE_OVERHEAD..].to_vec());
    match text {
        Ok(text) if text.len() >= channel => match kind {
            0 => Said::Heartbeat,
            _ => Said::Message { id: id(envelope), channel: text[..channel].into(), payload: text[channel..].into() },
        },
        _ => Said::Garbage,
    }
}
