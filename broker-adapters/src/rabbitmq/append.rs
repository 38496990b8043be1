//! Appending: a batch is handed over as a whole and then waits for its confirms. Other batches may follow meanwhile.
//!
//! RabbitMQ returns a record that it cannot deliver, and then confirms it as well. The client library attaches returned
//! records to the next confirm of any batch, so all batches of a connection look for theirs in one list.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::{Instant, timeout_at};

use super::dial::Dialer;
use super::link::Link;
use super::url::Address;
use super::words::{self, explain, failed};
use crate::broker::{Append, AppendError, LinkError, LinkErrorKind, Stored};
use crate::line::Line;
use crate::stored::position::Partition;

/// How long RabbitMQ may owe a confirm, beside the time for the bytes under way.
const CONFIRM: Duration = Duration::from_secs(1);
/// The slowest network that is expected: 1 MB/s.
const PER_BYTE: Duration = Duration::from_micros(1);
/// No stream has this name: RabbitMQ returns records that are published to it.
const NOWHERE: &str = "nowhere";

type Outcome = Result<Stored, AppendError>;
type Confirm = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

/// The publishing side of a connection.
pub(super) struct Press {
    channel: Arc<Channel>,
    /// Its confirm shows that RabbitMQ takes publishes, before one that matters is under way.
    first: Option<Confirm>,
    /// When it is late.
    late: Instant,
    /// Confirms whose batches do not wait any more, and when each is late.
    owed: Vec<(Instant, Confirm)>,
}

/// A batch under way.
struct Sent<'a> {
    batch: &'a [Append],
    streams: HashMap<Partition, String>,
    /// The last one first.
    confirms: Vec<Confirm>,
    late: Instant,
}

pub(super) async fn append(line: &Line<Dialer>, batch: &[Append], deadline: Instant) -> Vec<Outcome> {
    let not_stored = |error: LinkError| vec![Err(AppendError::NotStored(error)); batch.len()];
    let (link, turn) = match line.turn(deadline).await {
        Ok(given) => given,
        Err(error) => return not_stored(error),
    };
    let sent = match timeout_at(deadline, send(&link, &line.dialer.address, batch)).await {
        Ok(Ok(sent)) => sent,
        Ok(Err(error)) => {
            if error.kind == LinkErrorKind::Refused {
                line.dialer.writes.refused(error.clone());
            }
            return not_stored(error);
        }
        Err(_) => return not_stored("RabbitMQ takes no publishes in time".into()),
    };
    let outcomes = sent.outcomes(&link, &line.dialer, deadline).await;
    turn.end(&outcomes);
    outcomes
}

/// Waits until RabbitMQ takes publishes, and hands the batch over behind all earlier ones.
async fn send<'a>(link: &Link, address: &Address, batch: &'a [Append]) -> Result<Sent<'a>, LinkError> {
    let mut guard = link.press.lock().await;
    let press = match guard.as_mut() {
        Some(press) => press,
        None => guard.insert(Press::start(link, address).await.inspect_err(|_| link.give_up())?),
    };
    press.look(link).await?;
    if link.blocked() {
        return Err(LinkError::new("RabbitMQ takes no publishes for now: its memory or disk is short"));
    }
    Ok(press.send(address, batch))
}

impl Press {
    async fn start(link: &Link, address: &Address) -> Result<Self, LinkError> {
        let channel = Arc::new(link.channel().await?);
        let selected = channel.confirm_select(ConfirmSelectOptions::default()).await;
        selected.map_err(|error| failed(&error))?;
        let first = Some(publish(&channel, format!("{}.{NOWHERE}", address.settings_stream()), Bytes::new()));
        Ok(Self { channel, first, late: Instant::now() + CONFIRM, owed: Vec::new() })
    }

    /// Waits for the first confirm, and gives the connection up when a confirm is late.
    async fn look(&mut self, link: &Link) -> Result<(), LinkError> {
        while let Some(first) = &mut self.first {
            match timeout_at(self.late, first).await {
                Ok(Ok(_)) => self.first = None,
                Ok(Err(error)) => {
                    link.give_up();
                    return Err(failed(&error));
                }
                Err(_) if link.blocked() => self.late = Instant::now() + CONFIRM,
                Err(_) => {
                    link.give_up();
                    return Err(LinkError::new("RabbitMQ confirms nothing"));
                }
            }
        }
        self.owed.retain_mut(|(_, confirm)| confirm.now_or_never().is_none());
        let now = Instant::now();
        if self.owed.iter().any(|(late, _)| *late <= now) && !link.blocked() {
            link.give_up();
            return Err(LinkError::new("RabbitMQ does not confirm any more"));
        }
        Ok(())
    }

    fn send<'a>(&self, address: &Address, batch: &'a [Append]) -> Sent<'a> {
        let mut streams = HashMap::new();
        let mut bytes = 0;
        let hand_over = batch.iter().map(|append| {
            bytes += append.bytes.len();
            let stream = streams.entry(append.partition).or_insert_with(|| address.stream(append.partition.0));
            publish(&self.channel, stream.clone(), append.bytes.clone())
        });
        let mut confirms: Vec<_> = hand_over.collect();
        confirms.reverse();
        let late = Instant::now() + CONFIRM + PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX);
        Sent { batch, streams, confirms, late }
    }
}

impl Sent<'_> {
    async fn outcomes(mut self, link: &Link, dialer: &Dialer, deadline: Instant) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(self.batch.len());
        let mut failed = false;
        let wait = async {
            while let Some(confirm) = self.confirms.last_mut() {
                let confirmed = confirm.await;
                self.confirms.pop();
                failed |= confirmed.is_err();
                outcomes.push(outcome(confirmed, link));
            }
        };
        // A confirm that has not come by then is late.
        let _ = timeout_at(deadline.min(self.late), wait).await;
        outcomes.resize(self.batch.len(), Err(AppendError::Unknown("RabbitMQ did not confirm in time".into())));
        self.mark_refused(dialer, &mut outcomes);
        let returned = self.mark_returned(link, &mut outcomes);
        let late = !self.confirms.is_empty() && self.late <= Instant::now() && !link.blocked();
        // A new connection has a new channel, and makes sure that all streams are there.
        if failed || late || returned {
            link.give_up();
        } else if !self.confirms.is_empty()
            && let Some(press) = link.press.lock().await.as_mut()
        {
            press.owed.extend(self.confirms.drain(..).map(|confirm| (self.late, confirm)));
        }
        outcomes
    }

    /// Notes whether RabbitMQ takes what this node writes. A record that closed the channel by its size is not taken
    /// later either; the others on their way may be.
    fn mark_refused(&self, dialer: &Dialer, outcomes: &mut [Outcome]) {
        let said = |outcome: &Outcome| match outcome {
            Err(AppendError::Unknown(said)) => Some(said.clone()),
            _ => None,
        };
        let said: Vec<_> = outcomes.iter().filter_map(said).collect();
        if let Some(why) = said.iter().find(|said| words::is_refusal(said)) {
            dialer.writes.refused(LinkError::refused(why));
        } else if outcomes.iter().any(Result::is_ok) {
            dialer.writes.stored();
        }
        let Some(most) = said.iter().find_map(|said| words::largest_message(said)) else { return };
        for (append, outcome) in self.batch.iter().zip(outcomes).filter(|(append, _)| append.bytes.len() > most) {
            let why = format!(
                "RabbitMQ takes at most {most} bytes (its `max_message_size`), and this has {}",
                append.bytes.len()
            );
            *outcome = Err(AppendError::Rejected(why));
        }
    }

    /// Whether anything came back; the outcome of what did is set right.
    fn mark_returned(&self, link: &Link, outcomes: &mut [Outcome]) -> bool {
        let returned = link.returned.lock().unwrap_or_else(PoisonError::into_inner);
        if !returned.is_empty() {
            for (append, outcome) in self.batch.iter().zip(outcomes) {
                let stream = &self.streams[&append.partition];
                if outcome.is_ok() && returned.iter().any(|back| is(back, stream, append)) {
                    *outcome = Err(AppendError::NotStored(format!("there is no stream `{stream}`").into()));
                }
            }
        }
        !returned.is_empty()
    }
}

fn outcome(confirmed: lapin::Result<Confirmation>, link: &Link) -> Outcome {
    match confirmed {
        Ok(Confirmation::Ack(back)) => {
            if let Some(back) = back {
                link.returned.lock().unwrap_or_else(PoisonError::into_inner).push(back);
            }
            Ok(Stored { at: None })
        }
        // Some of the stream's replicas may have it.
        Ok(_) => Err(AppendError::Unknown("RabbitMQ refused to confirm".into())),
        Err(error) => Err(AppendError::Unknown(explain(&error))),
    }
}

fn is(back: &BasicReturnMessage, stream: &str, append: &Append) -> bool {
    back.delivery.routing_key.as_str() == stream && back.delivery.data == append.bytes
}

/// Hands one record to the connection, behind all earlier ones, and gives what waits for its confirm.
fn publish(channel: &Arc<Channel>, stream: String, bytes: Bytes) -> Confirm {
    let channel = Arc::clone(channel);
    let mut confirm: Confirm = Box::pin(async move {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default();
        channel.basic_publish("".into(), stream.into(), options, &bytes, properties).await?.await
    });
    // The first poll hands it over.
    match confirm.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => confirm,
        Poll::Ready(done) => Box::pin(std::future::ready(done)),
    }
}
