//! What a client of librdkafka reports besides records: the topic's id, and errors.
//!
//! When a topic is deleted and made anew under the same name, librdkafka goes on without an error, and would deliver the
//! new topic's records as if they followed the old one's. It gives the topic's id (KIP-516) only in a line of its debug
//! log, which is therefore read here. If that line ever changes, no reader opens.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode;

use super::known::Known;
use super::words;
use crate::broker::LinkError;
use crate::stored::position::Epoch;

/// The debug context that shows topic ids.
pub(super) const DEBUG: &str = "metadata";

/// What one client has reported so far.
pub(super) struct Watch {
    pub(super) topic: String,
    /// The beginning of the line that holds a topic's id.
    id_line: String,
    /// The first id, hashed; 0 before that.
    epoch: AtomicU64,
    /// Another id came later.
    replaced: AtomicBool,
    /// This client has not confirmed a record in time.
    suspect: AtomicBool,
    trouble: Mutex<Trouble>,
    pub(super) known: Arc<Known>,
}

#[derive(Default)]
struct Trouble {
    /// The last thing that went wrong.
    last: String,
    /// Why the client cannot work.
    serious: Option<LinkError>,
}

impl Watch {
    pub(super) fn new(topic: &str, known: Arc<Known>) -> Self {
        Self {
            topic: topic.to_owned(),
            id_line: format!("Topic {topic} changed id from "),
            epoch: AtomicU64::new(0),
            replaced: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            trouble: Mutex::default(),
            known,
        }
    }

    /// The identity of the topic, once it is known.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        Some(Epoch(self.epoch.load(Ordering::Acquire))).filter(|epoch| epoch.0 != 0)
    }

    /// Whether the topic is no longer the one it was. True before any record of the new one is handed out:
    /// log lines overtake records in the client's queue.
    pub(super) fn replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Why the client cannot work, since the last time this was asked.
    pub(super) fn take_trouble(&self) -> Option<LinkError> {
        self.trouble().serious.take()
    }

    /// The last thing that went wrong, for people.
    pub(super) fn last_trouble(&self) -> Option<String> {
        Some(self.trouble().last.clone()).filter(|why| !why.is_empty())
    }

    /// Something went wrong with sending: look before the next time.
    pub(super) fn set_doubt(&self) {
        self.known.doubt.store(true, Ordering::Release);
    }

    /// This client has not confirmed a record in time: replace it before the next one.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
        self.set_doubt();
    }

    /// Whether this client has not confirmed a record in time.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    fn saw_id(&self, from_to: &str) {
        let Some((_, id)) = from_to.split_once(" to ") else { return };
        let epoch = fnv1a(id).max(1);
        let before = self.epoch.swap(epoch, Ordering::AcqRel);
        if before != 0 && before != epoch {
            self.replaced.store(true, Ordering::Release);
            self.set_doubt();
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // `[thrd:main]: ` comes first.
        if let Some((_, from_to)) = line.split_once(&self.id_line) {
            self.saw_id(from_to);
        }
        // To librdkafka a connection that is closed at its start is no error.
        if facility == "FAIL"
            && self.epoch().is_none()
            && let Some(why) = words::never_served(line.split_once("]: ").map_or(line, |(_, said)| said))
        {
            self.trouble().last = why;
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(target: "librdkafka", facility, "{line}");
            }
            RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", facility, "{line}"),
            // If this ends a link, the link's error says it.
            _ => tracing::debug!(target: "librdkafka", facility, "{line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, Fatal, SSL, SaslAuthenticationFailed};
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        let mut trouble = self.trouble();
        match error.rdkafka_error_code() {
            Some(AllBrokersDown) => {
                let last = Some(trouble.last.as_str()).filter(|last| !last.is_empty());
                trouble.serious = Some(LinkError::new(last.unwrap_or("the connection is gone")));
            }
            Some(code @ (Authentication | SaslAuthenticationFailed | SSL | Fatal)) => {
                trouble.last = match code {
                    SSL => format!("TLS failed: {}", words::connection(reason)),
                    Fatal => format!("its client library cannot go on: {reason}"),
                    _ => words::log_in(reason),
                };
                trouble.serious = Some(LinkError::of(words::kind(code), &trouble.last));
            }
            _ => trouble.last = words::connection(reason),
        }
        if trouble.serious.is_some() {
            self.set_doubt();
        }
    }

    fn stats(&self, _: Statistics) {}
}

impl ConsumerContext for Watch {}

fn fnv1a(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn id_line(watch: &Watch, topic: &str, from: &str, to: &str) {
        let line = format!("[thrd:main]: Topic {topic} changed id from {from} to {to}");
        watch.log(RDKafkaLogLevel::Debug, "METADATA", &line);
    }

    #[test]
    fn a_topic_that_was_made_anew_is_noticed_by_its_id() {
        let watch = Watch::new("fanfare", Arc::default());
        id_line(&watch, "fanfare2", ZERO, "other");
        assert_eq!((watch.epoch(), watch.replaced()), (None, false));
        id_line(&watch, "fanfare", ZERO, "first");
        id_line(&watch, "fanfare", ZERO, "first");
        let first = watch.epoch();
        assert!(first.is_some() && !watch.replaced());
        id_line(&watch, "fanfare", "first", "second");
        assert!(watch.replaced() && watch.epoch().is_some() && watch.epoch() != first);
    }

    #[test]
    fn only_what_stops_the_client_is_trouble() {
        let known = Arc::<Known>::default();
        let watch = Watch::new("fanfare", Arc::clone(&known));
        let doubt = &known.doubt;
        let error = |code, reason| watch.error(KafkaError::Global(code), reason);
        error(RDKafkaErrorCode::BrokerTransportFailure, "b1: connection refused");
        assert_eq!((watch.take_trouble(), doubt.load(Ordering::Relaxed)), (None, false));
        error(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(watch.take_trouble(), Some(LinkError::new("b1: connection refused")));
        assert!(watch.take_trouble().is_none() && doubt.load(Ordering::Relaxed));
    }
}
