//! A run of a cluster on one channel, judged by the [law]: nothing lost without a mark, one order for all.
//!
//! Publishes are recorded as they happen, and what clients saw when the run is judged. A connection that has ended is
//! a mark: its client knows that it has missed something, and so does a client that came later. A client that comes
//! back with a position is judged by all that it saw, over all its connections ([`Returning`](crate::Returning)).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use law::History;
pub use law::{Met, Outcome, Report};

use crate::client::{Client, Frame};

/// What happens on one channel.
#[derive(Debug)]
pub struct Run {
    channel: String,
    publishes: History,
    longest: Mutex<Duration>,
}

impl Run {
    /// A run on this channel.
    #[must_use]
    pub fn on(channel: &str) -> Self {
        Self { channel: channel.to_owned(), publishes: History::default(), longest: Mutex::default() }
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The longest that a publish took so far.
    #[must_use]
    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes on the channel, as a client that may or may not be subscribed. Payloads must be unique.
    pub async fn publish(&self, client: &Client, payload: &str) -> Result<Outcome> {
        let publish = self.publishes.publish(&self.channel, payload);
        let begin = Instant::now();
        let outcome = client.publish(&self.channel, payload).await?;
        self.publishes.ended(publish, outcome);
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = longest.max(begin.elapsed());
        Ok(outcome)
    }

    /// Judges clients that were there from the start, and clients that came later; prints the numbers.
    pub fn judge<'a>(
        &self,
        clients: impl IntoIterator<Item = &'a Client>,
        late: impl IntoIterator<Item = &'a Client>,
    ) -> Report {
        let views = clients.into_iter().map(|client| self.view(client));
        let late = late.into_iter().map(|client| [vec![Met::Mark], self.view(client)].concat());
        let report = self.judge_views(views.chain(late));
        println!("{}: {report}", self.channel);
        report
    }

    /// What a client met that was there from the start.
    #[must_use]
    pub fn view(&self, client: &Client) -> Vec<Met> {
        let mut view: Vec<_> = client.frames().iter().filter_map(|frame| met(&self.channel, frame)).collect();
        if !client.is_open() {
            view.push(Met::Mark);
        }
        view
    }

    /// Judges views.
    pub fn judge_views(&self, views: impl Iterator<Item = Vec<Met>>) -> Report {
        self.publishes.report_of(&self.channel, views)
    }
}

/// What a frame is on a channel; `None` if it does not concern that channel.
#[must_use]
pub fn met(channel: &str, frame: &Frame) -> Option<Met> {
    match frame {
        Frame::Message { channel: found, data, .. } if found == channel => Some(Met::Message(data.clone())),
        Frame::Lost { channel: found, .. } if found == channel => Some(Met::Mark),
        _ => None,
    }
}

/// The offset in a position. Only for judges: positions are opaque to clients.
pub fn offset(position: &str) -> Result<u64> {
    Ok(parts(position)?.0)
}

/// Offset, partition and fingerprint of a position.
pub fn parts(position: &str) -> Result<(u64, u16, u64)> {
    let known = || {
        let [first, partition, check] = position.split('.').collect::<Vec<_>>().try_into().ok()?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        Some((hex(first.get(1..)?)?, u16::from_str_radix(partition, 16).ok()?, hex(check)?))
    };
    known().with_context(|| format!("{position:?} is not a position"))
}

/// A position as earlier builds wrote it, which nodes still understand.
#[must_use]
pub fn earlier_text((offset, partition, check): (u64, u16, u64)) -> String {
    format!("{check:x}-{partition:x}-{offset:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_positions_can_be_compared() -> Result<()> {
        assert!(offset("1ff.2.ab")? < offset("2100.2.9")?);
        assert!(offset("somewhere").is_err());
        Ok(())
    }
}
