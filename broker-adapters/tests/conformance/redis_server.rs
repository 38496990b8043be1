//! A real Redis of its own for every case.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use broker_adapters::{Broker, ConnectError, Partition, Settings, connect};
use real_brokers::{Direction, PASSWORD, Redis, Server};
use tokio::time::{Instant, sleep};

use crate::fixture::{Ability, Fixture, Kind, PATIENCE};

pub(crate) const KIND: Kind = Kind {
    name: "redis",
    abilities: &[
        Ability::Positions,
        Ability::HalfWire,
        Ability::Process,
        Ability::Connections,
        Ability::MemoryLimit,
        Ability::Foreigners,
        Ability::Bookkeeping,
        Ability::Failover,
        Ability::Snapshots,
        Ability::LiveSnapshots,
        Ability::Parts,
        Ability::FixedPartitions,
        Ability::Squatters,
        Ability::Rights,
        Ability::Login,
        Ability::Tls,
    ],
    start: |_| Box::pin(async { Arc::new(RedisServer::start().await) as Arc<dyn Fixture> }),
};

/// A server, and the one that has taken its place.
struct RedisServer(Redis, Mutex<Option<Redis>>);

/// What spoils a partition, after the name of its `meta` or `log` key.
const SPOILS: &[(&str, &str, &[&str])] = &[
    ("XADD", "log", &["18446744073709551615-18446744073709551615", "who", "a stranger"]),
    ("XADD", "log", &["9007199254740993-0", "who", "a stranger"]),
    ("XSETID", "log", &["18446744073709551615-18446744073709551615"]),
    ("HSET", "meta", &["last", "9007199254740992"]),
    ("HSET", "meta", &["last", "a lot"]),
    ("HSET", "meta", &["last", "-1"]),
    ("HSET", "meta", &["epoch", "a word"]),
    ("HSET", "meta", &["epoch", "00000000000000ff"]),
    ("HDEL", "meta", &["last"]),
    ("HDEL", "meta", &["epoch"]),
];

impl RedisServer {
    async fn start() -> Self {
        let redis = Redis::new(2).expect("a Redis");
        redis.start().await.expect("Redis starts");
        Self(redis, Mutex::default())
    }

    /// Runs a command at the server, without going over a wire.
    async fn command(&self, words: &[&str]) -> String {
        self.0.tool(words).await.expect("Redis obeys")
    }
}

#[async_trait]
impl Fixture for RedisServer {
    fn connect(&self, wire: usize, settings: Settings) -> Arc<dyn Broker> {
        connect(&self.0.url(wire), settings).expect("a good URL")
    }

    fn cut(&self, wire: usize) {
        self.0.wires()[wire].cut();
    }

    fn stall(&self, wire: usize, directions: &[Direction]) {
        self.0.wires()[wire].stall(directions);
    }

    fn mend(&self, wire: usize) {
        self.0.wires()[wire].mend();
    }

    async fn wipe(&self) {
        self.command(&["FLUSHALL"]).await;
    }

    async fn trim(&self, keep: usize) {
        for key in self.command(&["KEYS", "*:log"]).await.lines() {
            self.command(&["XTRIM", key, "MAXLEN", "=", &keep.to_string()]).await;
        }
    }

    async fn kill(&self) {
        self.0.kill().await.expect("Redis is killed");
    }

    async fn lose_disk(&self) {
        self.0.wipe().await.expect("Redis had a disk");
    }

    async fn start(&self) {
        self.0.start().await.expect("Redis starts");
    }

    async fn pause(&self) {
        self.0.freeze().await.expect("Redis runs");
    }

    async fn resume(&self) {
        self.0.thaw().await.expect("Redis runs");
    }

    async fn connections(&self) -> usize {
        // All but the one that asks.
        self.command(&["CLIENT", "LIST"]).await.lines().count() - 1
    }

    async fn close_connections(&self) {
        self.0.close_connections().await.expect("Redis obeys");
    }

    async fn full(&self, full: bool) {
        let limit = if full { "1" } else { "0" };
        self.command(&["CONFIG", "SET", "maxmemory", limit]).await;
    }

    async fn room(&self, bytes: u64) {
        let memory = self.command(&["INFO", "memory"]).await;
        let used = memory.lines().find_map(|line| line.trim().strip_prefix("used_memory:")?.parse::<u64>().ok());
        let limit = (used.expect("Redis says what it uses") + bytes).to_string();
        self.command(&["CONFIG", "SET", "maxmemory", &limit]).await;
    }

    async fn snapshot(&self) {
        self.0.snapshot().await.expect("Redis has a disk");
    }

    async fn roll_back(&self) {
        self.0.roll_back().await.expect("there is a snapshot");
    }

    async fn snapshot_live(&self) {
        let save = "for _, key in ipairs(redis.call('KEYS', 'fanfare:*')) do \
                    redis.call('SET', 'saved:' .. key, redis.call('DUMP', key)) end";
        self.command(&["EVAL", save, "0"]).await;
    }

    async fn set_back_live(&self) {
        let restore = "for _, key in ipairs(redis.call('KEYS', 'saved:*')) do \
                       redis.call('RESTORE', string.sub(key, 7), 0, redis.call('GET', key), 'REPLACE') end";
        self.command(&["EVAL", restore, "0"]).await;
    }

    async fn delete_part(&self, Partition(partition): Partition, part: usize) {
        self.command(&["DEL", &format!("fanfare:{{{partition}}}:{}", ["log", "meta"][part])]).await;
    }

    async fn foreign_entry(&self, Partition(partition): Partition) {
        self.command(&["XADD", &format!("fanfare:{{{partition}}}:log"), "*", "who", "an operator"]).await;
    }

    async fn spoil(&self, Partition(partition): Partition, way: usize) -> Option<String> {
        let (command, part, rest) = SPOILS.get(way)?;
        let key = format!("fanfare:{{{partition}}}:{part}");
        let words = [&[*command, &key], *rest].concat();
        self.command(&words).await;
        Some(words.join(" "))
    }

    async fn fail_over(&self) {
        let replica = Redis::new(0).expect("a Redis");
        replica.start().await.expect("Redis starts");
        let port = self.0.port().number().to_string();
        replica.tool(&["REPLICAOF", "127.0.0.1", &port]).await.expect("Redis obeys");
        until_says(&replica, "master_link_status:up").await;
        self.command(&["FAILOVER"]).await;
        until_says(&replica, "role:master").await;
        for wire in self.0.wires() {
            wire.lead_to(replica.port().address);
        }
        *self.1.lock().expect("no panic") = Some(replica);
    }

    async fn squat(&self) {
        self.command(&["HSET", "fanfare:settings", "theme", "dark"]).await;
        self.command(&["XADD", "fanfare:{1}:log", "*", "job", "7"]).await;
    }

    async fn kept(&self) -> String {
        let mut kept = String::new();
        for key in self.command(&["KEYS", "fanfare:*"]).await.lines() {
            kept += &format!("{key}: {}", self.command(&["DUMP", key]).await);
        }
        kept
    }

    fn connect_adopting(&self, settings: Settings) -> Arc<dyn Broker> {
        connect(&format!("{}?adopt=true", self.0.url(0)), settings).expect("a good URL")
    }

    async fn connect_guest(&self, settings: Settings) -> Arc<dyn Broker> {
        self.command(&["ACL", "SETUSER", "guest", "on", ">a-guest", "~fanfare:*", "+@all"]).await;
        let url = self.0.url(1).replace(&format!(":{PASSWORD}"), "guest:a-guest");
        connect(&url, settings).expect("a good URL")
    }

    async fn let_guest_write(&self, may: bool) {
        self.command(&["ACL", "SETUSER", "guest", if may { "+@all" } else { "-@write" }]).await;
    }

    fn connect_with_wrong_password(&self, settings: Settings) -> Arc<dyn Broker> {
        connect(&self.0.inside_url().replace(PASSWORD, "a-wrong-one"), settings).expect("a good URL")
    }

    fn connect_tls(&self, trust: bool, settings: Settings) -> Result<Arc<dyn Broker>, ConnectError> {
        let ca = self.0.process().file(if trust { "ca.pem" } else { "other-ca.pem" });
        connect(&self.0.tls_url(&ca.display().to_string()), settings)
    }
}

/// Waits until a Redis says this of its replication.
async fn until_says(redis: &Redis, what: &str) {
    let begin = Instant::now();
    while !redis.tool(&["INFO", "replication"]).await.expect("Redis obeys").contains(what) {
        assert!(begin.elapsed() < PATIENCE, "it does not say {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
