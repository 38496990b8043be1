//! The producer: made when first needed, checked when it may have failed, replaced when it is of no more use.
//!
//! librdkafka keeps its records through reconnects, and does not say whether a record was ever sent. So a record is
//! handed over only while Kafka is known to answer. A record that still waits is surely not stored. What is under way with
//! a producer that is given up ends at once, as unknown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::append::Ticket;
use super::dial::Dialer;
use super::known::Known;
use super::read;
use super::watch::Watch;
use crate::broker::{Append, LinkError};
use crate::stored::position::Epoch;
use crate::turns::{Turn, Turns};

/// The longest that one look may take; reconnecting goes on in between.
const LOOK: Duration = Duration::from_secs(4);

/// A producer. Dropping it ends what is under way.
pub(super) struct Writer {
    topic: String,
    /// Bytes of its largest batch.
    batch: usize,
    /// `None` only while it is dropped.
    producer: Option<ThreadedProducer<Watch>>,
}

impl Writer {
    /// Puts one record behind all earlier ones.
    pub(super) fn send(&self, append: &Append, ticket: Ticket) -> Result<(), KafkaError> {
        let Some(producer) = &self.producer else { return Err(KafkaError::Canceled) };
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(&self.topic, Box::new(ticket))
            .partition(append.partition.0.into())
            .payload(&append.bytes);
        producer.send(record).map_err(|(error, _)| error)
    }

    /// It is replaced before the next record.
    fn suspect(&self) {
        if let Some(producer) = &self.producer {
            producer.client().context().suspect();
        }
    }

    /// Whether it is of use: it is whole, its batches fit into the topic, and the topic is the one that it was made for.
    fn works(&self, dialer: &Dialer) -> bool {
        self.batch == dialer.known.batch() && self.is_whole() && self.is_for(&dialer.known)
    }

    /// Whether it was made for the topic as it is. librdkafka notices a topic that was made anew only after minutes, and would
    /// confirm the new topic's records under the old one's id.
    fn is_for(&self, known: &Known) -> bool {
        self.producer.as_ref().is_some_and(|producer| {
            let watch = producer.client().context();
            let examined = |epoch| !known.is_any_good() || known.is_good(epoch);
            !watch.replaced() && watch.epoch().is_none_or(examined)
        })
    }

    /// Whether its numbering of records is not broken and it has confirmed all records in time: after that it may never send one
    /// again, though Kafka answers it otherwise.
    fn is_whole(&self) -> bool {
        self.producer.as_ref().is_some_and(|producer| {
            let client = producer.client();
            client.fatal_error().is_none() && !client.context().is_suspect()
        })
    }

    /// Ends all records that it still has. Does not wait: the outcomes come as those of other records do. Even one that
    /// librdkafka has queued may have been sent before.
    fn give_up(&self) {
        if let Some(producer) = &self.producer {
            producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
        }
    }

    /// Ends all records of a producer that cannot be relied on, so that they can be sent again with another one.
    pub(super) fn give_up_unless_whole(&self) {
        if !self.is_whole() {
            self.give_up();
        }
    }

    /// Checks that Kafka answers it, and gives the topic's epoch.
    fn look(&self, dialer: &Dialer, runtime: &Handle, until: std::time::Instant) -> Result<Option<Epoch>, LinkError> {
        let Some(producer) = &self.producer else { return Err(LinkError::new("closed")) };
        let watch = producer.client().context();
        // Trouble from before this check does not count.
        watch.take_trouble();
        dialer.agree(producer.client(), watch, || (), runtime, until)?;
        Ok(watch.epoch())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It takes up to half a second to end a producer.
        if let Some(producer) = self.producer.take() {
            let ending = std::thread::Builder::new().name("kafka-ending".into()).spawn(move || drop(producer));
            if let Err(error) = ending {
                tracing::warn!(%error, "no thread for ending a producer");
            }
        }
    }
}

type Looked = (Option<Arc<Writer>>, Result<(), LinkError>);

/// A place for the producer.
pub(super) struct Line {
    dialer: Arc<Dialer>,
    state: Mutex<State>,
    turns: Turns,
}

#[derive(Default)]
struct State {
    writer: Option<Arc<Writer>>,
    /// A look under way; it has the writer.
    look: Option<JoinHandle<Looked>>,
    /// The last failure, shared by all who waited for it.
    failed: Option<(Instant, LinkError)>,
    closed: bool,
}

impl State {
    fn drop_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.give_up();
        }
        // The producer that it has is not used again.
        self.look = None;
    }
}

impl Line {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer, state: Mutex::default(), turns: Turns::default() }
    }

    /// The producer, when Kafka is known to answer it, for an append that must not overtake those before it. An error
    /// means that nothing was sent.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<(Arc<Writer>, Turn), LinkError> {
        let asked = Instant::now();
        let late = |_| LinkError::new("no connection to Kafka in time");
        // Fair: the first caller sends first.
        let mut state = timeout_at(deadline, self.state.lock()).await.map_err(late)?;
        if state.closed {
            return Err(LinkError::new("closed"));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        if let Some(writer) = &state.writer
            && !self.dialer.known.doubt.load(Ordering::Acquire)
        {
            return Ok((Arc::clone(writer), self.turns.take(asked).await?));
        }
        if state.look.is_none() {
            if !state.writer.as_ref().is_some_and(|writer| writer.works(&self.dialer)) {
                // A whole one, whose batches have the wrong size, may still confirm what it has.
                state.writer.iter().for_each(|writer| writer.give_up_unless_whole());
                timeout_at(deadline, self.turns.all_ended(asked)).await.map_err(late)??;
            }
            state.look = Some(self.look(state.writer.take()));
        }
        let Some(look) = state.look.as_mut() else { return Err(LinkError::new("closed")) };
        let looked = timeout_at(deadline, look).await.map_err(late)?;
        state.look = None;
        let (writer, result) = looked.map_err(LinkError::new)?;
        state.writer = writer;
        match (result, &state.writer) {
            (Ok(()), Some(writer)) => Ok((Arc::clone(writer), self.turns.take(asked).await?)),
            (result, _) => {
                let error = result.err().unwrap_or_else(|| LinkError::new("no producer"));
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Looks whether Kafka answers, beside the waiting: an append that gives up leaves it to the next one.
    fn look(&self, writer: Option<Arc<Writer>>) -> JoinHandle<Looked> {
        let (dialer, runtime) = (Arc::clone(&self.dialer), Handle::current());
        tokio::task::spawn_blocking(move || {
            dialer.known.doubt.store(false, Ordering::Release);
            let (writer, result) = look(&dialer, writer, &runtime);
            if result.is_err() {
                dialer.known.doubt.store(true, Ordering::Release);
            }
            (writer, result)
        })
    }

    /// A producer has not confirmed a batch for too long.
    pub(super) fn suspect(&self, writer: &Writer) {
        self.dialer.known.writes.failed();
        writer.suspect();
    }

    /// Look before the next record.
    pub(super) fn doubt(&self) {
        self.dialer.known.doubt.store(true, Ordering::Release);
    }

    /// The next append makes a new producer. Records under way with this one end as unknown.
    pub(super) async fn renew(&self) {
        self.state.lock().await.drop_writer();
    }

    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        state.drop_writer();
    }
}

/// Finds out whether a producer can write to a topic that was examined; makes the producer where it is missing.
fn look(dialer: &Arc<Dialer>, writer: Option<Arc<Writer>>, runtime: &Handle) -> Looked {
    let until = std::time::Instant::now() + LOOK;
    // The first producer is made for the topic as it is.
    if !dialer.known.is_any_good()
        && let Err(error) = read::examine(dialer, runtime, until)
    {
        return (writer, Err(error));
    }
    let made = || {
        let batch = dialer.known.batch();
        let producer = Some(dialer.producer(batch)?);
        Ok(Arc::new(Writer { topic: dialer.address.topic.clone(), batch, producer }))
    };
    let writer = match writer.filter(|writer| writer.works(dialer)).map_or_else(made, Ok) {
        Ok(writer) => writer,
        Err(error) => return (None, Err(error)),
    };
    let result = match writer.look(dialer, runtime, until) {
        Ok(Some(epoch)) if dialer.known.is_good(epoch) => Ok(()),
        Ok(_) => read::examine(dialer, runtime, until),
        Err(error) => Err(error),
    };
    (Some(writer), result)
}
