//! Appending: records are handed to librdkafka in order, which reports the outcome of each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::line::Line;
use super::watch::Watch;
use super::words;
use crate::broker::{Append, AppendError, LinkError, Stored};
use crate::stored::position::Offset;

/// A producer that has not confirmed a batch for so long is replaced, if Kafka answers.
const STUCK: Duration = Duration::from_millis(1900);

/// The longest that a batch waits for its confirmation. After this its outcome is unknown, and the publisher tries again.
const LONGEST: Duration = Duration::from_secs(3);

type Outcome = Result<Stored, AppendError>;

pub(super) async fn append(line: &Line, batch: &[Append], deadline: Instant) -> Vec<Outcome> {
    let (writer, turn) = match line.turn(deadline).await {
        Ok(given) => given,
        Err(error) => return batch.iter().map(|_| Err(AppendError::NotStored(error.clone()))).collect(),
    };
    let (pending, done) = Pending::new(batch.len());
    let mut full = None;
    for (index, append) in batch.iter().enumerate() {
        // Nothing overtakes a record that was not taken.
        let sent = match &full {
            Some(error) => Err(AppendError::clone(error)),
            None => writer.send(append, Ticket { of: Arc::clone(&pending), index }).map_err(|error| {
                if !matches!(error.rdkafka_error_code(), Some(Code::MessageSizeTooLarge | Code::QueueFull)) {
                    line.doubt();
                }
                not_taken(&error)
            }),
        };
        if let Err(error) = sent {
            if matches!(error, AppendError::NotStored(_)) {
                full = Some(error.clone());
            }
            pending.settle(index, Err(error));
        }
    }
    // Answers that came before the deadline count, even if others are late.
    let sent = Instant::now();
    if timeout_at(deadline.min(sent + LONGEST), done).await.is_err() && sent.elapsed() >= STUCK {
        line.suspect(&writer);
    }
    let outcomes = pending.outcomes();
    turn.end(&outcomes);
    // The publisher sends nothing again before all that is under way has ended.
    writer.give_up_unless_whole();
    outcomes
}

/// A batch under way.
#[derive(Debug)]
pub(super) struct Pending {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    done: Option<oneshot::Sender<()>>,
}

impl Pending {
    fn new(count: usize) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (done, all) = oneshot::channel();
        let done = (count > 0).then_some(done);
        (Arc::new(Self { state: Mutex::new(State { outcomes: vec![None; count], left: count, done }) }), all)
    }

    fn settle(&self, index: usize, outcome: Outcome) {
        let mut state = self.lock();
        if let Some(place @ None) = state.outcomes.get_mut(index) {
            *place = Some(outcome);
            state.left -= 1;
        }
        if state.left == 0
            && let Some(done) = state.done.take()
        {
            // The caller may not wait any more.
            let _ = done.send(());
        }
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let outcomes = std::mem::take(&mut self.lock().outcomes);
        let unknown = || Err(AppendError::Unknown("no confirmation in time".into()));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unknown)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes with a record through librdkafka.
#[derive(Debug)]
pub(super) struct Ticket {
    of: Arc<Pending>,
    index: usize,
}

impl ProducerContext for Watch {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let outcome = match result {
            Ok(message) => {
                self.known.writes.stored();
                let offset = u64::try_from(message.offset()).ok();
                let place = |offset: u64| Some((self.epoch()?, Offset(offset.saturating_add(1))));
                Ok(Stored { at: offset.and_then(place) })
            }
            Err((error, message)) => {
                self.set_doubt();
                Err(self.judge(error, message.payload_len()))
            }
        };
        ticket.of.settle(ticket.index, outcome);
    }
}

impl Watch {
    /// The outcome of a record of this many bytes after an error, and what it means for later records.
    fn judge(&self, error: &KafkaError, bytes: usize) -> AppendError {
        let code = error.rdkafka_error_code();
        if let Some(refusal) = code.and_then(|code| words::refusal(code, &self.topic)) {
            self.known.writes.refused(refusal.clone());
            self.known.examine_again();
            return AppendError::NotStored(refusal);
        }
        match (code, self.known.largest()) {
            (Some(Code::MessageSizeTooLarge), Some(most)) if bytes <= most => {
                // It was the batch, because the topic takes less than it did: in a smaller one it may fit.
                self.known.examine_again();
                AppendError::Unknown(error.to_string())
            }
            // This node gave its producer up, which says nothing of Kafka.
            (Some(Code::MessageSizeTooLarge | Code::PurgeQueue | Code::PurgeInflight), _) => not_confirmed(error),
            _ => {
                self.known.writes.failed();
                self.suspect();
                not_confirmed(error)
            }
        }
    }
}

/// librdkafka did not take a record: it is surely not stored.
fn not_taken(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge) => AppendError::Rejected(error.to_string()),
        _ => AppendError::NotStored(LinkError::new(error)),
    }
}

/// A record was taken and then not confirmed. Any try before the last one may have stored it, so only refusals that hold
/// for every try are certain.
fn not_confirmed(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::PolicyViolation) => AppendError::Rejected(error.to_string()),
        _ => AppendError::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_is_done_when_every_record_is_settled() {
        let (pending, done) = Pending::new(2);
        let stored = Ok(Stored { at: None });
        pending.settle(1, stored.clone());
        pending.settle(1, Err(AppendError::NotStored("a second answer counts for nothing".into())));
        assert_eq!(pending.lock().left, 1);
        pending.settle(0, stored.clone());
        done.await.expect("it is done");
        assert_eq!(pending.outcomes(), [stored.clone(), stored]);
    }

    #[test]
    fn what_is_not_confirmed_is_unknown() {
        let (pending, _done) = Pending::new(1);
        assert!(matches!(pending.outcomes()[..], [Err(AppendError::Unknown(_))]));
        pending.settle(0, Ok(Stored { at: None }));
        let purged = [Code::PurgeQueue, Code::PurgeInflight];
        for code in
            [Code::MessageTimedOut, Code::NotEnoughReplicas, Code::UnknownTopicOrPartition].into_iter().chain(purged)
        {
            assert!(matches!(not_confirmed(&KafkaError::MessageProduction(code)), AppendError::Unknown(_)), "{code}");
        }
        let large = KafkaError::MessageProduction(Code::MessageSizeTooLarge);
        assert!(matches!(not_confirmed(&large), AppendError::Rejected(_)));
        assert!(matches!(not_taken(&KafkaError::MessageProduction(Code::QueueFull)), AppendError::NotStored(_)));
    }
}
