//! A real HAProxy with the files of `deploy/haproxy/` as they are.
//!
//! A server that a test does not have points at a port that nothing listens on, and is out.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use real_brokers::{Port, Scratch, inherited, signal};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::PATIENCE;
use crate::certificate::Certificate;
use crate::door::Door;

/// Where nothing listens.
const NOWHERE: &str = "127.0.0.1:1";

/// The servers of the configuration.
const SERVERS: [&str; 5] = ["node-1", "node-2", "node-3", "echo-1", "echo-2"];

/// How often HAProxy is asked what it thinks of its servers.
const GLANCE: Duration = Duration::from_millis(25);

/// A crowd of a test has one address.
const PER_ADDRESS: &str = "1000000";

/// Of the statistics page.
const PASSWORD: &str = "a secret";

/// A balancer to be.
#[derive(Debug)]
pub struct Plan {
    style: &'static str,
    /// A master that reloads at SIGUSR2, as Debian and the image have it, instead of a process for each reload.
    master: bool,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// Before these servers: the names `node-1` … and `echo-1` …, with their addresses.
    #[must_use]
    pub fn servers<'a>(self, servers: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> Self {
        let servers = servers.into_iter();
        servers.fold(self, |plan, (name, address)| plan.set(&variable(name), &address.to_string()))
    }

    /// With these agents of the nodes to ask.
    #[must_use]
    pub fn agents<'a>(self, agents: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> Self {
        agents.into_iter().fold(self, |plan, (node, agent)| {
            plan.set(&variable(node).replace("NODE", "AGENT"), &agent.port().to_string())
        })
    }

    /// Beside this web server.
    #[must_use]
    pub fn web(self, web: SocketAddr) -> Self {
        self.set("WEB", &web.to_string())
    }

    /// With this certificate.
    pub fn certificate(self, certificate: &Certificate) -> Result<Self> {
        Ok(self.set("CERTIFICATE", &certificate.both()?.display().to_string()))
    }

    /// As a master with workers.
    #[must_use]
    pub fn master(self) -> Self {
        Self { master: true, ..self }
    }

    /// With a variable that its files read.
    #[must_use]
    pub fn set(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Balancer> {
        let mut balancer = Balancer {
            gateway: Port::take()?,
            echo: Port::take()?,
            http: Port::take()?,
            https: Port::take()?,
            statistics: Port::take()?,
            directory: Scratch::new("haproxy")?,
            plan: self,
            children: Vec::new(),
        };
        balancer.spawn(&[])?;
        Ok(balancer)
    }
}

/// A running HAProxy.
#[derive(Debug)]
pub struct Balancer {
    gateway: Port,
    echo: Port,
    http: Port,
    https: Port,
    statistics: Port,
    directory: Scratch,
    plan: Plan,
    /// The last one listens; those before it keep the tunnels that they had.
    children: Vec<Child>,
}

impl Balancer {
    /// One that routes by `path`, `host`, `upgrade`, `upgrade-and-host` or `port`.
    #[must_use]
    pub fn by(style: &'static str) -> Plan {
        Plan { style, master: false, environment: Vec::new() }
    }

    /// Where clients of the gateway connect.
    #[must_use]
    pub fn gateway(&self) -> SocketAddr {
        self.gateway.address
    }

    /// Where clients of the echo servers connect.
    #[must_use]
    pub fn echo(&self) -> SocketAddr {
        self.echo.address
    }

    /// The port for clients with TLS, in every style but `port`.
    #[must_use]
    pub fn http(&self) -> Door {
        Door::plain(self.http.address)
    }

    /// Where they do so.
    pub fn https(&self, certificate: &Certificate) -> Result<Door> {
        Door::secure(self.https.address, certificate)
    }

    /// Where TLS is spoken.
    #[must_use]
    pub fn https_address(&self) -> SocketAddr {
        self.https.address
    }

    /// Where the statistics are.
    #[must_use]
    pub fn statistics(&self) -> SocketAddr {
        self.statistics.address
    }

    /// Has it read its files again; whatever tunnels there are stay in the old process.
    pub async fn reload(&mut self) -> Result<()> {
        let old = self.children.last().and_then(Child::id).context("HAProxy has ended")?;
        if self.plan.master {
            return signal(old, "USR2").await;
        }
        let socket = self.socket();
        self.spawn(&["-x", &socket, "-sf", &old.to_string()])
    }

    /// Kills it, with all tunnels, and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        for mut child in self.children.drain(..) {
            child.kill().await?;
        }
        self.spawn(&[])
    }

    /// Tells it to stop at once, and waits for the end of it.
    pub async fn stop(&mut self) -> Result<()> {
        for mut child in self.children.drain(..) {
            signal(child.id().context("HAProxy has ended")?, "TERM").await?;
            timeout(PATIENCE, child.wait()).await.context("HAProxy does not stop")??;
        }
        Ok(())
    }

    /// Waits until it has logged this text so often.
    pub async fn logs(&self, text: &str, times: usize) -> Result<()> {
        let begin = Instant::now();
        while self.log().matches(text).count() < times {
            if begin.elapsed() > PATIENCE {
                bail!("{text:?} is not {times} times in the log:\n{}", self.log());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until these servers are ready to it, and no others.
    pub async fn sees_up(&mut self, names: &[&str]) -> Result<()> {
        let begin = Instant::now();
        let slots = SERVERS.iter().filter(|name| self.plan.style == "port" || name.starts_with("node")).count();
        loop {
            let states = self.states().await;
            let as_wanted = |(name, up): &(String, Option<bool>)| *up == Some(names.contains(&name.as_str()));
            if states.as_ref().is_ok_and(|states| states.len() == slots && states.iter().all(as_wanted)) {
                return Ok(());
            }
            if let Some(status) = self.children.last_mut().context("HAProxy was not started")?.try_wait()? {
                bail!("haproxy ended with {status}:\n{}", self.log());
            }
            if begin.elapsed() > PATIENCE {
                bail!("HAProxy should see {names:?} and only them, but sees {states:?}:\n{}", self.log());
            }
            sleep(GLANCE).await;
        }
    }

    /// Waits until a server's column of the statistics, such as `status` or `weight`, is as wanted.
    pub async fn sees(&self, server: &str, title: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            let table = self.table().await?;
            let column = table.lines().next().and_then(|line| line.split(',').position(|found| found == title));
            let row = table.lines().find(|line| line.starts_with(&format!("{server},"))).context("no such server")?;
            let now = column.and_then(|column| row.split(',').nth(column)).context("no such column")?;
            if wanted(now) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("the {title} of {server} is {now:?}:\n{}", self.log());
            }
            sleep(GLANCE).await;
        }
    }

    /// Each server, and whether it is ready; `None` before its first check.
    async fn states(&self) -> Result<Vec<(String, Option<bool>)>> {
        let table = self.table().await?;
        let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let titles = lines.next().context("no statistics")?;
        let column = |title| titles.iter().position(|found| *found == title).context("HAProxy's table has changed");
        let (name, status, check) = (column("svname")?, column("status")?, column("check_status")?);
        let backend = column("# pxname")?;
        let servers = lines.filter(|line| line.get(check).is_some_and(|check| !check.is_empty()));
        // Where it only counts that they live; and the web server, whose page shows whether it is there.
        let servers = servers.filter(|line| !line[backend].ends_with("-degraded") && line[backend] != "web");
        Ok(servers
            .map(|line| match (line[status], line[check].trim_start_matches("* ")) {
                ("UP", "L7OK") => (line[name].to_owned(), Some(true)),
                ("DOWN", _) => (line[name].to_owned(), Some(false)),
                _ => (line[name].to_owned(), None),
            })
            .collect())
    }

    /// Its statistics, as CSV.
    pub async fn table(&self) -> Result<String> {
        let authorization = format!("Authorization: Basic {}", BASE64_STANDARD.encode(format!("fanfare:{PASSWORD}")));
        let answer = Door::plain(self.statistics.address).ask("/;csv", &["Connection: close", &authorization]).await?;
        ensure!(answer.status == 200, "no statistics: {}", answer.head);
        Ok(answer.body)
    }

    fn socket(&self) -> String {
        self.directory.path().join("admin.sock").display().to_string()
    }

    fn log_file(&self) -> std::path::PathBuf {
        self.directory.path().join("haproxy.log")
    }

    fn spawn(&mut self, arguments: &[&str]) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/haproxy");
        let style = folder.join(format!("by-{}.cfg", self.plan.style));
        let log = std::fs::File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new("haproxy");
        command.args(self.plan.master.then_some("-W"));
        command.arg("-db").arg("-f").arg(folder.join("base.cfg")).arg("-f").arg(style).args(arguments);
        command.env_clear().envs(inherited());
        command.envs(SERVERS.map(|name| (variable(name), NOWHERE)));
        command.env("WEB", NOWHERE).env("PER_ADDRESS", PER_ADDRESS).env("STATS_PASSWORD", PASSWORD);
        for (name, port) in [
            ("GATEWAY", &self.gateway),
            ("ECHO", &self.echo),
            ("HTTP", &self.http),
            ("HTTPS", &self.https),
            ("STATS", &self.statistics),
        ] {
            command.env(format!("{name}_BIND"), port.address.to_string());
        }
        command.env("ADMIN_SOCKET", self.socket());
        command.envs(self.plan.environment.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().context("haproxy cannot be run: apt-get install haproxy")?);
        Ok(())
    }
}

/// The variable that holds a server's address.
fn variable(server: &str) -> String {
    server.to_uppercase().replace('-', "_")
}
