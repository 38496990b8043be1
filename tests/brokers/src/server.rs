//! What tests do to a broker, whichever it is.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use async_trait::async_trait;

use crate::port::established;
use crate::process::Process;
use crate::wire::Wire;

/// The user of all brokers.
pub const USER: &str = "fanfare";
/// Its password.
pub const PASSWORD: &str = "hunter2";

/// Where every broker keeps its data, in its directory.
pub(crate) const DATA: &str = "data";
const SNAPSHOT: &str = "snapshot";

/// A broker that may be down. New ones do not run yet; dropped ones are killed.
///
/// In its directory are `ca.pem`, whose CA signed its certificate, and `other-ca.pem` once it was started.
#[async_trait]
pub trait Server: Debug + Send + Sync {
    /// What a node is given that is to come over the wire of this number.
    fn url(&self, wire: usize) -> String;

    /// What a node is given that is to come by no wire.
    fn inside_url(&self) -> String;

    /// The same, with a log of this name: users of different logs see nothing of each other.
    fn named_url(&self, name: &str) -> String;

    /// The same over TLS, which has a CA file as its last part.
    fn tls_url(&self, ca: &str) -> String;

    /// The ways to the broker that can be cut.
    fn wires(&self) -> &[Wire];

    /// Its process and its directory.
    fn process(&self) -> &Process;

    /// The ports that clients come to, by a wire or not.
    fn ports(&self) -> Vec<u16>;

    /// Starts it, with the data it has, and waits until it serves.
    async fn start(&self) -> Result<()>;

    /// Runs its administrator's tool by no wire, and gives what that says: `redis-cli` and `rabbitmqctl` with these
    /// words; of Kafka, which has many, the one whose class is the first word.
    async fn tool(&self, words: &[&str]) -> Result<String>;

    /// Has it end all its clients' connections; Kafka cannot do that, so each wire resets its own there.
    async fn close_connections(&self) -> Result<()>;

    /// Loses all data, while it is down: one that runs would go on without its files, or end.
    async fn wipe(&self) -> Result<()> {
        ensure!(self.process().pid().is_none(), "the broker still runs: kill it before it is wiped");
        self.process().remove(DATA)
    }

    /// Kills it (SIGKILL).
    async fn kill(&self) -> Result<()> {
        self.process().kill().await
    }

    /// Kills it and starts it again.
    async fn restart(&self) -> Result<()> {
        self.kill().await?;
        self.start().await
    }

    /// Stops it in its tracks (SIGSTOP): sockets stay open and nothing is answered.
    async fn freeze(&self) -> Result<()> {
        self.process().signal("STOP").await
    }

    /// Lets it go on (SIGCONT).
    async fn thaw(&self) -> Result<()> {
        self.process().signal("CONT").await
    }

    /// Remembers the data as they are on the disk.
    async fn snapshot(&self) -> Result<()> {
        self.process().copy(DATA, SNAPSHOT).await
    }

    /// Brings back the remembered data, while it is down.
    async fn roll_back(&self) -> Result<()> {
        self.process().copy(SNAPSHOT, DATA).await
    }

    /// How many connections its clients have.
    fn connections(&self) -> Result<usize> {
        established(&self.ports())
    }
}
