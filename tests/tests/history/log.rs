//! The log under a node, and what an operator or the broker itself does to it: it is trimmed, and made anew.

use anyhow::{Context, Result};
use serde_json::json;
use tests::{Broker, Cluster, Program, wire};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const DELETE: &str = "org.apache.kafka.tools.DeleteRecordsCommand";

/// Records that the log in memory keeps per partition.
const RECORDS: u64 = 300;
/// Heartbeats that a test may take for: they take the place of messages.
const HEARTBEATS: u64 = 100;
/// Bytes that a partition of RabbitMQ keeps, in files of a sixteenth of it.
const BYTES: usize = 256 << 10;

/// A log of its own on a shared broker, and the one node that uses it.
pub(crate) struct Log {
    broker: Broker,
    /// Without nodes.
    server: Cluster,
    node: Program,
}

impl Log {
    /// A new log.
    pub(crate) async fn new(broker: Broker) -> Result<Self> {
        let server = Cluster::of(0).shared(broker).start().await?;
        let node = node(broker, &server).await?;
        Ok(Self { broker, server, node })
    }

    /// Where the node listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.node.address)
    }

    /// What the node has logged.
    pub(crate) fn node_output(&self) -> String {
        self.node.output()
    }

    /// Whether an operator can trim it at any place. Otherwise it trims itself as it grows.
    pub(crate) fn can_be_trimmed(&self) -> bool {
        matches!(self.broker, Broker::Redis | Broker::Kafka)
    }

    /// The offset from which on the log surely has all records of a partition, where only its size trims it. `records` are the
    /// offset and size of each message there, in order.
    pub(crate) fn trims_itself_before(&self, records: &[(u64, usize)]) -> u64 {
        match self.broker {
            Broker::Redis | Broker::Kafka => 0,
            Broker::Memory => {
                let last = records.last().map_or(0, |(offset, _)| *offset);
                (last + HEARTBEATS).saturating_sub(RECORDS)
            }
            Broker::RabbitMq => {
                let mut room = BYTES / 2;
                let fits = |&&(_, size): &&(u64, usize)| {
                    room = room.saturating_sub(size + 200);
                    room > 0
                };
                // All of a short log.
                let kept = records.iter().rev().take_while(fits).count();
                if kept == records.len() { 0 } else { records[records.len() - kept].0 }
            }
        }
    }

    /// An operator deletes all records before these offsets, each in its partition.
    pub(crate) async fn trim(&self, before: &[(u16, u64)]) -> Result<()> {
        let name = self.name();
        match self.broker {
            Broker::Redis => {
                for (partition, offset) in before {
                    let (key, least) = (format!("{name}:{{{partition}}}:log"), format!("{offset}-0"));
                    self.server.broker().tool(&["XTRIM", &key, "MINID", "=", &least]).await?;
                }
            }
            Broker::Kafka => {
                // Offsets in positions count from 1, Kafka's from 0.
                let each = before
                    .iter()
                    .map(|(partition, offset)| json!({ "topic": name, "partition": partition, "offset": offset - 1 }));
                let (server, file) = (self.server.broker(), format!("{name}.json"));
                let parts: Vec<_> = each.collect();
                std::fs::write(server.process().file(&file), json!({ "version": 1, "partitions": parts }).to_string())?;
                server.tool(&[DELETE, "--offset-json-file", &file]).await?;
            }
            Broker::Memory | Broker::RabbitMq => anyhow::bail!("{} trims itself", self.broker),
        }
        Ok(())
    }

    /// An operator deletes all of it, and the node makes it anew. A log in memory ends with its node, so another node comes.
    pub(crate) async fn break_off(&mut self) -> Result<()> {
        let name = self.name();
        match self.broker {
            Broker::Memory => {
                self.node.signal("KILL").await?;
                self.node.ended().await?;
                self.node = node(self.broker, &self.server).await?;
            }
            Broker::Redis => {
                let delete = format!("return redis.call('DEL', unpack(redis.call('KEYS', '{name}:*')))");
                self.server.broker().tool(&["EVAL", &delete, "0"]).await?;
            }
            Broker::Kafka => {
                self.server.broker().tool(&[TOPICS, "--delete", "--topic", &name]).await?;
            }
            Broker::RabbitMq => {
                let delete = format!(
                    "[rabbit_amqqueue:delete(Queue, false, false, <<\"an operator\">>) || \
                     Queue <- rabbit_amqqueue:list(), \
                     string:prefix(element(4, amqqueue:get_name(Queue)), <<\"{name}.\">>) =/= nomatch]."
                );
                self.server.broker().tool(&["eval", &delete]).await?;
            }
        }
        Ok(())
    }

    /// Whether the node lives on when the log is made anew.
    pub(crate) fn outlives_a_break(&self) -> bool {
        self.broker != Broker::Memory
    }

    /// The log's name at the broker.
    fn name(&self) -> String {
        let url = self.server.broker_url();
        url.rsplit(['/', '=']).next().unwrap_or_default().to_owned()
    }
}

async fn node(broker: Broker, server: &Cluster) -> Result<Program> {
    let mut url = server.broker_url();
    if broker == Broker::RabbitMq {
        url.push_str(&format!("&max-bytes={BYTES}"));
    }
    let mut settings = vec![("FANFARE__WINDOW__BYTES", "48KiB"), ("FANFARE__LIMITS__HISTORY_PER_SECOND", "10000")];
    let records = RECORDS.to_string();
    if broker == Broker::Memory {
        settings.push(("FANFARE__BROKER__RETENTION", &records));
    }
    let node = Program::start("fanfare", &["--broker", &url], &settings).await?;
    wire::ready(node.address).await.with_context(|| node.output())?;
    Ok(node)
}
