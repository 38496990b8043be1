//! The newest message of each channel that waits for a client whose socket is full.
//!
//! Pure. For channels whose rule says `slow = latest`. Holds one message per channel, however many come, and counts the
//! others. Loses the skipped messages, as the rule says, and the client is notified of their number.

use std::collections::BTreeMap;

use broker_adapters::Position;

use super::backlog::{FRAME, Frame};
use super::hub::ChannelId;

/// The messages that wait, by channel.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    waiting: BTreeMap<ChannelId, Newest>,
    bytes: usize,
}

/// The newest message of a channel.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) frame: Frame,
    pub(crate) at: Position,
    /// The number of messages before it that the client does not receive.
    pub(crate) skipped: u64,
}

impl Latest {
    /// Replaces the message of a channel by the last one of a run of `count` messages.
    pub(crate) fn put(&mut self, channel: ChannelId, (frame, at): (Frame, Position), count: usize) {
        self.bytes += frame.len() + FRAME;
        let before = count.saturating_sub(1) as u64;
        let replaced = self.waiting.insert(channel, Newest { frame, at, skipped: before });
        if let (Some(replaced), Some(newest)) = (replaced, self.waiting.get_mut(&channel)) {
            self.bytes -= replaced.frame.len() + FRAME;
            newest.skipped += replaced.skipped + 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a message of a channel waits.
    pub(crate) fn holds(&self, channel: ChannelId) -> bool {
        self.waiting.contains_key(&channel)
    }

    /// Takes the message of a channel.
    pub(crate) fn take(&mut self, channel: ChannelId) -> Option<Newest> {
        let newest = self.waiting.remove(&channel)?;
        self.bytes -= newest.frame.len() + FRAME;
        Some(newest)
    }

    /// Takes all messages.
    pub(crate) fn take_all(&mut self) -> BTreeMap<ChannelId, Newest> {
        std::mem::take(self).waiting
    }

    /// The approximate memory of the messages, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use broker_adapters::{Check, Offset, Partition};
    use bytes::Bytes;

    use super::super::backlog::Backlog;
    use super::*;

    #[test]
    fn the_newest_message_of_each_channel_waits_and_the_others_are_counted() {
        let backlog = Backlog::new(1 << 20, 1 << 20);
        let at = Position { partition: Partition(0), offset: Offset(1), check: Check(2) };
        let frame = |text: &'static str| (backlog.frame(Bytes::from_static(text.as_bytes())), at);
        let mut latest = Latest::default();
        latest.put(1, frame("a3"), 3);
        latest.put(2, frame("b1"), 1);
        latest.put(1, frame("a4"), 1);
        latest.put(1, frame("a6"), 2);
        assert_eq!(latest.weight(), 2 * (2 + FRAME));
        let first = latest.take(1).expect("it waits");
        assert_eq!((&first.frame[..], first.skipped), (&b"a6"[..], 5), "six came, and one is left");
        assert!(latest.take(1).is_none());
        let rest = latest.take_all();
        assert_eq!(rest.values().map(|newest| newest.skipped).collect::<Vec<_>>(), [0]);
        assert_eq!(latest.weight(), 0);
    }
}
