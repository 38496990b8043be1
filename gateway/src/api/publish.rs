//! Publishes: `POST /v1/publish`, `/v1/batch` and `/v1/channels/{channel}/messages`.
//!
//! A message is answered with success only when the broker has it. What the gate refuses is refused before anything of the same
//! request is published.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::request::Parts;
use broker_adapters::{NewRecord, Payload, Position};
use futures_util::future::join_all;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Api;
use super::body::Kind;
use super::keys::Key;
use super::messages::{Common, Named, OneOfBatch, Written, WrittenBatch, check_key, parse};
use super::problem::{Problem, Reply, json_reply};
use crate::protocol::Failure;
use crate::protocol::native::{Object, payload};

/// The most channels of one publish, and the most messages of a batch.
const TOGETHER: usize = 1000;

/// Bytes of a body beside its messages.
const AROUND: usize = 16 << 10;

/// The most bytes of a batch.
const BATCH: usize = 8 << 20;

type Stored = Result<Option<Position>, Problem>;

impl Api {
    /// Publishes one message on one channel or on several.
    pub(super) async fn publish(&self, key: &Key, head: &Parts, body: Incoming) -> Result<Reply, Problem> {
        Kind::must_be_json(&head.headers)?;
        let (body, _room) = self.read(body, self.message_bytes() + AROUND).await?;
        let common = Common::of(key, &head.headers)?;
        let written: Written<'_> = parse(&body)?;
        let named = Named { key: common.key_of(written.key.as_deref())?, exclude: written.exclude.as_deref() };
        let channels = match (&written.channel, &written.channels) {
            (Some(channel), None) => {
                let record = self.message(&common, channel, payload(written.data), named)?;
                return self.store(record).await.map(|at| json_reply(StatusCode::OK, position(at)));
            }
            (None, Some(channels)) if (1..=TOGETHER).contains(&channels.len()) => channels,
            (None, Some(_)) => return Err(Problem::bad_request(format!("`channels` has 1 to {TOGETHER} names"))),
            _ => return Err(Problem::bad_request("send `channel` or `channels`, one of them")),
        };
        let records: Result<Vec<_>, _> =
            channels.iter().map(|channel| self.message(&common, channel, payload(written.data), named)).collect();
        let stored = join_all(records?.into_iter().map(|record| self.store(record))).await;
        let results: Vec<_> = channels
            .iter()
            .zip(&stored)
            .map(|(channel, stored)| {
                let mut result = outcome(stored);
                result["channel"] = channel.as_ref().into();
                result
            })
            .collect();
        together(stored, results.into())
    }

    /// Publishes several messages. The answer has the outcome of each, in their order.
    pub(super) async fn publish_batch(&self, key: &Key, head: &Parts, body: Incoming) -> Result<Reply, Problem> {
        Kind::must_be_json(&head.headers)?;
        let (body, _room) = self.read(body, BATCH.max(self.message_bytes() + AROUND)).await?;
        let common = Common::of(key, &head.headers)?;
        let WrittenBatch { messages } = parse(&body)?;
        if !(1..=TOGETHER).contains(&messages.len()) {
            return Err(Problem::bad_request(format!("`messages` has 1 to {TOGETHER} messages")));
        }
        let storing = messages.iter().enumerate().map(|(index, Object(written))| {
            // The publish begins here, so messages of one channel keep their order.
            let begun = self.one_of_batch(&common, index, written).map(|record| self.store(record));
            async move {
                match begun {
                    Ok(storing) => storing.await,
                    Err(problem) => Err(problem),
                }
            }
        });
        let stored = join_all(storing.collect::<Vec<_>>()).await;
        let results: Vec<_> = stored.iter().map(outcome).collect();
        Ok(json_reply(StatusCode::OK, json!({ "results": results }).to_string()))
    }

    fn one_of_batch(&self, common: &Common<'_>, index: usize, written: &OneOfBatch<'_>) -> Result<NewRecord, Problem> {
        let OneOfBatch { channel, data, key, exclude } = written;
        key.as_deref().map_or(Ok(()), check_key)?;
        let of_request = common.key.map(|key| Cow::Owned(format!("{key}/{index}")));
        let id = key.as_deref().map(Cow::Borrowed).or(of_request);
        self.message(common, channel, payload(data), Named { key: id.as_deref(), exclude: exclude.as_deref() })
    }

    /// Publishes the body as it is.
    pub(super) async fn publish_body(
        &self,
        key: &Key,
        head: &Parts,
        channel: &str,
        body: Incoming,
    ) -> Result<Reply, Problem> {
        let kind = Kind::of(&head.headers)?;
        let common = Common::of(key, &head.headers)?;
        let (body, _room) = self.read(body, self.message_bytes()).await?;
        let content = match kind {
            Kind::Json => payload(parse_value(&body)?),
            Kind::Text if std::str::from_utf8(&body).is_err() => {
                return Err(Problem::bad_request("the text is not UTF-8"));
            }
            Kind::Text => Payload::Text(body),
            Kind::Binary => Payload::Binary(body),
        };
        let record = self.message(&common, channel, content, Named { key: common.key, exclude: None })?;
        self.store(record).await.map(|at| json_reply(StatusCode::OK, position(at)))
    }

    /// Publishes a record. It has its place in the order when this returns; the future waits for the outcome.
    fn store(&self, record: NewRecord) -> impl Future<Output = Stored> + use<> {
        let deadline = Instant::now() + self.shared.config.broker.publish_timeout;
        let published = self.shared.log.publish(record, deadline);
        let metrics = Arc::clone(&self.shared.metrics);
        async move {
            let result = published.await;
            metrics.published(&result);
            result.map_err(|error| Problem::from(Failure::from(error)))
        }
    }

    fn message_bytes(&self) -> usize {
        self.shared.config.limits.message.bytes()
    }
}

fn parse_value(body: &[u8]) -> Result<&serde_json::value::RawValue, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))
}

/// A position as a document; RabbitMQ reports none.
fn position(at: Option<Position>) -> String {
    at.map_or_else(|| "{}".to_owned(), |at| format!("{{\"at\":\"{at}\"}}"))
}

fn outcome(stored: &Stored) -> Value {
    match stored {
        Ok(Some(at)) => json!({ "at": at.to_string() }),
        Ok(None) => json!({}),
        Err(problem) => json!({ "problem": problem.json() }),
    }
}

/// The answer to a publish on several channels. If only some have the message, a repeat with the same key completes it.
fn together(stored: Vec<Stored>, results: Value) -> Result<Reply, Problem> {
    let (count, mut problems) = (stored.len(), Vec::new());
    problems.extend(stored.into_iter().filter_map(Result::err));
    let Some(first) = problems.first() else {
        return Ok(json_reply(StatusCode::OK, json!({ "results": results }).to_string()));
    };
    let same = problems.len() == count && problems.iter().all(|problem| problem.status == first.status);
    if same {
        return Err(first.clone().with_results(results));
    }
    let detail = format!(
        "{} of {count} channels do not have the message, or may not: repeat the request with the same `Idempotency-Key`",
        problems.len()
    );
    Err(Problem::from(Failure::for_now("unknown", detail)).with_results(results))
}

#[cfg(test)]
mod tests {
    use broker_adapters::PublishError;

    use super::*;

    #[test]
    fn a_publish_on_several_channels_is_certain_only_if_all_have_the_same_outcome() {
        let ok = || Ok::<_, Problem>(None);
        let failed = |error: PublishError| Err(Problem::from(Failure::from(error)));
        let unavailable = || failed(PublishError::Unavailable);
        for (stored, status) in [
            (vec![ok(), ok()], 200),
            (vec![unavailable(), unavailable()], 503),
            (vec![ok(), unavailable()], 504),
            (vec![unavailable(), failed(PublishError::Rejected("no".into()))], 504),
            (vec![failed(PublishError::Unknown), ok()], 504),
        ] {
            let reply = together(stored, json!([])).unwrap_or_else(Problem::reply);
            assert_eq!(reply.status().as_u16(), status);
        }
    }
}
