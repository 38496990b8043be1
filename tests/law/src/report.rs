//! The verdict on a run, and its numbers.

use std::fmt;
use std::ops::AddAssign;

/// The verdict, and its numbers over all readers.
#[derive(Debug, Default)]
pub struct Report {
    /// Acknowledged publishes.
    pub acked: usize,
    /// Messages seen.
    pub delivered: usize,
    /// Messages seen again.
    pub duplicate: usize,
    /// Marks seen.
    pub lost_marked: usize,
    /// Acknowledged messages that a reader missed without a mark.
    pub silent_loss: usize,
    /// Every breach of a rule, in words.
    pub breaches: Vec<String>,
}

impl Report {
    /// Panics unless all rules were kept.
    #[track_caller]
    pub fn assert_lawful(&self) {
        assert!(self.breaches.is_empty(), "{self}");
    }

    /// Panics unless all rules were kept and no reader met a mark.
    #[track_caller]
    pub fn assert_whole(&self) {
        self.assert_lawful();
        assert_eq!(self.lost_marked, 0, "{self}: marks where nothing may be lost");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, delivered, duplicate, lost_marked, silent_loss, breaches } = self;
        write!(f, "acked {acked}, delivered {delivered}, duplicate {duplicate}, ")?;
        write!(f, "lost-marked {lost_marked}, silent-loss {silent_loss}")?;
        breaches.iter().take(10).try_for_each(|breach| write!(f, "\n  {breach}"))?;
        if breaches.len() > 10 { write!(f, "\n  and {} more", breaches.len() - 10) } else { Ok(()) }
    }
}

/// The numbers of several runs together.
impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.duplicate += other.duplicate;
        self.lost_marked += other.lost_marked;
        self.silent_loss += other.silent_loss;
        self.breaches.extend(other.breaches);
    }
}
