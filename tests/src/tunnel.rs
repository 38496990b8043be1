//! A real HAProxy that passes TCP connections on to one server, in the protocol that a test chooses.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use real_brokers::{Port, Scratch, inherited};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::{PATIENCE, http};

/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(25);

/// A running HAProxy. Killed when dropped.
#[derive(Debug)]
pub struct Tunnel {
    entry: Port,
    statistics: Port,
    directory: Scratch,
    child: Child,
}

impl Tunnel {
    /// Starts it before `server`; `options` are those of HAProxy's `server` line, such as `send-proxy-v2`.
    pub async fn start(server: SocketAddr, options: &str) -> Result<Self> {
        let (entry, statistics, directory) = (Port::take()?, Port::take()?, Scratch::new("tunnel")?);
        let config = format!(
            "global\n    maxconn 8000\n    stats timeout 1h\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
             listen tunnel\n    bind {}\n    server node {server} {options}\n\
             frontend statistics\n    mode http\n    bind {}\n    stats enable\n    stats uri /\n",
            entry.address, statistics.address
        );
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file).env_clear().envs(inherited()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("haproxy cannot be run: apt-get install haproxy")?;
        let mut tunnel = Self { entry, statistics, directory, child };
        tunnel.listens().await?;
        Ok(tunnel)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.entry.address
    }

    /// Waits until HAProxy's word for the server's state begins so, as `UP` or `DRAIN`.
    pub async fn sees(&self, state: &str) -> Result<()> {
        let begin = Instant::now();
        loop {
            let now = self.state().await?;
            if now.starts_with(state) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("HAProxy sees its server {now}, not {state}");
            }
            sleep(GLANCE).await;
        }
    }

    async fn state(&self) -> Result<String> {
        let table = http::get(self.statistics.address, "/;csv").await?.body;
        let column = table.lines().next().and_then(|line| line.split(',').position(|title| title == "status"));
        let row = table.lines().find(|line| line.starts_with("tunnel,node,")).context("no server")?;
        Ok(row.split(',').nth(column.context("no state")?).context("no state")?.to_owned())
    }

    async fn listens(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.statistics.address).await.is_err() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("haproxy ended with {status}:\n{}", log());
            }
            if begin.elapsed() > PATIENCE {
                bail!("haproxy does not listen:\n{}", log());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }
}
