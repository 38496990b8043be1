//! One Kafka in KRaft mode, broker and controller in a process, as `tests/scripts/install-kafka` puts it there.
//!
//! All processes are started by one thread that lives as long as the tests, and die with it.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Duration, Instant, sleep};

use crate::wire::Wire;

const LIBRARIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kafka-4.1.1/libs");
const MISSING: &str = "cannot be run: run tests/scripts/install-kafka";
pub(crate) const USER: &str = "me";
pub(crate) const PASSWORD: &str = "hunter2";
/// How long Java may take to start on a busy machine.
const START: Duration = Duration::from_secs(90);
/// A small heap, and a compiler that is soon done.
const JAVA: [&str; 4] = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"];

/// The thread that all processes and wires belong to: those that cases share outlive the case that asked first.
static HOME: LazyLock<Handle> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
});

/// Runs something on the thread that lives as long as the tests.
pub(crate) async fn at_home<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match HOME.spawn(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A way into the broker: a listener, and what it tells clients to connect to.
pub(crate) struct Door {
    pub(crate) port: u16,
    name: String,
    protocol: &'static str,
    advertised: u16,
}

impl Door {
    fn plain(name: &str) -> Self {
        let port = free_port();
        Self { port, name: name.into(), protocol: "PLAINTEXT", advertised: port }
    }
}

/// A broker and its directory.
pub(crate) struct Process {
    directory: PathBuf,
    doors: Vec<Door>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Makes a broker with pairs of wires, the second of each with a log-in, and starts it.
    pub(crate) async fn start(pairs: usize) -> (Self, Vec<[Wire; 2]>) {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = disks().join(number.to_string());
        let tls = Door { protocol: "SASL_SSL", ..Door::plain("TLS") };
        let mut doors = vec![Door::plain("INSIDE"), Door::plain("CONTROLLER"), tls];
        let mut wires = Vec::new();
        for pair in 0..pairs {
            let mut both = Vec::new();
            for (protocol, side) in [("PLAINTEXT", "A"), ("SASL_PLAINTEXT", "B")] {
                let door = Door { protocol, ..Door::plain(&format!("W{pair}{side}")) };
                let wire = Wire::to(SocketAddr::from(([127, 0, 0, 1], door.port))).await;
                doors.push(Door { advertised: wire.port(), ..door });
                both.push(wire);
            }
            wires.extend(<[Wire; 2]>::try_from(both).ok());
        }
        let process = Self { directory, doors, child: Mutex::default() };
        process.prepare().await;
        process.run().await;
        (process, wires)
    }

    /// The way in for whoever is not under test.
    pub(crate) fn inside(&self) -> u16 {
        self.doors[0].port
    }

    pub(crate) fn tls(&self) -> u16 {
        self.doors[2].port
    }

    /// The port of a wire's listener.
    pub(crate) fn door(&self, pair: usize, wire: usize) -> u16 {
        self.doors[3 + 2 * pair + wire].port
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    async fn prepare(&self) {
        std::fs::create_dir_all(&self.directory).expect("a directory for Kafka");
        for name in ["ca", "other-ca"] {
            make_ca(&self.directory, name).await;
        }
        make_certificate(&self.directory).await;
        std::fs::write(self.file("server.properties"), self.properties()).expect("a writable directory");
        self.fresh_disk().await;
    }

    fn properties(&self) -> String {
        let each = |text: &dyn Fn(&Door) -> String| self.doors.iter().map(text).collect::<Vec<_>>().join(",");
        let listeners = each(&|door| format!("{}://127.0.0.1:{}", door.name, door.port));
        let protocols = each(&|door| format!("{}:{}", door.name, door.protocol));
        let clients = self.doors.iter().filter(|door| door.name != "CONTROLLER");
        let advertised: Vec<_> = clients.map(|door| format!("{}://127.0.0.1:{}", door.name, door.advertised)).collect();
        let mut text = format!(
            "node.id=1\nprocess.roles=broker,controller\nlog.dirs=data\n\
             listeners={listeners}\nlistener.security.protocol.map={protocols}\nadvertised.listeners={}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=INSIDE\n\
             controller.quorum.voters=1@127.0.0.1:{}\n",
            advertised.join(","),
            self.doors[1].port
        );
        // A killed broker may come back at once; small, for one machine.
        text.push_str(
            "broker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=200\ninitial.broker.registration.timeout.ms=90000\n\
             num.network.threads=1\nnum.io.threads=4\nbackground.threads=2\nnum.recovery.threads.per.data.dir=1\n\
             offsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\ngroup.initial.rebalance.delay.ms=0\n\
             log.index.size.max.bytes=65536\nlog.cleaner.dedupe.buffer.size=4194304\nlog.cleaner.threads=1\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             ssl.keystore.type=PEM\nssl.keystore.location=kafka.pem\n",
        );
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        for door in self.doors.iter().filter(|door| door.protocol.starts_with("SASL")) {
            let (name, setting) = (door.name.to_lowercase(), "sasl.jaas.config");
            text.push_str(&format!("listener.name.{name}.scram-sha-512.{setting}={scram}\n"));
            text.push_str(&format!("listener.name.{name}.plain.{setting}={plain} user_{USER}=\"{PASSWORD}\";\n"));
        }
        text
    }

    /// Puts a formatted, empty disk there; formatting takes Java a second, so it is done once for all.
    pub(crate) async fn fresh_disk(&self) {
        static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(|| async {
            let mut format = java(&self.directory);
            format.args(["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw"]);
            format.args(["-c", "server.properties", "--add-scram"]);
            run(format.arg(format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"))).await;
            let template = disks().join("formatted");
            std::fs::rename(self.file("data"), &template).expect("on the same disk");
            template
        });
        let template = template.await;
        self.copy(&template.to_string_lossy(), "data").await;
    }

    /// Replaces a directory by a copy of another.
    pub(crate) async fn copy(&self, from: &str, to: &str) {
        let _ = std::fs::remove_dir_all(self.file(to));
        run(Command::new("cp").current_dir(&self.directory).args(["-r", from, to])).await;
    }

    /// Starts the process and waits until it says that it takes requests; its ports are open long before.
    pub(crate) async fn run(&self) {
        let log = std::fs::File::create(self.file("kafka.log")).expect("a writable directory");
        let mut command = java(&self.directory);
        command.args(["kafka.Kafka", "server.properties"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("one more")).stderr(log).kill_on_drop(true);
        let spawned = at_home(async move { command.spawn() }).await;
        let child = spawned.unwrap_or_else(|error| panic!("setpriv and java: {error}"));
        *self.lock() = Some(child);
        let begin = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.file("kafka.log")).unwrap_or_default();
            if log.contains("Kafka Server started") {
                return;
            }
            assert!(begin.elapsed() < START && self.pid().is_some(), "Kafka {MISSING}:\n{log}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process id, while it runs.
    fn pid(&self) -> Option<u32> {
        self.lock().as_mut().and_then(|child| child.try_wait().ok()?.is_none().then(|| child.id())?)
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.pid().expect("Kafka runs").to_string();
        run(Command::new("kill").args([signal, &pid])).await;
    }

    pub(crate) async fn kill(&self) {
        let child = self.lock().take();
        child.expect("Kafka runs").kill().await.expect("Kafka is killed");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.lock().take() {
            let _ = child.start_kill();
            // Until it is gone it may write once more to the directory.
            while let Ok(None) = child.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Where this run's brokers keep their data. A broker that cases share has nobody to tidy up after it: the next run does.
fn disks() -> PathBuf {
    static DISKS: LazyLock<PathBuf> = LazyLock::new(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka");
        for old in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            let its_run = Path::new("/proc").join(old.file_name());
            if !its_run.exists() {
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        all.join(std::process::id().to_string())
    });
    DISKS.clone()
}

/// Java with Kafka's libraries; it dies with the thread that starts it.
fn java(directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.current_dir(directory).args(["--pdeathsig", "KILL", "java"]).args(JAVA);
    command.args(["-cp", &format!("{LIBRARIES}/*")]);
    command
}

/// A port that stays free while the broker is down: not one that the kernel gives to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let next = std::process::id() as usize * 211 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + u16::try_from(next % 18_000).unwrap_or(0);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs a program, which must succeed.
async fn run(command: &mut Command) {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.unwrap_or_else(|error| panic!("{program} {MISSING}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {MISSING}: {said}{}", String::from_utf8_lossy(&output.stderr));
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
    let request = ["req", "-subj", "/CN=kafka", "-keyout", "kafka.key", "-out", "kafka.csr"];
    openssl(directory, &[&request[..], &KEY].concat()).await;
    std::fs::write(directory.join("kafka.ext"), "subjectAltName=IP:127.0.0.1").expect("a writable directory");
    let sign = ["x509", "-req", "-days", "2", "-in", "kafka.csr", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let out = ["-CAcreateserial", "-extfile", "kafka.ext", "-out", "kafka.crt"];
    openssl(directory, &[&sign[..], &out].concat()).await;
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("it was just made");
    std::fs::write(directory.join("kafka.pem"), read("kafka.key") + &read("kafka.crt")).expect("a writable directory");
}
