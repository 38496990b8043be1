//! A real `redis-server`, set up as `deploy/brokers/redis.yaml` sets it up: nothing acknowledged is lost when it is killed.
//!
//! Owns its port and its directory for as long as it lives, running or not.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::PATIENCE;
use crate::port::Port;
use crate::program::{inherited, signal};
use crate::scratch::Scratch;

/// How often a starting server is asked whether it answers.
const GLANCE: Duration = Duration::from_millis(5);

/// A Redis that may be down.
#[derive(Debug)]
pub struct Redis {
    port: Port,
    directory: Scratch,
    child: Option<Child>,
}

impl Redis {
    /// One that does not run yet.
    pub fn new() -> Result<Self> {
        Ok(Self { port: Port::take()?, directory: Scratch::new("redis")?, child: None })
    }

    /// What nodes are given.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Starts it, with the data it had, and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let log = self.directory.path().join("redis.log");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.number().to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir"]);
        command.arg(self.directory.path()).arg("--logfile").arg(&log);
        command.env_clear().envs(inherited()).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().context("redis-server cannot be run: apt-get install redis-server")?);
        let begin = Instant::now();
        while self.command("PING").await.ok().as_deref() != Some("+PONG") {
            if begin.elapsed() > PATIENCE {
                bail!("redis-server does not answer:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Kills it (SIGKILL).
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("Redis does not run")?;
        child.start_kill()?;
        Ok(child.wait().await?)
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.start().await
    }

    /// Stops it in its tracks (SIGSTOP): sockets stay open and nothing is answered.
    pub async fn freeze(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// Lets it go on (SIGCONT).
    pub async fn thaw(&self) -> Result<()> {
        self.signal("CONT").await
    }

    /// Deletes all data.
    pub async fn flush(&self) -> Result<()> {
        self.command("FLUSHALL").await.map(drop)
    }

    /// Closes all connections but its own; gives how many.
    pub async fn cut(&self) -> Result<usize> {
        let killed = self.command("CLIENT KILL TYPE normal SKIPME yes").await?;
        killed.trim_start_matches(':').parse().with_context(|| format!("CLIENT KILL gives {killed}"))
    }

    /// The first line of the answer to a command.
    pub async fn command(&self, words: &str) -> Result<String> {
        let asked = async {
            let mut stream = TcpStream::connect(self.port.address).await?;
            stream.write_all(format!("{words}\r\n").as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\n") && stream.read_buf(&mut answer).await? > 0 {}
            let answer = String::from_utf8_lossy(&answer).into_owned();
            match answer.lines().next() {
                Some(line) if !line.starts_with('-') => Ok(line.to_owned()),
                _ => bail!("Redis answers {answer:?} to {words}"),
            }
        };
        timeout(PATIENCE, asked).await.context("Redis does not answer")?
    }

    async fn signal(&self, name: &str) -> Result<()> {
        let child = self.child.as_ref().and_then(Child::id);
        signal(child.context("Redis does not run")?, name).await
    }
}
