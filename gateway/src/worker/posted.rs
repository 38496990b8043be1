//! A message that a client publishes with one HTTP request, without a connection of its own.

use std::sync::Arc;

use broker_adapters::{MessageId, NewRecord, Payload, Position};
use tokio::time::Instant;

use super::Worker;
use crate::door::ingress::Client;
use crate::gate::{Identity, Permission, Question, Verb};
use crate::protocol::{Failure, message_id};

/// A message to publish.
pub(crate) struct Posted {
    pub(crate) channel: String,
    pub(crate) payload: Payload,
    pub(crate) key: Option<String>,
}

impl Worker {
    /// Publishes a message and waits for the broker. Counts for the limits of the client's user and address.
    pub(crate) async fn publish_posted(
        &self,
        identity: &Arc<Identity>,
        client: Client,
        posted: Posted,
    ) -> Result<Option<Position>, Failure> {
        let Posted { channel, payload, key } = posted;
        self.take_visit(identity, client, Verb::Publish, 1)?;
        let question = Question::Publish { channel: &channel, payload: &payload };
        let Permission { policy, payload: other } = self.permission(identity, question).await?;
        if let Some(rule) = policy.rate {
            self.take_rule_visit(identity, client, rule)?;
        }
        let message = key.map_or_else(MessageId::random, |key| message_id(&channel, &key));
        let mut record = NewRecord::new(message, channel, other.unwrap_or(payload));
        if policy.tell_publisher {
            // Each request is a client of its own.
            record.extensions = self.publisher(Some(identity), self.next_serial());
        }
        let deadline = Instant::now() + self.shared.config.broker.publish_timeout;
        let result = self.shared.log.publish(record, deadline).await;
        self.shared.metrics.published(&result);
        result.map_err(Failure::from)
    }
}
