//! Events that are sent together.

use bytes::Bytes;

use super::event::{Event, Mark};

/// The most events of a request, and about the most bytes.
pub(super) const EVENTS: usize = 100;
pub(super) const BYTES: usize = 256 << 10;

/// The events of one request, at least one. It stays the same when the request is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) first: Mark,
    pub(super) last: Mark,
    pub(super) count: usize,
    pub(super) body: Bytes,
}

impl Batch {
    /// Of the first of these events. `missed` earlier ones were given up.
    pub(super) fn of<'a>(events: impl Iterator<Item = &'a Event>, missed: u64) -> Option<Self> {
        let mut body = b"{\"events\":[".to_vec();
        let mut ends: Option<(Mark, Mark)> = None;
        let mut count = 0;
        for event in events.take(EVENTS) {
            if count > 0 && body.len() + event.json.len() > BYTES {
                break;
            }
            if count > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&event.json);
            ends = Some((ends.map_or(event.mark, |(first, _)| first), event.mark));
            count += 1;
        }
        body.push(b']');
        if missed > 0 {
            body.extend_from_slice(format!(",\"missed\":{missed}").as_bytes());
        }
        body.push(b'}');
        let (first, last) = ends?;
        Some(Self { first, last, count, body: body.into() })
    }

    /// The `webhook-id`: two batches that begin with the same event and have as many are the same.
    pub(super) fn id(&self) -> String {
        format!("{}-{}", self.first, self.count)
    }
}
