//! RabbitMQ: one server for all cases that leave it as it was, each with streams of its own; a server of its
//! own for every other case, two at a time.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use broker_adapters::{Broker, ConnectError, Partition, Settings, connect};
use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use real_brokers::{Direction, PASSWORD, RabbitMq, Server, USER, Wire};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::fixture::{Ability, Fixture, Kind, PATIENCE};
use crate::node::SETTINGS;

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
        Ability::Squatters,
        Ability::Rights,
        Ability::Login,
        Ability::Tls,
    ],
    start: |needs| Box::pin(async { Arc::new(RabbitMqServer::start(needs).await) as Arc<dyn Fixture> }),
};

/// What a case may not do to a server that others use.
const ALONE: &[Ability] = &[Ability::Process, Ability::Connections, Ability::MemoryLimit];
/// What a partition keeps, in bytes, and the size of its files.
const MAX_BYTES: usize = 16 << 20;
const FILE: usize = MAX_BYTES / 16;

struct RabbitMqServer {
    rabbitmq: Arc<RabbitMq>,
    prefix: String,
    /// To the server, also where others use it.
    wires: [Wire; 2],
    _turn: Option<SemaphorePermit<'static>>,
}

impl RabbitMqServer {
    async fn start(needs: &[Ability]) -> Self {
        static SHARED: OnceCell<Arc<RabbitMq>> = OnceCell::const_new();
        static TURNS: Semaphore = Semaphore::const_new(2);
        static CASES: AtomicUsize = AtomicUsize::new(0);
        let (rabbitmq, turn) = if needs.iter().any(|need| ALONE.contains(need)) {
            let turn = TURNS.acquire().await.expect("never closed");
            (started().await, Some(turn))
        } else {
            (Arc::clone(SHARED.get_or_init(started).await), None)
        };
        let wires = [0, 1].map(|_| rabbitmq.another_wire().expect("a wire"));
        let prefix = format!("case-{}", CASES.fetch_add(1, Ordering::Relaxed));
        Self { rabbitmq, prefix, wires, _turn: turn }
    }

    /// The URL that the server gives, with the names of this case.
    fn url(&self, url: &str) -> String {
        let Self { prefix, .. } = self;
        let joint = if url.contains('?') { '&' } else { '?' };
        format!("{url}{joint}prefix={prefix}&max-bytes={MAX_BYTES}")
    }

    fn stream(&self, partition: u16) -> String {
        format!("{}.{partition}", self.prefix)
    }

    fn settings(&self) -> String {
        format!("{}.settings", self.prefix)
    }

    /// Another client, that comes by no wire.
    async fn client(&self) -> (Connection, Channel) {
        let url = self.rabbitmq.inside_url();
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.expect("it connects");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        (connection, channel)
    }

    async fn control(&self, words: &[&str]) -> String {
        self.rabbitmq.tool(words).await.expect("RabbitMQ obeys")
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
        self.control(&["set_policy", &self.prefix, &pattern, &policy, "--apply-to", "queues"]).await;
    }

    /// How many records a stream has: as many as come without a pause.
    async fn records(&self, stream: &str) -> usize {
        let (connection, channel) = self.client().await;
        channel.basic_qos(100, BasicQosOptions::default()).await.expect("a prefetch");
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        let options = BasicConsumeOptions::default();
        let mut records = channel.basic_consume(stream.into(), "".into(), options, arguments).await.expect("a stream");
        let mut count = 0;
        while timeout(Duration::from_secs(1), records.next()).await.is_ok() {
            count += 1;
        }
        connection.close(200, "done".into()).await.expect("it closes");
        count
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

async fn started() -> Arc<RabbitMq> {
    let rabbitmq = RabbitMq::new(0).expect("a RabbitMQ");
    rabbitmq.start().await.expect("RabbitMQ starts");
    Arc::new(rabbitmq)
}

/// A heartbeat that takes some room.
fn heartbeat(id: u8, payload: usize) -> Vec<u8> {
    let size = u32::try_from(payload).expect("small").to_be_bytes();
    [&[b'F', 1, 0, 0][..], &[id; 16], &[0; 8], &[0, 0], &size, &vec![b' '; payload]].concat()
}

#[async_trait]
impl Fixture for RabbitMqServer {
    fn connect(&self, wire: usize, settings: Settings) -> Arc<dyn Broker> {
        connect(&self.url(&self.rabbitmq.url_by(&self.wires[wire])), settings).expect("a good URL")
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
        self.control(&["clear_policy", &self.prefix]).await;
    }

    async fn kill(&self) {
        self.rabbitmq.kill().await.expect("RabbitMQ is killed");
    }

    async fn lose_disk(&self) {
        self.rabbitmq.wipe().await.expect("RabbitMQ had a disk");
    }

    async fn start(&self) {
        self.rabbitmq.start().await.expect("RabbitMQ starts");
    }

    async fn pause(&self) {
        self.rabbitmq.freeze().await.expect("RabbitMQ runs");
    }

    async fn resume(&self) {
        self.rabbitmq.thaw().await.expect("RabbitMQ runs");
    }

    async fn connections(&self) -> usize {
        // Who asks again and again lets the others work.
        sleep(Duration::from_millis(10)).await;
        self.rabbitmq.connections().expect("Linux")
    }

    async fn close_connections(&self) {
        self.rabbitmq.close_connections().await.expect("RabbitMQ obeys");
    }

    async fn full(&self, full: bool) {
        let limit = if full { "0.0001" } else { "0.9" };
        self.control(&["set_vm_memory_high_watermark", limit]).await;
        let begin = Instant::now();
        // RabbitMQ blocks the next publisher, and says so.
        while full && !self.control(&["list_connections", "state"]).await.contains("blocked") {
            assert!(begin.elapsed() < PATIENCE, "no publisher is blocked");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn room(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).expect("little");
        self.limit(bytes / usize::from(SETTINGS.partitions)).await;
    }

    async fn snapshot(&self) {
        self.rabbitmq.snapshot().await.expect("RabbitMQ has a disk");
    }

    async fn roll_back(&self) {
        self.rabbitmq.roll_back().await.expect("there is a snapshot");
    }

    async fn delete_part(&self, Partition(partition): Partition, part: usize) {
        let stream = if part == 0 { self.stream(partition) } else { self.settings() };
        self.delete(&[stream]).await;
    }

    async fn foreign_entry(&self, Partition(partition): Partition) {
        self.publish(partition, &[b"an operator was here".to_vec()]).await;
    }

    async fn squat(&self) {
        let (connection, channel) = self.client().await;
        for partition in [0, 2] {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
            let options = QueueDeclareOptions::durable();
            channel.queue_declare(self.stream(partition).into(), options, arguments).await.expect("a stream");
        }
        connection.close(200, "done".into()).await.expect("it closes");
        self.publish(0, &[b"of an operator".to_vec()]).await;
        self.publish(2, &[b"{\"order\":1}".to_vec(), b"{\"order\":2}".to_vec()]).await;
    }

    async fn kept(&self) -> String {
        let names = self.control(&["list_queues", "name"]).await;
        let mut names: Vec<_> = names.lines().filter(|name| name.starts_with(&self.prefix)).collect();
        names.sort_unstable();
        let mut kept = String::new();
        for name in names {
            let _ = writeln!(kept, "{name}: {}", self.records(name).await);
        }
        kept
    }

    fn connect_adopting(&self, settings: Settings) -> Arc<dyn Broker> {
        let url = self.url(&self.rabbitmq.inside_url());
        connect(&format!("{url}&adopt=true"), settings).expect("a good URL")
    }

    async fn connect_guest(&self, settings: Settings) -> Arc<dyn Broker> {
        self.control(&["add_user", &self.prefix, PASSWORD]).await;
        self.let_guest_write(true).await;
        let url = self.url(&self.rabbitmq.inside_url()).replace(USER, &self.prefix);
        connect(&url, settings).expect("a good URL")
    }

    async fn let_guest_write(&self, may: bool) {
        let (own, write) = (format!("^{}\\.", self.prefix), if may { ".*" } else { "^$" });
        self.control(&["set_permissions", &self.prefix, &own, write, &own]).await;
        if !may {
            // RabbitMQ asks for a right again when a channel has been idle, or on a new connection.
            self.control(&["close_all_user_connections", &self.prefix, "closed by an operator"]).await;
        }
    }

    fn connect_with_wrong_password(&self, settings: Settings) -> Arc<dyn Broker> {
        let url = self.url(&self.rabbitmq.inside_url());
        connect(&url.replace(PASSWORD, "a-wrong-one"), settings).expect("a good URL")
    }

    fn connect_tls(&self, trust: bool, settings: Settings) -> Result<Arc<dyn Broker>, ConnectError> {
        let ca = self.rabbitmq.process().file(if trust { "ca.pem" } else { "other-ca.pem" });
        connect(&self.url(&self.rabbitmq.tls_url(&ca.display().to_string())), settings)
    }
}
