//! The subscriptions of one connection: its seats in the hub.
//!
//! Pure. Owned by the connection. Sorted by channel, so that subscribing and unsubscribing stay fast with ten thousand
//! channels.

use super::hub::{ChannelId, Seat};

/// A seat, and the offset after which this connection receives all messages of the channel.
#[derive(Debug, Clone, Copy)]
struct Taken {
    seat: Seat,
    since: u64,
}

/// All seats of a connection.
#[derive(Debug, Default)]
pub(crate) struct Seats(Vec<Taken>);

impl Seats {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Seat> {
        self.0.iter().map(|taken| taken.seat)
    }

    /// The offset after which the connection receives all messages of a channel; `None` if it is not subscribed.
    pub(crate) fn since(&self, channel: ChannelId) -> Option<u64> {
        Some(self.0[self.find(channel).ok()?].since)
    }

    /// Adds a seat, in a channel in which the connection has none.
    pub(crate) fn take(&mut self, seat: Seat, since: u64) {
        let index = self.find(seat.channel).unwrap_or_else(|index| index);
        if self.0.len() == self.0.capacity() {
            // Most connections have one channel. The default growth would allocate four places.
            self.0.reserve_exact(self.0.len().max(1));
        }
        self.0.insert(index, Taken { seat, since });
    }

    /// Removes and returns the seat in a channel.
    pub(crate) fn leave(&mut self, channel: ChannelId) -> Option<Seat> {
        let index = self.find(channel).ok()?;
        Some(self.0.remove(index).seat)
    }

    /// Notes that the hub has moved the connection to another seat of the channel.
    pub(crate) fn moved(&mut self, to: Seat) {
        if let Ok(index) = self.find(to.channel) {
            self.0[index].seat = to;
        }
    }

    fn find(&self, channel: ChannelId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&channel, |taken| taken.seat.channel)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hub::Hub;
    use super::*;

    #[test]
    fn each_channel_has_one_seat_in_whatever_order_they_were_taken() {
        let (mut hub, mut seats) = (Hub::default(), Seats::default());
        let names = ["a", "b", "c", "d", "e"];
        let ids: Vec<_> = names.iter().map(|name| hub.subscribe(name, 1, false)).collect();
        for index in [3, 0, 4, 1, 2] {
            seats.take(ids[index], index as u64);
        }
        assert_eq!(seats.iter().collect::<Vec<_>>(), ids);
        assert_eq!(seats.leave(ids[3].channel), Some(ids[3]));
        assert_eq!(seats.leave(ids[3].channel), None);
        assert_eq!((seats.len(), seats.since(ids[4].channel), seats.since(ids[3].channel)), (4, Some(4), None));
        let second = hub.subscribe("a", 2, false);
        seats.moved(second);
        assert_eq!(seats.leave(ids[0].channel), Some(second));
    }
}
