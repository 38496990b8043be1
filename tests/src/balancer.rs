//! A real HAProxy with `deploy/haproxy/haproxy.cfg` as it is.
//!
//! A server that a test does not have points at a port that nothing listens on, and is out.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use real_brokers::{Port, Scratch, inherited};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::PATIENCE;
use crate::http;

/// Where nothing listens.
const NOWHERE: &str = "127.0.0.1:1";

/// The servers of the configuration.
const SERVERS: [&str; 5] = ["node-1", "node-2", "node-3", "echo-1", "echo-2"];

/// How often HAProxy is asked what it thinks of its servers.
const GLANCE: Duration = Duration::from_millis(25);

/// A running HAProxy.
#[derive(Debug)]
pub struct Balancer {
    gateway: Port,
    echo: Port,
    statistics: Port,
    directory: Scratch,
    servers: Vec<(String, String)>,
    /// The last one listens; those before it keep the tunnels that they had.
    children: Vec<Child>,
}

impl Balancer {
    /// Starts it before these servers: the names `node-1` … and `echo-1` …, with their addresses.
    pub fn start<'a>(servers: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> Result<Self> {
        let servers = servers.into_iter().map(|(name, address)| (name.to_owned(), address.to_string())).collect();
        let mut balancer = Self {
            gateway: Port::take()?,
            echo: Port::take()?,
            statistics: Port::take()?,
            directory: Scratch::new("haproxy")?,
            servers,
            children: Vec::new(),
        };
        balancer.spawn(&[])?;
        Ok(balancer)
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

    /// Where the statistics are.
    #[must_use]
    pub fn statistics(&self) -> SocketAddr {
        self.statistics.address
    }

    /// Starts a new process that takes the listeners over; the old one keeps its tunnels.
    pub fn reload(&mut self) -> Result<()> {
        let old = self.children.last().and_then(Child::id).context("HAProxy has ended")?.to_string();
        let socket = self.socket();
        self.spawn(&["-x", &socket, "-sf", &old])
    }

    /// Kills it, with all tunnels, and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        for mut child in self.children.drain(..) {
            child.kill().await?;
        }
        self.spawn(&[])
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until these servers are ready to it, and no others.
    pub async fn sees_up(&mut self, names: &[&str]) -> Result<()> {
        let begin = Instant::now();
        loop {
            let states = self.states().await;
            let as_wanted = |(name, up): &(String, Option<bool>)| *up == Some(names.contains(&name.as_str()));
            if states.as_ref().is_ok_and(|states| states.len() == SERVERS.len() && states.iter().all(as_wanted)) {
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

    /// Each server, and whether it is ready; `None` before its first check.
    async fn states(&self) -> Result<Vec<(String, Option<bool>)>> {
        let table = http::get(self.statistics.address, "/;csv").await?.body;
        let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let titles = lines.next().context("no statistics")?;
        let column = |title| titles.iter().position(|found| *found == title).context("HAProxy's table has changed");
        let (name, status, check) = (column("svname")?, column("status")?, column("check_status")?);
        let backend = column("# pxname")?;
        let servers = lines.filter(|line| line.get(check).is_some_and(|check| !check.is_empty()));
        // Where it only counts that they live.
        let servers = servers.filter(|line| !line[backend].ends_with("-degraded"));
        Ok(servers
            .map(|line| match (line[status], line[check].trim_start_matches("* ")) {
                ("UP", "L7OK") => (line[name].to_owned(), Some(true)),
                ("DOWN", _) => (line[name].to_owned(), Some(false)),
                _ => (line[name].to_owned(), None),
            })
            .collect())
    }

    fn socket(&self) -> String {
        self.directory.path().join("admin.sock").display().to_string()
    }

    fn log_file(&self) -> std::path::PathBuf {
        self.directory.path().join("haproxy.log")
    }

    fn spawn(&mut self, arguments: &[&str]) -> Result<()> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/haproxy/haproxy.cfg");
        let log = std::fs::File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file).args(arguments);
        command.env_clear().envs(inherited());
        for slot in SERVERS {
            let address = self.servers.iter().find(|(name, _)| name == slot).map_or(NOWHERE, |(_, address)| address);
            command.env(slot.to_uppercase().replace('-', "_"), address);
        }
        for (variable, port) in [("GATEWAY", &self.gateway), ("ECHO", &self.echo), ("STATS", &self.statistics)] {
            command.env(format!("{variable}_BIND"), port.address.to_string());
        }
        command.env("ADMIN_SOCKET", self.socket()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push(command.spawn().context("haproxy cannot be run: apt-get install haproxy")?);
        Ok(())
    }
}
