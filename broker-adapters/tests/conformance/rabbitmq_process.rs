//! A `rabbitmq-server` with a directory, ports and a name of its own, and what an operator does to it.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

pub(crate) const USER: &str = "fanfare";
pub(crate) const PASSWORD: &str = "hunter2";
const MISSING: &str = "cannot be run: install it (`apt-get install rabbitmq-server openssl`)";
/// How long RabbitMQ may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);
/// The scripts themselves; those in the path change to another user first.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    distribution_port: u16,
    name: String,
    pub(crate) directory: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// A server of one's own. Ends when dropped.
    pub(crate) async fn start() -> Self {
        let server = Self::prepare().await;
        server.run().await;
        server
    }

    /// A server that ends with this program, however that ends.
    pub(crate) async fn start_for_all() -> Self {
        let server = Self::prepare().await;
        let mut command = Process::new("sh");
        // Its input ends with this program.
        let script = "\"$@\" </dev/null & cat; kill -9 $!; wait; rm -rf \"$HOME\"";
        command.args(["-c", script, "sh", &program("rabbitmq-server")]);
        command.envs(server.environment()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        keep(command.spawn().unwrap_or_else(|error| panic!("sh: {error}")));
        server.until_it_listens().await;
        server
    }

    async fn prepare() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let found = Process::new("sh").args(["-c", "command -v \"$0\"", &program("rabbitmq-server")]).output();
        assert!(found.is_ok_and(|found| found.status.success()), "rabbitmq-server {MISSING}");
        let name = format!("fanfare-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(format!("fanfare-rabbitmq-{name}"));
        std::fs::create_dir_all(&directory).expect("a directory for RabbitMQ");
        let (port, tls_port, distribution_port) = (free_port().await, free_port().await, free_port().await);
        make_ca(&directory, "ca").await;
        make_ca(&directory, "other-ca").await;
        make_certificate(&directory).await;
        let server = Self { port, tls_port, distribution_port, name, directory, process: Mutex::default() };
        let file = |name: &str| server.directory.join(name).display().to_string();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\n\
             default_user = {USER}\ndefault_pass = {PASSWORD}\nssl_options.verify = verify_none\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            file("ca.pem"),
            file("rabbitmq.pem"),
            file("rabbitmq.key")
        );
        std::fs::write(file("rabbitmq.conf"), config).expect("a writable directory");
        std::fs::write(file("enabled_plugins"), "[].").expect("a writable directory");
        server
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        vec![
            ("HOME", self.directory.display().to_string()),
            ("ERL_EPMD_PORT", name_service().to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", format!("{}@localhost", self.name)),
            ("RABBITMQ_NODE_PORT", self.port.to_string()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string()),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq")),
            ("RABBITMQ_CONF_ENV_FILE", path("none")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", path("data")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_PLUGINS_EXPAND_DIR", path("plugins")),
            ("RABBITMQ_FEATURE_FLAGS_FILE", path("feature_flags")),
            // The script becomes the server: its process id is the server's.
            ("RUNNING_UNDER_SYSTEMD", "1".into()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none".into()),
        ]
    }

    pub(crate) async fn run(&self) {
        let mut command = Command::new(program("rabbitmq-server"));
        command.envs(self.environment()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("rabbitmq-server {MISSING}: {error}"));
        *self.process() = Some(child);
        self.until_it_listens().await;
    }

    async fn until_it_listens(&self) {
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = || std::fs::read_to_string(self.directory.join(format!("log/{}@localhost.log", self.name)));
            assert!(begin.elapsed() < START, "rabbitmq-server does not listen:\n{}", log().unwrap_or_default());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn kill(&self) {
        let child = self.process().take();
        child.expect("RabbitMQ runs").kill().await.expect("RabbitMQ is killed");
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.process().as_ref().and_then(Child::id).expect("RabbitMQ runs").to_string();
        output(Command::new("kill").args([signal, &pid])).await;
    }

    pub(crate) fn lose_disk(&self) {
        std::fs::remove_dir_all(self.directory.join("data")).expect("RabbitMQ had a disk");
    }

    pub(crate) async fn copy(&self, from: &str, to: &str) {
        output(Command::new("cp").current_dir(&self.directory).args(["-a", from, to])).await;
    }

    /// Runs `rabbitmqctl`.
    pub(crate) async fn control(&self, words: &[&str]) -> String {
        let mut command = Command::new(program("rabbitmqctl"));
        output(command.envs(self.environment()).arg("--quiet").args(words)).await
    }

    /// Connections to the server's port, as the system counts them.
    pub(crate) fn connections(&self) -> usize {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let (local, established) = (format!(":{:04X}", self.port), "01");
        let is = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|address| address.ends_with(&local)) && words.nth(1) == Some(established)
        };
        sockets.lines().filter(is).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.process().take() {
            let _ = child.start_kill();
            // Until it is gone it may write once more to the directory.
            while let Ok(None) = child.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn program(name: &str) -> String {
    let script = Path::new(SCRIPTS).join(name);
    if script.exists() { script.display().to_string() } else { name.to_owned() }
}

/// Holds a process that ends when its input does, that is, with this program.
fn keep(process: std::process::Child) {
    static KEPT: Mutex<Vec<std::process::Child>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(process);
}

/// The port of a name service of our own, at which Erlang's tools look up a server's port.
fn name_service() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut command = Process::new("sh");
        let script = "epmd -address 127.0.0.1 -port $1 </dev/null & cat; kill -9 $!";
        command.args(["-c", script, "sh", &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        keep(command.spawn().unwrap_or_else(|error| panic!("sh: {error}")));
        let begin = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < START, "epmd {MISSING}");
            std::thread::sleep(Duration::from_millis(5));
        }
        port
    })
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Runs a program and gives its output; it must succeed.
async fn output(command: &mut Command) -> String {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.output().await.unwrap_or_else(|error| panic!("{program} {MISSING}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

async fn openssl(directory: &Path, words: &[&str]) {
    output(Command::new("openssl").current_dir(directory).args(words)).await;
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

async fn make_ca(directory: &Path, name: &str) {
    let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
    let words = ["req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &certificate];
    openssl(directory, &[&words[..], &KEY].concat()).await;
}

async fn make_certificate(directory: &Path) {
    let request = ["req", "-subj", "/CN=rabbitmq", "-keyout", "rabbitmq.key", "-out", "rabbitmq.csr"];
    openssl(directory, &[&request[..], &KEY].concat()).await;
    std::fs::write(directory.join("rabbitmq.ext"), "subjectAltName=IP:127.0.0.1").expect("a writable directory");
    let sign = ["x509", "-req", "-days", "2", "-in", "rabbitmq.csr", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let out = ["-CAcreateserial", "-extfile", "rabbitmq.ext", "-out", "rabbitmq.pem"];
    openssl(directory, &[&sign[..], &out].concat()).await;
}
