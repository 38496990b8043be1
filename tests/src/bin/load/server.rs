//! A server that this program starts, pinned to a core, and ends with itself.
//!
//! Owns the child process: it is killed on drop, and by the kernel should this program die first.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};

/// As much as the machine allows: the run measures what a node can do, not its limits. The environment may override it.
const UNBRIDLED: [(&str, &str); 4] = [
    ("FANFARE__HTTP__ACCEPT_RATE", "1000000"),
    ("FANFARE__LIMITS__PUBLISHES_PER_SECOND", "0"),
    ("FANFARE__LIMITS__SUBSCRIBES_PER_SECOND", "0"),
    ("FANFARE__LIMITS__HISTORY_PER_SECOND", "0"),
];
/// How long a server may take until it is ready.
const START: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_millis(5);
/// Stands in a command for the port that was chosen.
pub(crate) const PORT: &str = "{port}";

pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` on `core` and waits until `GET /ready` is answered with anything but 503.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready within 20 s.
    pub(crate) fn start(command: &[String], core: &str, address: SocketAddr) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("load-{}-{}.log", std::process::id(), address.port()));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = pinned(command, core)
            .envs(UNBRIDLED)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot run setpriv and taskset (package util-linux)")?;
        let mut server = Self { child, log };
        let deadline = Instant::now() + START;
        while !ready(address) {
            let ended = server.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let state = ended.map_or(format!("is not ready after {START:?}"), |status| format!("ended: {status}"));
                return Err(server.blame(Error::msg(format!("{} {state}", command.join(" ")))));
            }
            std::thread::sleep(PROBE);
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Adds the server's last words to an error.
    pub(crate) fn blame(&mut self, error: Error) -> Error {
        let words = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = words.lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!(" (the server has ended: {status})"),
            _ => String::new(),
        };
        match last.is_empty() {
            true if state.is_empty() => error,
            true => anyhow!("{error:#}{state}"),
            false => anyhow!("{error:#}{state}; the server's last words:\n  {last}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about an error here: either the child has ended already, or the kernel ends it with us.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_file(&self.log));
    }
}

/// A command that runs on `core` only and dies with this program.
fn pinned(command: &[String], core: &str) -> Command {
    let mut pinned = Command::new("setpriv");
    pinned.args(["--pdeathsig", "KILL", "taskset", "-c", core]).args(command);
    pinned
}

/// This program's own helper process: it inherits our core and dies with us.
pub(crate) fn helper(arguments: &[String]) -> Result<Command> {
    let mut helper = Command::new("setpriv");
    helper.args(["--pdeathsig", "KILL"]).arg(std::env::current_exe()?).args(arguments);
    Ok(helper)
}

/// Moves this process to `core`.
pub(crate) fn move_to(core: &str) -> Result<()> {
    let pid = std::process::id().to_string();
    let output = Command::new("taskset").args(["-p", "-c", core, &pid]).output();
    let output = output.context("cannot run taskset (package util-linux)")?;
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "cannot move the client to core {core}: {}", why.trim());
    Ok(())
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether `/ready` is answered with anything but 503: servers that know no readiness say 404, or the like.
fn ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status[9..] != b"503")
    };
    ask().unwrap_or(false)
}
