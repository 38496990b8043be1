//! RabbitMQ: one server for all cases that leave it as it was, each with streams of its own; a server of its
//! own for every other case, two at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use broker_adapters::{Broker, ConnectError, Partition, Settings, connect};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::{Duration, Instant, sleep};

use crate::fixture::{Ability, Direction, Fixture, Kind, PATIENCE};
use crate::node::SETTINGS;
use crate::rabbitmq_process::{PASSWORD, Server, USER};
use crate::wire::Wire;

pub(crate) const KIND: Kind = Kind {
    name: "rabbitmq",
    abilities: &[
        Ability::HalfWire,
        Ability::Process,
        Ability::Connections,
        Ability::MemoryLimit,
        Ability::Foreigners,
        Ability::Snapshots,
        Ability::Parts,
        Ability::FixedPartitions,
        Ability::Login,
        Ability::Tls,
    ],
    start: |needs| Box::pin(async { Arc::new(RabbitMq::start(needs).await) as Arc<dyn Fixture> }),
};

/// What a case may not do to a server that others use.
const ALONE: &[Ability] = &[Ability::Process, Ability::Connections, Ability::MemoryLimit];
/// What a partition keeps, in bytes, and the size of its files.
const MAX_BYTES: usize = 16 << 20;
const FILE: usize = MAX_BYTES / 16;

struct RabbitMq {
    server: Arc<Server>,
    prefix: String,
    wires: [Wire; 2],
    turn: Option<SemaphorePermit<'static>>,
}

impl RabbitMq {
    async fn start(needs: &[Ability]) -> Self {
        static SHARED: OnceCell<Arc<Server>> = OnceCell::const_new();
        static TURNS: Semaphore = Semaphore::const_new(2);
        static CASES: AtomicUsize = AtomicUsize::new(0);
        let (server, turn) = if needs.iter().any(|need| ALONE.contains(need)) {
            let turn = TURNS.acquire().await.expect("never closed");
            (Arc::new(Server::start().await), Some(turn))
        } else {
            let shared = SHARED.get_or_init(|| async { Arc::new(Server::start_for_all().await) }).await;
            (Arc::clone(shared), None)
        };
        let broker = SocketAddr::from(([127, 0, 0, 1], server.port));
        let wires = [Wire::to(broker).await, Wire::to(broker).await];
        let prefix = format!("case-{}", CASES.fetch_add(1, Ordering::Relaxed));
        let broker = Self { server, prefix, wires, turn };
        if broker.turn.is_some() {
            broker.settle().await;
        }
        broker
    }

    /// RabbitMQ notes that it keeps streams at all some time after the first was made; killed before that, 3.10
    /// never finds them again.
    async fn settle(&self) {
        let (connection, channel) = self.client().await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        let declared = channel.queue_declare("first".into(), QueueDeclareOptions::durable(), arguments).await;
        declared.expect("a stream");
        connection.close(200, "done".into()).await.expect("it closes");
        self.server.control(&["eval", "[dets:sync(Table) || Table <- dets:all()]."]).await;
    }

    fn url(&self, scheme: &str, password: &str, port: u16, query: &str) -> String {
        let Self { prefix, .. } = self;
        format!("{scheme}://{USER}:{password}@127.0.0.1:{port}/%2f?prefix={prefix}&max-bytes={MAX_BYTES}{query}")
    }

    fn stream(&self, partition: u16) -> String {
        format!("{}.{partition}", self.prefix)
    }

    fn settings(&self) -> String {
        format!("{}.settings", self.prefix)
    }

    /// Another client, that comes by no wire.
    async fn client(&self) -> (Connection, Channel) {
        let url = format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2f", self.server.port);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.expect("it connects");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        (connection, channel)
    }

    async fn delete(&self, streams: &[String]) {
        let (connection, channel) = self.client().await;
        for stream in streams {
            let deleted = channel.queue_delete(stream.as_str().into(), QueueDeleteOptions::default()).await;
            deleted.expect("it is deleted");
        }
        connection.close(200, "done".into()).await.expect("it closes");
    }

    /// Each partition keeps so many bytes.
    async fn limit(&self, bytes: usize) {
        let (pattern, policy) = (format!("^{}\\.[0-9]+$", self.prefix), format!("{{\"max-length-bytes\":{bytes}}}"));
        self.server.control(&["set_policy", &self.prefix, &pattern, &policy, "--apply-to", "queues"]).await;
    }

    async fn publish(&self, partition: u16, records: &[Vec<u8>]) {
        let (connection, channel) = self.client().await;
        for record in records {
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let stream = self.stream(partition).into();
            let published = channel.basic_publish("".into(), stream, options, record, properties).await;
            let confirmed = published.expect("it is sent").await.expect("it is confirmed");
            assert!(confirmed.is_ack());
        }
        connection.close(200, "done".into()).await.expect("it closes");
    }
}

/// A heartbeat that takes some room.
fn heartbeat(id: u8, payload: usize) -> Vec<u8> {
    let size = u32::try_from(payload).expect("small").to_be_bytes();
    [&[b'F', 1, 0, 0][..], &[id; 16], &[0; 8], &[0, 0], &size, &vec![b' '; payload]].concat()
}

#[async_trait]
impl Fixture for RabbitMq {
    fn connect(&self, wire: usize, settings: Settings) -> Arc<dyn Broker> {
        let url = self.url("amqp", PASSWORD, self.wires[wire].port(), "");
        connect(&url, settings).expect("a good URL")
    }

    fn cut(&self, wire: usize) {
        self.wires[wire].cut();
    }

    fn stall(&self, wire: usize, directions: &[Direction]) {
        self.wires[wire].stall(directions);
    }

    fn mend(&self, wire: usize) {
        self.wires[wire].mend();
    }

    async fn wipe(&self) {
        let mut streams: Vec<_> = (0..SETTINGS.partitions).map(|partition| self.stream(partition)).collect();
        streams.push(self.settings());
        self.delete(&streams).await;
    }

    /// Streams are trimmed by whole files, when a new one begins. So each gets heartbeats until it has a new
    /// file, and may keep less than one.
    async fn trim(&self, keep: usize) {
        self.limit(keep).await;
        for partition in 0..SETTINGS.partitions {
            self.publish(partition, &[heartbeat(1, FILE), heartbeat(2, 0), heartbeat(3, 0)]).await;
        }
        self.server.control(&["clear_policy", &self.prefix]).await;
    }

    async fn kill(&self) {
        self.server.kill().await;
    }

    async fn lose_disk(&self) {
        self.server.lose_disk();
    }

    async fn start(&self) {
        self.server.run().await;
    }

    async fn pause(&self) {
        self.server.signal("-STOP").await;
    }

    async fn resume(&self) {
        self.server.signal("-CONT").await;
    }

    async fn connections(&self) -> usize {
        // Who asks again and again lets the others work.
        sleep(Duration::from_millis(10)).await;
        self.server.connections()
    }

    async fn close_connections(&self) {
        self.server.control(&["close_all_connections", "closed by an operator"]).await;
    }

    async fn full(&self, full: bool) {
        let limit = if full { "0.0001" } else { "0.9" };
        self.server.control(&["set_vm_memory_high_watermark", limit]).await;
        let begin = Instant::now();
        // Whoever publishes next is blocked, and told so.
        while full && !self.server.control(&["list_connections", "state"]).await.contains("blocked") {
            assert!(begin.elapsed() < PATIENCE, "no publisher is blocked");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn room(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).expect("little");
        self.limit(bytes / usize::from(SETTINGS.partitions)).await;
    }

    async fn snapshot(&self) {
        self.server.copy("data", "snapshot").await;
    }

    async fn roll_back(&self) {
        self.server.lose_disk();
        self.server.copy("snapshot", "data").await;
    }

    async fn delete_part(&self, Partition(partition): Partition, part: usize) {
        let stream = if part == 0 { self.stream(partition) } else { self.settings() };
        self.delete(&[stream]).await;
    }

    async fn foreign_entry(&self, Partition(partition): Partition) {
        self.publish(partition, &[b"an operator was here".to_vec()]).await;
    }

    fn connect_with_wrong_password(&self, settings: Settings) -> Arc<dyn Broker> {
        connect(&self.url("amqp", "a-wrong-one", self.server.port, ""), settings).expect("a good URL")
    }

    fn connect_tls(&self, trust: bool, settings: Settings) -> Result<Arc<dyn Broker>, ConnectError> {
        let ca = self.server.directory.join(if trust { "ca.pem" } else { "other-ca.pem" });
        connect(&self.url("amqps", PASSWORD, self.server.tls_port, &format!("&ca={}", ca.display())), settings)
    }
}
