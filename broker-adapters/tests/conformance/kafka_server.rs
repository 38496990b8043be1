//! A real Kafka: one for all cases that leave it whole, each with a topic and a pair of wires of its own; another
//! for a case that kills it, one such case at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use broker_adapters::{Broker, ConnectError, Partition, Settings, connect};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use real_brokers::{Direction, Kafka, PASSWORD, Server, USER, Wire, established};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::{Duration, Instant, sleep};

use crate::fixture::{Ability, Fixture, Kind, PATIENCE};
use crate::node::SETTINGS;

pub(crate) const KIND: Kind = Kind {
    name: "kafka",
    abilities: &[
        Ability::Positions,
        Ability::HalfWire,
        Ability::Process,
        Ability::Connections,
        Ability::Foreigners,
        Ability::Snapshots,
        Ability::FixedPartitions,
        Ability::MorePartitions,
        Ability::Squatters,
        Ability::Codecs,
        Ability::Rights,
        Ability::Login,
        Ability::Tls,
    ],
    start: |needs| Box::pin(async { Arc::new(KafkaServer::start(needs).await) as Arc<dyn Fixture> }),
};

/// As many pairs of wires as cases run at a time.
const PAIRS: usize = 8;

/// For how long the number of connections must not change to be believed.
const STABLE: Duration = Duration::from_millis(200);

/// A broker, and the pairs of its wires that no case has.
struct Shared {
    kafka: Arc<Kafka>,
    free: Mutex<Vec<usize>>,
}

struct KafkaServer {
    kafka: Arc<Kafka>,
    pair: usize,
    topic: String,
    /// Where the pair goes back to.
    shared: Option<&'static Shared>,
    _alone: Option<SemaphorePermit<'static>>,
}

impl KafkaServer {
    async fn start(needs: &[Ability]) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        static SHARED: OnceCell<Shared> = OnceCell::const_new();
        static ALONE: Semaphore = Semaphore::const_new(1);
        let topic = format!("case-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        if needs.contains(&Ability::Process) {
            let alone = ALONE.acquire().await.expect("it is never closed");
            return Self { kafka: started(1).await, pair: 0, topic, shared: None, _alone: Some(alone) };
        }
        let shared = SHARED.get_or_init(|| async {
            let kafka = started(PAIRS).await;
            // Kafka sets up what it needs for groups when one is first asked for; every client asks.
            let admin: AdminClient<_> = client(&kafka).create().expect("a client");
            let _ = admin.delete_groups(&["fanfare"], &patient()).await;
            Shared { kafka, free: Mutex::new((0..PAIRS).collect()) }
        });
        let shared = shared.await;
        let pair = shared.lock().pop().expect("no more cases at a time than pairs of wires");
        Self { kafka: Arc::clone(&shared.kafka), pair, topic, shared: Some(shared), _alone: None }
    }

    /// Wire 1 of each pair has a log-in.
    fn number(&self, wire: usize) -> usize {
        2 * self.pair + wire
    }

    fn wire(&self, wire: usize) -> &Wire {
        &self.kafka.wires()[self.number(wire)]
    }

    fn url(&self, wire: usize) -> String {
        format!("{}/{}", self.kafka.url(self.number(wire)), self.topic)
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a client")
    }

    fn client(&self) -> ClientConfig {
        client(&self.kafka)
    }

    /// Another program writes to the topic.
    async fn produce(&self, partition: u16) {
        let (client, topic) = (self.client(), self.topic.clone());
        let sent = tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = client.create().expect("a client");
            let headers = OwnedHeaders::new().insert(Header { key: "who", value: Some("an operator") });
            let record = BaseRecord::to(&topic).partition(partition.into()).key("who").payload("an operator");
            producer.send(record.headers(headers)).expect("room for one");
            producer.flush(PATIENCE).expect("it is stored");
        });
        sent.await.expect("no panic");
    }

    /// Where a partition begins and ends, by Kafka's numbers.
    fn extent(client: &ClientConfig, topic: &str, partition: u16) -> (i64, i64) {
        let consumer: BaseConsumer = client.create().expect("a client");
        consumer.fetch_watermarks(topic, partition.into(), PATIENCE).expect("Kafka answers")
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn started(pairs: usize) -> Arc<Kafka> {
    let kafka = Kafka::new(2 * pairs).expect("a Kafka");
    kafka.start().await.expect("Kafka starts");
    Arc::new(kafka)
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.inside());
    config
}

fn patient() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

#[async_trait]
impl Fixture for KafkaServer {
    fn connect(&self, wire: usize, settings: Settings) -> Arc<dyn Broker> {
        connect(&self.url(wire), settings).expect("a good URL")
    }

    fn cut(&self, wire: usize) {
        self.wire(wire).cut();
    }

    fn stall(&self, wire: usize, directions: &[Direction]) {
        self.wire(wire).stall(directions);
    }

    fn mend(&self, wire: usize) {
        self.wire(wire).mend();
    }

    async fn wipe(&self) {
        let admin = self.admin();
        admin.delete_topics(&[&self.topic], &patient()).await.expect("Kafka answers");
        // A node may have made it already.
        let topic = NewTopic::new(&self.topic, SETTINGS.partitions.into(), TopicReplication::Fixed(1));
        admin.create_topics([&topic], &patient()).await.expect("Kafka answers");
    }

    async fn trim(&self, keep: usize) {
        let (client, topic) = (self.client(), self.topic.clone());
        let list = tokio::task::spawn_blocking(move || {
            let mut list = TopicPartitionList::new();
            for partition in 0..SETTINGS.partitions {
                let (low, high) = Self::extent(&client, &topic, partition);
                let first = low.max(high - i64::try_from(keep).expect("a small number"));
                list.add_partition_offset(&topic, partition.into(), Offset::Offset(first)).expect("an offset");
            }
            list
        });
        let deleted = self.admin().delete_records(&list.await.expect("no panic"), &patient()).await;
        assert!(deleted.expect("Kafka answers").elements().iter().all(|element| element.error().is_ok()));
    }

    async fn kill(&self) {
        self.kafka.kill().await.expect("Kafka is killed");
    }

    async fn lose_disk(&self) {
        self.kafka.wipe().await.expect("Kafka had a disk");
    }

    async fn start(&self) {
        self.kafka.start().await.expect("Kafka starts");
    }

    async fn pause(&self) {
        self.kafka.freeze().await.expect("Kafka runs");
    }

    async fn resume(&self) {
        self.kafka.thaw().await.expect("Kafka runs");
    }

    async fn connections(&self) -> usize {
        let doors = [0, 1].map(|wire| self.kafka.door(self.number(wire)));
        let count = || established(&doors).expect("Linux");
        // A client of Kafka makes its connections one after the other, and each of them in vain at first.
        let (mut last, mut since) = (count(), Instant::now());
        while since.elapsed() < STABLE {
            sleep(STABLE / 10).await;
            let now = count();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    async fn close_connections(&self) {
        // Kafka has no command for this; a reset is what clients see when it does it.
        for wire in [0, 1] {
            self.cut(wire);
            self.mend(wire);
        }
    }

    async fn snapshot(&self) {
        self.kafka.snapshot().await.expect("Kafka has a disk");
    }

    async fn roll_back(&self) {
        self.kafka.roll_back().await.expect("there is a snapshot");
    }

    async fn foreign_entry(&self, Partition(partition): Partition) {
        self.produce(partition).await;
    }

    async fn squat(&self) {
        let topic = NewTopic::new(&self.topic, SETTINGS.partitions.into(), TopicReplication::Fixed(1));
        let made = self.admin().create_topics([&topic], &patient()).await.expect("Kafka answers");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        for partition in [0, 2, 2] {
            self.produce(partition).await;
        }
    }

    async fn kept(&self) -> String {
        let (client, topic) = (self.client(), self.topic.clone());
        let extents =
            move || (0..SETTINGS.partitions).map(|partition| Self::extent(&client, &topic, partition)).collect();
        let extents: Vec<_> = tokio::task::spawn_blocking(extents).await.expect("no panic");
        format!("from and to {extents:?}")
    }

    fn connect_adopting(&self, settings: Settings) -> Arc<dyn Broker> {
        connect(&format!("{}?adopt=true", self.url(0)), settings).expect("a good URL")
    }

    async fn compress(&self, codec: &str) {
        let topic = AlterConfig::new(ResourceSpecifier::Topic(&self.topic)).set("compression.type", codec);
        let altered = self.admin().alter_configs([&topic], &patient()).await.expect("Kafka answers");
        assert!(altered.iter().all(Result::is_ok), "{altered:?}");
    }

    async fn connect_guest(&self, settings: Settings) -> Arc<dyn Broker> {
        self.connect(1, settings)
    }

    async fn let_guest_write(&self, may: bool) {
        // Where no rule is, everybody may do everything.
        let mut words = vec!["org.apache.kafka.tools.AclCommand", "--topic", &self.topic];
        words.extend(if may { &["--remove", "--force"][..] } else { &["--add"] });
        let user = format!("User:{USER}");
        words.extend(["--allow-principal", &user]);
        words.extend(["Read", "Describe", "DescribeConfigs"].iter().flat_map(|right| ["--operation", right]));
        self.kafka.tool(&words).await.expect("Kafka obeys");
    }

    async fn grow(&self, partitions: u16) {
        let more = NewPartitions::new(&self.topic, partitions.into());
        let grown = self.admin().create_partitions([&more], &patient()).await.expect("Kafka answers");
        assert!(grown.iter().all(Result::is_ok), "{grown:?}");
    }

    fn connect_with_wrong_password(&self, settings: Settings) -> Arc<dyn Broker> {
        connect(&self.url(1).replace(PASSWORD, "a-wrong-one"), settings).expect("a good URL")
    }

    fn connect_tls(&self, trust: bool, settings: Settings) -> Result<Arc<dyn Broker>, ConnectError> {
        let ca = self.kafka.process().file(if trust { "ca.pem" } else { "other-ca.pem" });
        let url = self.kafka.tls_url(&ca.display().to_string());
        connect(&url.replace("?ca=", &format!("/{}?ca=", self.topic)), settings)
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        if let Some(shared) = self.shared {
            for wire in [0, 1] {
                self.wire(wire).cut();
                self.wire(wire).mend();
            }
            shared.lock().push(self.pair);
        }
    }
}
