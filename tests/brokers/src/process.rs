//! A broker's process and its directory. It is killed when its owner is dropped, and when the test program ends.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::home::at_home;
use crate::scratch::Scratch;

/// How long a broker may take to start on a busy machine.
const START: Duration = Duration::from_secs(90);
/// How often a starting broker is asked whether it is there.
const GLANCE: Duration = Duration::from_millis(10);
/// What the running process printed.
const OUTPUT: &str = "output.log";

/// A process that may be down.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    /// How to install it.
    missing: &'static str,
    child: Mutex<Option<Child>>,
    directory: Scratch,
}

impl Process {
    pub(crate) fn new(name: &'static str, missing: &'static str) -> Result<Self> {
        Ok(Self { name, missing, child: Mutex::default(), directory: Scratch::new(name)? })
    }

    /// A file in its directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What it printed since it was started last.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(self.file(OUTPUT)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_mut().and_then(|child| child.try_wait().ok()?.is_none().then(|| child.id())?)
    }

    /// Sends a signal, by its name without SIG.
    pub async fn signal(&self, name: &str) -> Result<()> {
        signal(self.pid().with_context(|| format!("{} does not run", self.name))?, name).await
    }

    pub(crate) async fn kill(&self) -> Result<()> {
        let child = self.lock().take();
        Ok(child.with_context(|| format!("{} does not run", self.name))?.kill().await?)
    }

    /// A program in the process's directory and with nothing of the test's environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env_clear().envs(inherited());
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Starts the process, and waits until it is ready.
    pub(crate) async fn run<F: Future<Output = bool>>(
        &self,
        command: &Command,
        is_ready: impl Fn() -> F,
    ) -> Result<()> {
        let command = command.as_std();
        // It dies with the thread that starts it.
        let mut mortal = self.command("setpriv");
        mortal.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        mortal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = File::create(self.file(OUTPUT))?;
        mortal.stdout(output.try_clone()?).stderr(output);
        let child = at_home(move || mortal.spawn()).await.context("setpriv cannot be run")?;
        *self.lock() = Some(child);
        let begin = Instant::now();
        while !is_ready().await {
            if self.pid().is_none() || begin.elapsed() > START {
                bail!("{} does not start ({}):\n{}", self.name, self.missing, self.output());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Runs one of the broker's tools to its end, and gives what it says; it must succeed.
    pub(crate) async fn tool(&self, command: &mut Command) -> Result<String> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let output = command.output().await.with_context(|| format!("{program} cannot be run: {}", self.missing))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{program}: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }

    /// Replaces a directory by a copy of another.
    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.remove(to)?;
        self.tool(self.command("cp").args(["-a", from, to])).await.map(drop)
    }

    /// Removes a directory, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match std::fs::remove_dir_all(self.file(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.lock().take() {
            // An error means that it has ended already.
            let _ = child.start_kill();
            // Until it is gone it may write once more to the directory.
            while let Ok(None) = child.try_wait() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// What every program that a test starts sees of the test's own environment: where programs are, and the mark by which
/// `tests/run` finds the leftovers of a run.
pub fn inherited() -> impl Iterator<Item = (&'static str, String)> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let run = std::env::var("FANFARE_TEST_RUN").ok().map(|run| ("FANFARE_TEST_RUN", run));
    [("PATH", path)].into_iter().chain(run)
}

/// Sends a signal to a process, by the signal's name without SIG.
pub async fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().await?;
    if status.success() { Ok(()) } else { bail!("kill -s {name} {pid} failed") }
}
