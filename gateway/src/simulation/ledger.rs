//! All records that the model broker holds or ever held. The judge compares the clients' traces with them.
//!
//! Each record knows the record before it, so records that a roll-back removed remain as a separate branch.

use std::collections::BTreeMap;

use broker_adapters::{Check, ENVELOPE_OVERHEAD, Epoch, MessageId, Offset, Partition, Position};
use bytes::Bytes;

/// The decoded content of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Heartbeat,
    Garbage,
    Message { id: MessageId, channel: String, payload: String },
}

/// A record that is or was in a partition.
pub(super) struct Written {
    before: Option<usize>,
    pub(super) at: Position,
    /// The generation of the partition's log, which rises with each wipe and roll-back.
    pub(super) generation: u32,
    /// A roll-back removed it, or only the old side of a fork has it.
    pub(super) undone: bool,
    /// Only the old side of a fork had it, or the log was set back behind it while readers were connected.
    forked: bool,
    pub(super) content: Content,
    pub(super) bytes: Bytes,
}

/// One of two servers that both act as the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The server for new connections.
    New,
    /// The previous primary, which still serves its old connections.
    Old,
}

/// The current log of one partition.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) epoch: Epoch,
    /// The oldest offset that can be read.
    pub(super) first: u64,
    /// Indices into [`Ledger::all`], from offset 1 on.
    log: Vec<usize>,
    generation: u32,
}

impl Kept {
    /// The offset of the next record.
    pub(super) fn next(&self) -> u64 {
        self.log.len() as u64 + 1
    }
}

pub(super) struct Ledger {
    pub(super) partitions: Vec<Kept>,
    /// The partitions on the old side, during a fork.
    old: Option<Vec<Kept>>,
    pub(super) all: Vec<Written>,
    places: BTreeMap<(u16, u64), Vec<usize>>,
}

impl Ledger {
    pub(super) fn new(partitions: u16) -> Self {
        let kept = |n: u16| Kept { epoch: Epoch(u64::from(n) + 1), first: 1, log: Vec::new(), generation: 0 };
        Self { partitions: (0..partitions).map(kept).collect(), old: None, all: Vec::new(), places: BTreeMap::new() }
    }

    /// A partition on one side; `None` if that side is gone.
    pub(super) fn side(&self, side: Side, partition: Partition) -> Option<&Kept> {
        match side {
            Side::New => self.partitions.get(usize::from(partition.0)),
            Side::Old => self.old.as_ref()?.get(usize::from(partition.0)),
        }
    }

    /// Stores an envelope.
    pub(super) fn append(&mut self, partition: Partition, bytes: Bytes) -> (Epoch, Offset) {
        self.append_on(Side::New, partition, bytes).expect("the new side is always there")
    }

    pub(super) fn append_on(&mut self, side: Side, partition: Partition, bytes: Bytes) -> Option<(Epoch, Offset)> {
        let kept = match side {
            Side::New => &mut self.partitions,
            Side::Old => self.old.as_mut()?,
        };
        let kept = &mut kept[usize::from(partition.0)];
        let forked = side == Side::Old;
        let content = read(&bytes);
        let check = match &content {
            Content::Garbage => Check::UNKNOWN,
            Content::Heartbeat | Content::Message { .. } => {
                id(&bytes).check(u64::try_from(number(&bytes[20..28])).unwrap_or_default())
            }
        };
        let offset = Offset(kept.next());
        let at = Position { partition, offset, check };
        let count = self.all.len();
        let (before, generation) = (kept.log.last().copied(), kept.generation);
        kept.log.push(count);
        self.places.entry((partition.0, offset.0)).or_default().push(count);
        self.all.push(Written { before, at, generation, undone: forked, forked, content, bytes });
        Some((kept.epoch, offset))
    }

    /// A replica that lags by `records` takes over. The old primary keeps serving its old connections.
    pub(super) fn fork(&mut self, records: usize) {
        self.old = Some(self.partitions.clone());
        (0..self.partitions.len()).for_each(|partition| self.set_back(partition, records));
    }

    /// Removes the last `records` while readers stay connected. Clients may have read them before the node notices, so they
    /// count as forked.
    pub(super) fn set_back(&mut self, partition: usize, records: usize) {
        let kept = &self.partitions[partition].log;
        for number in &kept[kept.len().saturating_sub(records)..] {
            self.all[*number].forked = true;
        }
        self.roll_back(partition, records);
    }

    /// Whether two servers act as the primary.
    pub(super) fn is_split(&self) -> bool {
        self.old.is_some()
    }

    /// Ends the fork: removes the old side.
    pub(super) fn join(&mut self) {
        self.old = None;
    }

    /// Whether a record at this position was forked.
    pub(super) fn is_forked(&self, at: Position) -> bool {
        self.candidates(at).any(|number| self.all[number].forked)
    }

    /// The fingerprint of the record before `of`, when `of` was appended.
    pub(super) fn previous(&self, of: &Written) -> Option<Check> {
        of.before.map(|number| self.all[number].at.check)
    }

    /// The record at an offset; `None` if it cannot be read.
    pub(super) fn at(&self, side: Side, partition: Partition, offset: u64) -> Option<&Written> {
        let kept = self.side(side, partition)?;
        let number = kept.log.get(usize::try_from(offset.checked_sub(1)?).ok()?)?;
        (offset >= kept.first).then(|| &self.all[*number])
    }

    /// Starts a new, empty log.
    pub(super) fn wipe(&mut self, partition: usize, epoch: u64) {
        let kept = &mut self.partitions[partition];
        *kept = Kept { epoch: Epoch(epoch), first: 1, log: Vec::new(), generation: kept.generation + 1 };
    }

    /// Trims all but the last `keep` records.
    pub(super) fn trim(&mut self, partition: usize, keep: u64) {
        let kept = &mut self.partitions[partition];
        kept.first = kept.first.max(kept.next().saturating_sub(keep));
    }

    /// Removes the last `records`.
    pub(super) fn roll_back(&mut self, partition: usize, records: usize) {
        let kept = &mut self.partitions[partition];
        let keep = kept.log.len().saturating_sub(records);
        for number in kept.log.drain(keep..) {
            self.all[number].undone = true;
        }
        kept.generation += 1;
        kept.first = kept.first.min(kept.next());
    }

    /// All records that ever held a message of this channel, by payload.
    pub(super) fn messages(&self, channel: &str) -> BTreeMap<&str, Vec<&Written>> {
        let mut by_payload: BTreeMap<&str, Vec<&Written>> = BTreeMap::new();
        for written in &self.all {
            if let Content::Message { payload, channel: on, .. } = &written.content
                && on == channel
            {
                by_payload.entry(payload).or_default().push(written);
            }
        }
        by_payload
    }

    /// Whether this message is or was at this position.
    pub(super) fn holds(&self, at: Position, payload: &str) -> bool {
        let matches =
            |written: &Written| matches!(&written.content, Content::Message { payload: known, .. } if known == payload);
        self.candidates(at).any(|number| matches(&self.all[number]))
    }

    /// The generations of the records at these positions, which one client read in sequence. A message that was published
    /// again under its key can have the same position in two logs. Records read in sequence are from one log.
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

    /// Whether one of two records precedes the other in a log.
    fn is_on_path(&self, one: usize, other: usize) -> bool {
        let (early, mut late) = (one.min(other), one.max(other));
        while late > early {
            let Some(before) = self.all[late].before else { return false };
            late = before;
        }
        late == early
    }

    /// Whether the message at this position was in the log before.
    pub(super) fn is_repeated(&self, at: Position) -> bool {
        self.candidates(at).any(|number| match self.all[number].content {
            Content::Message { id, .. } => self.repeats(number, id),
            _ => false,
        })
    }

    fn candidates(&self, at: Position) -> impl Iterator<Item = usize> {
        let here = self.places.get(&(at.partition.0, at.offset.0)).into_iter().flatten().copied();
        here.filter(move |number| self.all[*number].at.check == at.check)
    }

    /// Whether a client that had everything up to `from` and then got `to` has missed something of `channel`: the reason if
    /// so, `None` if not. With `through`, it must also have received the message at `to`.
    pub(super) fn missed(&self, channel: &str, from: Position, to: Position, through: bool) -> Option<String> {
        if to.check == Check::UNKNOWN {
            return (to.offset < from.offset).then(|| format!("{to} goes back from {from}"));
        }
        let mut why = Some(format!("{to} is not a record of the log"));
        for number in self.candidates(to) {
            why = self.missed_on_path(channel, from, number, through);
            why.as_ref()?;
        }
        why
    }

    fn missed_on_path(&self, channel: &str, from: Position, to: usize, through: bool) -> Option<String> {
        let mut next = Some(to);
        while let Some(number) = next {
            let written = &self.all[number];
            if written.at.offset <= from.offset {
                let same = written.at.offset == from.offset && (from.check == Check::UNKNOWN || from == written.at);
                return (!same).then(|| format!("{} does not follow {from}, but {}", self.all[to].at, written.at));
            }
            if number != to || through {
                match &written.content {
                    Content::Garbage => return Some(format!("the unreadable record at {} was skipped", written.at)),
                    Content::Message { id, channel: on, payload } if on == channel && !self.repeats(number, *id) => {
                        return Some(format!("`{payload}` at {} was skipped after {from}", written.at));
                    }
                    _ => {}
                }
            }
            next = written.before;
        }
        (from.offset.0 > 0).then(|| format!("{from} is not of the same log as {}", self.all[to].at))
    }

    /// Whether an earlier record holds the same message.
    fn repeats(&self, number: usize, wanted: MessageId) -> bool {
        let mut next = self.all[number].before;
        while let Some(number) = next {
            if matches!(self.all[number].content, Content::Message { id, .. } if id == wanted) {
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

fn read(envelope: &[u8]) -> Content {
    // A record for the nodes, or of a newer release that may be skipped, counts as a heartbeat.
    if let [b'F', 2, 77, 1, ..] | [b'F', 1, 5, 1, ..] = envelope {
        return Content::Heartbeat;
    }
    let [b'F', 1, kind @ 0..=3, 0, ..] = envelope else { return Content::Garbage };
    if envelope.len() < ENVELOPE_OVERHEAD {
        return Content::Garbage;
    }
    let channel = usize::try_from(number(&envelope[28..30])).unwrap_or(usize::MAX);
    let text = String::from_utf8(envelope[ENVELOPE_OVERHEAD..].to_vec());
    match text {
        Ok(text) if text.len() >= channel => match kind {
            0 => Content::Heartbeat,
            _ => {
                Content::Message { id: id(envelope), channel: text[..channel].into(), payload: text[channel..].into() }
            }
        },
        _ => Content::Garbage,
    }
}
