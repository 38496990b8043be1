//! The subscriptions of one connection: its seats in the hub.
//!
//! Pure. Owned by the connection. Sorted by channel, so that subscribing and unsubscribing stay fast with ten thousand
//! channels. Most connections have one channel, and then own no memory besides this.

use std::slice;

use super::hub::{ChannelId, Seat};

/// A seat, and the offset after which this connection receives all messages of the channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    seat: Seat,
    since: u64,
}

/// All seats of a connection.
#[derive(Debug, Default)]
pub(crate) enum Seats {
    #[default]
    None,
    One(Taken),
    Many(Vec<Taken>),
}

impl Seats {
    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Seat> {
        self.all().iter().map(|taken| taken.seat)
    }

    /// The offset after which the connection receives all messages of a channel; `None` if it is not subscribed.
    pub(crate) fn since(&self, channel: ChannelId) -> Option<u64> {
        Some(self.all()[self.find(channel).ok()?].since)
    }

    /// Adds a seat, in a channel in which the connection has none.
    pub(crate) fn take(&mut self, seat: Seat, since: u64) {
        let (index, taken) = (self.find(seat.channel).unwrap_or_else(|index| index), Taken { seat, since });
        match self {
            Self::None => *self = Self::One(taken),
            Self::One(other) => {
                let mut all = vec![*other];
                all.insert(index, taken);
                *self = Self::Many(all);
            }
            Self::Many(all) => all.insert(index, taken),
        }
    }

    /// Removes and returns the seat in a channel.
    pub(crate) fn leave(&mut self, channel: ChannelId) -> Option<Seat> {
        let index = self.find(channel).ok()?;
        match self {
            Self::Many(all) => Some(all.remove(index).seat),
            one => std::mem::take(one).iter().next(),
        }
    }

    /// Notes that the hub has moved the connection to another seat of the channel.
    pub(crate) fn moved(&mut self, to: Seat) {
        if let Ok(index) = self.find(to.channel) {
            self.all_mut()[index].seat = to;
        }
    }

    fn find(&self, channel: ChannelId) -> Result<usize, usize> {
        self.all().binary_search_by_key(&channel, |taken| taken.seat.channel)
    }

    fn all(&self) -> &[Taken] {
        match self {
            Self::None => &[],
            Self::One(taken) => slice::from_ref(taken),
            Self::Many(all) => all,
        }
    }

    fn all_mut(&mut self) -> &mut [Taken] {
        match self {
            Self::None => &mut [],
            Self::One(taken) => slice::from_mut(taken),
            Self::Many(all) => all,
        }
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

    #[test]
    fn the_only_seat_takes_no_memory_of_its_own() {
        let (mut hub, mut seats) = (Hub::default(), Seats::default());
        let seat = hub.subscribe("a", 1, false);
        assert_eq!((seats.is_empty(), seats.leave(seat.channel)), (true, None));
        seats.take(seat, 7);
        assert!(matches!(seats, Seats::One(_)) && size_of::<Seats>() == 24, "{}", size_of::<Seats>());
        let moved = hub.subscribe("a", 2, false);
        seats.moved(moved);
        assert_eq!((seats.len(), seats.since(seat.channel)), (1, Some(7)));
        assert_eq!((seats.leave(seat.channel), seats.is_empty()), (Some(moved), true));
    }
}
