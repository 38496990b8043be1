//! A program of this workspace, run as its own process on a port of its own.
//!
//! Killed when dropped. What it prints is kept, and shown when a test fails to find what it waits for.

use std::io::PipeReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use real_brokers::{inherited, signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::conditions::{self, Conditions};
use crate::measure::Process;

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running `fanfare`, `echo-server` or other program of this workspace that says where it listens.
#[derive(Debug)]
pub struct Program {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    output: Arc<Output>,
    /// Its log, while it is not read.
    unread: Option<PipeReader>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    changed: watch::Sender<usize>,
}

impl Program {
    /// Starts a program and waits until it says `… listens on http://ADDRESS`, or `https://`.
    ///
    /// `environment` is all that it sees of one, but for `PATH`; it listens on a free port of 127.0.0.1 and has no
    /// HTTP API unless set otherwise.
    pub async fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        Self::start_under(Conditions::default(), name, arguments, environment).await
    }

    /// The same, under these conditions.
    pub async fn start_under(
        conditions: Conditions,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = conditions.command(&binary(name)?);
        let (log, unread) = conditions.log.open()?;
        command.args(arguments).env_clear().env("FANFARE__HTTP__LISTEN", "127.0.0.1:0");
        // By default it would take a port beside that of another test.
        command.env("FANFARE__API__LISTEN", "off");
        command.envs(inherited()).envs(environment.iter().copied()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        // It holds our ends of the pipes.
        drop(command);
        let output = Arc::new(Output::default());
        keep(child.stdout.take(), &output);
        keep(child.stderr.take(), &output);
        let banner = tokio::select! {
            line = output.line("listens on http", 0) => line?,
            status = child.wait() => bail!("{name} ended with {}: {}", status?, output.text()),
        };
        let address = banner.split("://").nth(1).and_then(|rest| rest.split([',', ' ']).next());
        let address = address.context("no address")?.parse()?;
        Ok(Self { address, child, output, unread })
    }

    /// Reads the log from now on.
    pub fn read_log(&mut self) {
        let output = Arc::clone(&self.output);
        if let Some(pipe) = self.unread.take() {
            conditions::read(pipe, move |line| output.push(line));
        }
    }

    /// The process's number.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// The process, to measure it.
    pub fn process(&self) -> Result<Process> {
        Ok(Process { pid: self.pid()? })
    }

    /// The first line printed so far or yet to come that holds `text`.
    pub async fn line(&self, text: &str) -> Result<String> {
        self.output.line(text, 0).await
    }

    /// The same after so many of these lines.
    pub async fn nth_line(&self, text: &str, after: usize) -> Result<String> {
        self.output.line(text, after).await
    }

    /// All that was printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Sends a signal, by its name without SIG.
    pub async fn signal(&self, name: &str) -> Result<()> {
        signal(self.pid()?, name).await
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(timeout(PATIENCE, self.child.wait()).await.context("the process does not end")??)
    }
}

impl Output {
    fn push(&self, line: String) {
        self.lock().push(line);
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.lock().join("\n")
    }

    async fn line(&self, text: &str, after: usize) -> Result<String> {
        let mut changed = self.changed.subscribe();
        let find = || self.lock().iter().filter(|line| line.contains(text)).nth(after).cloned();
        let found = timeout(PATIENCE, async {
            loop {
                match find() {
                    Some(line) => return Some(line),
                    None => changed.changed().await.ok()?,
                }
            }
        });
        found.await.ok().flatten().with_context(|| format!("no line with {text:?} in:\n{}", self.text()))
    }
}

fn keep(pipe: Option<impl AsyncRead + Unpin + Send + 'static>, output: &Arc<Output>) {
    let Some(pipe) = pipe else { return };
    let output = Arc::clone(output);
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            output.push(line);
        }
    });
}

/// The program of the same build as the running test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("a test lies in target/PROFILE/deps")?;
    let path = [profile.join(name), test.with_file_name(name)].into_iter().find(|path| path.exists());
    path.with_context(|| format!("{name} is not built: run `cargo build --workspace` with the tests' profile first"))
}
