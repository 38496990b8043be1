//! Copies of envelopes out of a client library's or a connection's buffer. Small ones share an allocation.

use bytes::{Bytes, BytesMut};

/// Bytes that share an allocation.
const SHARED: usize = 16 << 10;

/// Makes copies, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Copies(BytesMut);

impl Copies {
    pub(crate) fn of(&mut self, bytes: &[u8]) -> Bytes {
        // A copy keeps the whole allocation alive, so it may not be large, nor be wasted on one.
        if bytes.len() > SHARED / 4 {
            return Bytes::copy_from_slice(bytes);
        }
        if self.0.capacity() < bytes.len() {
            self.0 = BytesMut::with_capacity(SHARED);
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_hold_what_they_were_made_of_and_small_ones_lie_side_by_side() {
        let mut copies = Copies::default();
        let sizes = [0, 1, 100, SHARED / 4, SHARED / 4 + 1, 7, SHARED, 4000, 4000, 4000, 4000, 4000];
        let made: Vec<_> = (0_u8..).zip(sizes).map(|(byte, size)| copies.of(&vec![byte; size])).collect();
        for ((byte, size), copy) in (0_u8..).zip(sizes).zip(&made) {
            assert_eq!(copy, &vec![byte; size]);
        }
        let end = |copy: &Bytes| copy.as_ptr_range().end;
        assert_eq!((end(&made[1]), end(&made[2])), (made[2].as_ptr(), made[3].as_ptr()));
        assert_eq!(end(&made[3]), made[5].as_ptr(), "a large one has an allocation of its own");
    }
}
