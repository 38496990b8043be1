//! A real `redis-server`, in a directory of its own, that loses no acknowledged record when killed.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use broker_adapters::{Broker, ConnectError, Partition, Settings, connect};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use crate::fixture::{Ability, Direction, Fixture, Kind, PATIENCE};
use crate::wire::Wire;

pub(crate) const KIND: Kind = Kind {
    name: "redis",
    abilities: &[
        Ability::Positions,
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
    start: |needs| {
        Box::pin(async { Arc::new(RedisServer::start(needs.contains(&Ability::Tls)).await) as Arc<dyn Fixture> })
    },
};

const MISSING: &str = "cannot be run: install it (`apt-get install redis-server openssl`)";
const PASSWORD: &str = "hunter2";

struct RedisServer {
    port: u16,
    tls_port: Option<u16>,
    directory: PathBuf,
    process: Mutex<Option<Child>>,
    wires: [Wire; 2],
}

impl RedisServer {
    async fn start(tls: bool) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("fanfare-redis-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for Redis");
        let port = free_port();
        let mut tls_port = None;
        if tls {
            tls_port = Some(free_port());
            make_ca(&directory, "ca").await;
            make_ca(&directory, "other-ca").await;
            make_certificate(&directory).await;
        }
        let broker = SocketAddr::from(([127, 0, 0, 1], port));
        let wires = [Wire::to(broker).await, Wire::to(broker).await];
        let server = Self { port, tls_port, directory, process: Mutex::default(), wires };
        Fixture::start(&server).await;
        server
    }

    /// The server's process id, while it runs.
    fn pid(&self) -> Option<u32> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_mut().and_then(|child| child.try_wait().ok()?.is_none().then(|| child.id())?)
    }

    async fn signal(&self, signal: &str) {
        let pid = self.pid().expect("Redis runs").to_string();
        run(Command::new("kill").args([signal, &pid])).await;
    }

    /// Runs a command at the server, without going over a wire.
    async fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let mut cli = Command::new("redis-cli");
        run(cli.args(["-h", "127.0.0.1", "-p", &port, "--no-auth-warning", "-a", PASSWORD]).args(words)).await
    }

    async fn copy(&self, from: &str, to: &str) {
        run(Command::new("cp").current_dir(&self.directory).args(["-r", from, to])).await;
    }

    fn url(&self, scheme: &str, password: &str, port: u16, query: &str) -> String {
        format!("{scheme}://:{password}@127.0.0.1:{port}/0{query}")
    }
}

#[async_trait]
impl Fixture for RedisServer {
    fn connect(&self, wire: usize, settings: Settings) -> Arc<dyn Broker> {
        let url = self.url("redis", PASSWORD, self.wires[wire].port(), "");
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
        self.command(&["FLUSHALL"]).await;
    }

    async fn trim(&self, keep: usize) {
        for key in self.command(&["--raw", "KEYS", "*:log"]).await.lines() {
            self.command(&["XTRIM", key, "MAXLEN", "=", &keep.to_string()]).await;
        }
    }

    async fn kill(&self) {
        let child = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        child.expect("Redis runs").kill().await.expect("Redis is killed");
    }

    async fn lose_disk(&self) {
        std::fs::remove_dir_all(self.directory.join("appendonlydir")).expect("Redis had a disk");
    }

    async fn start(&self) {
        let mut command = Command::new("redis-server");
        command.current_dir(&self.directory).kill_on_drop(true).stdin(Stdio::null());
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--logfile", "redis.log"]);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--requirepass", PASSWORD]);
        if let Some(port) = self.tls_port {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no", "--tls-ca-cert-file", "ca.pem"]);
            command.args(["--tls-cert-file", "redis.pem", "--tls-key-file", "redis.key"]);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("redis-server {MISSING}: {error}"));
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = || std::fs::read_to_string(self.directory.join("redis.log")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE && self.pid().is_some(), "redis-server does not listen:\n{}", log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn pause(&self) {
        self.signal("-STOP").await;
    }

    async fn resume(&self) {
        self.signal("-CONT").await;
    }

    async fn connections(&self) -> usize {
        // All but the one that asks.
        self.command(&["--raw", "CLIENT", "LIST"]).await.lines().count() - 1
    }

    async fn close_connections(&self) {
        self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    }

    async fn full(&self, full: bool) {
        let limit = if full { "1" } else { "0" };
        self.command(&["CONFIG", "SET", "maxmemory", limit]).await;
    }

    async fn room(&self, bytes: u64) {
        let memory = self.command(&["--raw", "INFO", "memory"]).await;
        let used = memory.lines().find_map(|line| line.trim().strip_prefix("used_memory:")?.parse::<u64>().ok());
        let limit = (used.expect("Redis says what it uses") + bytes).to_string();
        self.command(&["CONFIG", "SET", "maxmemory", &limit]).await;
    }

    async fn snapshot(&self) {
        self.copy("appendonlydir", "snapshot").await;
    }

    async fn roll_back(&self) {
        self.lose_disk().await;
        self.copy("snapshot", "appendonlydir").await;
    }

    async fn delete_part(&self, Partition(partition): Partition, part: usize) {
        self.command(&["DEL", &format!("fanfare:{{{partition}}}:{}", ["log", "meta"][part])]).await;
    }

    async fn foreign_entry(&self, Partition(partition): Partition) {
        self.command(&["XADD", &format!("fanfare:{{{partition}}}:log"), "*", "who", "an operator"]).await;
    }

    fn connect_with_wrong_password(&self, settings: Settings) -> Arc<dyn Broker> {
        let url = self.url("redis", "a-wrong-one", self.port, "");
        connect(&url, settings).expect("a good URL")
    }

    fn connect_tls(&self, trust: bool, settings: Settings) -> Result<Arc<dyn Broker>, ConnectError> {
        let ca = self.directory.join(if trust { "ca.pem" } else { "other-ca.pem" });
        connect(
            &self.url("rediss", PASSWORD, self.tls_port.expect("a TLS port"), &format!("?ca={}", ca.display())),
            settings,
        )
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let child = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let _ = child.start_kill();
            // Until it is gone it may write once more to the directory.
            while let Ok(None) = child.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A port that stays free while the server is down: not one that the kernel gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let next = std::process::id() as usize * 101 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + u16::try_from(next % 18_000).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs a program and gives its output; it must succeed.
async fn run(command: &mut Command) -> String {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.unwrap_or_else(|error| panic!("{program} {MISSING}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

async fn openssl(directory: &Path, words: &[&str]) {
    run(Command::new("openssl").current_dir(directory).args(words)).await;
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

async fn make_ca(directory: &Path, name: &str) {
    let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
    let words = ["req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate];
    openssl(directory, &[&words[..], &KEY].concat()).await;
}

async fn make_certificate(directory: &Path) {
    let request = ["req", "-subj", "/CN=redis", "-keyout", "redis.key", "-out", "redis.csr"];
    openssl(directory, &[&request[..], &KEY].concat()).await;
    std::fs::write(directory.join("redis.ext"), "subjectAltName=IP:127.0.0.1").expect("a writable directory");
    let sign = ["x509", "-req", "-days", "2", "-in", "redis.csr", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let out = ["-CAcreateserial", "-extfile", "redis.ext", "-out", "redis.pem"];
    openssl(directory, &[&sign[..], &out].concat()).await;
}
