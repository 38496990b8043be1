//! Whether an existing topic holds Fanfare's log, so that Fanfare never writes among another program's records.
//!
//! A log is known by its records: an envelope at the end or at the beginning of any partition. An empty topic is free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::Consumer;
use tokio::runtime::Handle;

use super::dial::Dialer;
use super::link::{Extent, Link};
use super::words::failed;
use crate::broker::LinkError;
use crate::stored::envelope;
use crate::stored::position::Partition;

/// How long Kafka has to show a record of each partition.
const SHOW: Duration = Duration::from_millis(1500);
const GLANCE: Duration = Duration::from_millis(50);

/// What the records that were read belong to.
enum Shown {
    Ours,
    Others,
    /// Not a record of each partition came in time.
    TooFew,
}

/// Finds out whether this node may write to the topic.
pub(super) fn examine(link: &Link, runtime: &Handle, until: Instant) -> Result<(), LinkError> {
    let dialer = &link.dialer;
    let name = &dialer.address.topic;
    let left = || until.saturating_duration_since(Instant::now());
    let metadata = link.consumer.client().fetch_metadata(Some(name), left());
    let metadata = metadata.map_err(|error| dialer.named(failed(&error)))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let topic = topic.ok_or_else(|| dialer.named("it does not speak of the topic"))?;
    dialer.check_settings(topic, runtime, until)?;
    if dialer.address.adopt {
        return Ok(());
    }
    let partitions: Vec<_> = (0..dialer.partitions).map(Partition).collect();
    let extents = link.extents(&partitions, until)?;
    let filled = partitions.into_iter().zip(extents).filter(|(_, extent)| extent.first < extent.next);
    let filled: Vec<_> = filled.collect();
    // The newest ones first: a log in use ends with Fanfare's records, even if others stand between.
    let places: [fn(&Extent) -> u64; 2] = [|extent| extent.next - 1, |extent| extent.first];
    for place in places {
        match shown(dialer, &filled, place, runtime, until)? {
            Shown::Ours => return Ok(()),
            Shown::Others => {}
            Shown::TooFew => {
                let why = format!("topic `{name}` did not show its records in time: it may be another program's");
                return Err(dialer.named(why));
            }
        }
    }
    Err(dialer.named(LinkError::set_up(format!(
        "topic `{name}` holds records of another program, and nothing was written to it: name another topic in the \
         broker's URL, or add `adopt=true` to it if Fanfare is to write there too"
    ))))
}

/// Looks at one record of each partition, until one is ours. On a client of its own, which is assigned once.
fn shown(
    dialer: &Arc<Dialer>,
    filled: &[(Partition, Extent)],
    place: fn(&Extent) -> u64,
    runtime: &Handle,
    until: Instant,
) -> Result<Shown, LinkError> {
    let mut waiting: Vec<_> = filled.iter().map(|(partition, _)| i32::from(partition.0)).collect();
    if waiting.is_empty() {
        return Ok(Shown::Ours);
    }
    let link = Link::connect(Arc::clone(dialer), false, runtime, until)?;
    link.assign(filled.iter().map(|(partition, extent)| (*partition, place(extent))))?;
    let until = until.min(Instant::now() + SHOW);
    while !waiting.is_empty() && Instant::now() < until {
        match link.consumer.poll(GLANCE) {
            Some(Ok(message)) if envelope::is_ours(message.payload().unwrap_or_default()) => {
                return Ok(Shown::Ours);
            }
            Some(Ok(message)) => waiting.retain(|partition| *partition != message.partition()),
            Some(Err(error)) => link.judge(&error)?,
            None => {}
        }
    }
    Ok(if waiting.is_empty() { Shown::Others } else { Shown::TooFew })
}
