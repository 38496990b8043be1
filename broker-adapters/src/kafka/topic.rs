//! The topic: made as the URL says where it is missing, and its settings looked at before anything is written to it.

use std::time::Instant;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::runtime::Handle;

use super::dial::Dialer;
use super::url::{Address, Retention};
use super::words::{self, failed};
use crate::broker::LinkError;

impl Dialer {
    pub(super) fn make_topic(&self, brokers: usize, runtime: &Handle, until: Instant) -> Result<(), LinkError> {
        let Address { topic, replication, retention, .. } = &self.address;
        let refused = |LinkError { kind, why }: LinkError| {
            self.named(LinkError::of(kind, format!("topic `{topic}` cannot be made: {why}")))
        };
        let copies = replication.map_or(-1, i32::from);
        let mut wanted = NewTopic::new(topic, self.partitions.into(), TopicReplication::Fixed(copies));
        wanted = wanted.set("cleanup.policy", "delete");
        let retention = retention.map(Retention::milliseconds);
        if let Some(retention) = &retention {
            wanted = wanted.set("retention.ms", retention);
        }
        if copies >= 3 {
            // An acknowledged record is on two brokers.
            wanted = wanted.set("min.insync.replicas", "2");
        }
        let admin = self.admin().map_err(refused)?;
        let made = runtime.block_on(admin.create_topics([&wanted], &options(until)));
        match made.map_err(|error| refused(failed(&error)))?.into_iter().next() {
            Some(Ok(_)) => {
                tracing::info!(topic, partitions = self.partitions, "topic made");
                Ok(())
            }
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(refused(LinkError::of(words::kind(code), self.not_made(code, brokers)))),
            None => Err(refused(LinkError::protocol("no answer"))),
        }
    }

    fn not_made(&self, code: Code, brokers: usize) -> String {
        let by_hand = format!("make it yourself with {} partitions", self.partitions);
        match (code, self.address.replication) {
            (Code::InvalidReplicationFactor, Some(copies)) => format!(
                "`?replication={copies}` needs {copies} brokers, and Kafka has {brokers}: start more of them, or set \
                 `?replication={}` in the broker's URL",
                brokers.clamp(1, usize::from(copies))
            ),
            (Code::InvalidReplicationFactor, None) => {
                format!(
                    "Kafka's `default.replication.factor` is above its {brokers} brokers: set `?replication={brokers}`"
                )
            }
            (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed, _) => {
                format!("the user of the broker's URL may not: grant it Create on the topic, or {by_hand}")
            }
            (code, _) => format!("{code}; {by_hand}"),
        }
    }

    /// Refuses settings with which the topic would lose records or take none.
    pub(super) fn check_settings(
        &self,
        topic: &MetadataTopic,
        runtime: &Handle,
        until: Instant,
    ) -> Result<(), LinkError> {
        let name = &self.address.topic;
        let admin = self.admin().map_err(|error| self.named(error))?;
        let asked = [ResourceSpecifier::Topic(name)];
        let answer = runtime.block_on(admin.describe_configs(&asked, &options(until)));
        let settings = match answer.map_err(|error| self.named(failed(&error)))?.into_iter().next() {
            Some(Ok(settings)) => Settings::read(&settings),
            other => {
                tracing::debug!(topic = name, ?other, "the topic's settings cannot be seen");
                return Ok(());
            }
        };
        if settings.compacted {
            return Err(self.named(LinkError::set_up(format!(
                "topic `{name}` is compacted (`cleanup.policy`), which takes records away: set it to `delete`, or name \
                 another topic in the broker's URL"
            ))));
        }
        if let Some(bytes) = settings.largest {
            self.known.set_largest(bytes);
        }
        let least = settings.in_sync.unwrap_or(1);
        for partition in topic.partitions() {
            let in_sync = partition.isr().len();
            if takes_nothing(in_sync, partition.replicas().len(), least) {
                return Err(self.named(format!(
                    "partition {} of topic `{name}` has {in_sync} replicas in sync, and its `min.insync.replicas` is \
                     {least}: start the brokers that are missing, or lower it",
                    partition.id(),
                )));
            }
        }
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, LinkError> {
        self.address.client().create().map_err(|error| failed(&error))
    }

    /// The user may not do this to the topic.
    pub(super) fn no_right(&self, what: &str) -> LinkError {
        words::no_right(what, &self.address.topic)
    }
}

fn options(until: Instant) -> AdminOptions {
    AdminOptions::new().request_timeout(Some(until.saturating_duration_since(Instant::now())))
}

/// Whether a partition acknowledges no records for now. Kafka never asks for more replicas than there are (before 4.0 it
/// did; then the error of the append is the reason).
fn takes_nothing(in_sync: usize, replicas: usize, least: usize) -> bool {
    in_sync < least.min(replicas)
}

/// Those settings of a topic that matter here.
#[derive(Debug, Default)]
struct Settings {
    compacted: bool,
    /// Bytes of the largest batch that it takes.
    largest: Option<usize>,
    /// Replicas that must have a record before it is acknowledged.
    in_sync: Option<usize>,
}

impl Settings {
    fn read(resource: &ConfigResource) -> Self {
        let entries = resource.entry_map();
        let text = |key: &str| entries.get(key).and_then(|entry| entry.value.as_deref());
        let number = |key: &str| text(key)?.parse().ok();
        Self {
            compacted: text("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            largest: number("max.message.bytes"),
            in_sync: number("min.insync.replicas"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_takes_records_as_long_as_enough_replicas_are_in_sync() {
        for (in_sync, replicas, least, nothing) in
            [(1, 1, 1, false), (1, 1, 2, false), (2, 3, 2, false), (1, 3, 2, true), (0, 1, 1, true)]
        {
            assert_eq!(takes_nothing(in_sync, replicas, least), nothing, "{in_sync} of {replicas}, at least {least}");
        }
    }
}
