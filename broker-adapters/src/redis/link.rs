//! Connections to Redis: never repaired; a broken one is replaced by its next user.
//!
//! A connection that owes an answer for too long is given up, even if its socket is open. So is one that leads to another
//! server than the newest.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::dial::{Dialer, Scripts};
use super::primary::Place;
use super::words::Refusal;
use crate::broker::LinkError;
use crate::line::{Dial, Line};

/// How long Redis may owe an answer, beside the time for the bytes under way.
const ANSWER: Duration = Duration::from_secs(1);
/// The slowest network that is expected: 1 MB/s.
const PER_BYTE: Duration = Duration::from_micros(1);

/// One connection. Dropping it closes it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    /// The scripts, as this server knows them.
    pub(super) scripts: Scripts,
    /// Where it leads.
    pub(super) place: Place,
    /// Bytes sent and not answered.
    owed: AtomicUsize,
    given_up: AtomicBool,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Not in time.
    Late,
    /// The connection broke.
    Broken(String),
}

impl Link {
    /// Over a connection whose driver already runs. The server was not asked for its identity yet.
    pub(super) fn new(connection: MultiplexedConnection, driver: JoinHandle<()>) -> Self {
        let (scripts, place) = (Scripts::default(), Place::default());
        Self { connection, driver, scripts, place, owed: AtomicUsize::new(0), given_up: AtomicBool::new(false) }
    }

    /// Whether it may be used for a new request.
    fn usable(&self) -> bool {
        !self.driver.is_finished() && !self.given_up.load(Ordering::Relaxed)
    }

    /// No new request will use it; those under way may still be answered.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Sends commands and waits for one answer to each. An answer may be an error of the server.
    pub(super) async fn ask(&self, pipeline: &Pipeline, deadline: Instant) -> Result<Vec<Value>, NoAnswer> {
        let bytes = pipeline.cmd_iter().flat_map(Cmd::args_iter).map(|arg| size(&arg)).sum();
        let owed = Owed::new(&self.owed, bytes);
        let patience = Instant::now() + ANSWER + PER_BYTE * u32::try_from(owed.total).unwrap_or(u32::MAX);
        let answer = timeout_at(deadline.min(patience), self.ask_for_ever(pipeline)).await;
        let broken = match answer {
            Ok(Ok(values)) => return Ok(values),
            Ok(Err(why)) => NoAnswer::Broken(why),
            Err(_) if deadline < patience => return Err(NoAnswer::Late),
            Err(_) => NoAnswer::Late,
        };
        self.give_up();
        Err(broken)
    }

    /// As [`ask`](Self::ask), without an end.
    pub(super) async fn ask_for_ever(&self, pipeline: &Pipeline) -> Result<Vec<Value>, String> {
        let answer = self.connection.clone().send_packed_commands(pipeline, 0, pipeline.len()).await;
        answer.map_err(|error| error.to_string())
    }

    /// Sends one command that may block at the server, and waits for its answer.
    pub(super) async fn wait_for(&self, command: &Cmd) -> Result<Value, LinkError> {
        match self.connection.clone().send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(Refusal::new(&error).into()),
            Ok(value) => Ok(value),
            Err(error) => Err(LinkError::new(error)),
        }
    }
}

fn size(arg: &redis::Arg<&[u8]>) -> usize {
    match arg {
        redis::Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    }
}

/// A share of what a link owes, given back when dropped.
struct Owed<'a> {
    of: &'a AtomicUsize,
    bytes: usize,
    total: usize,
}

impl<'a> Owed<'a> {
    fn new(of: &'a AtomicUsize, bytes: usize) -> Self {
        Self { of, bytes, total: of.fetch_add(bytes, Ordering::Relaxed) + bytes }
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Dial for Dialer {
    type Link = Link;
    const BROKER: &'static str = "Redis";

    async fn dial(&self) -> Result<Link, LinkError> {
        self.connect().await
    }

    fn serves(&self, link: &Link) -> bool {
        link.usable() && self.primary.is_current(&link.place)
    }

    async fn hang_up(link: &Link) {
        link.driver.abort();
    }
}

impl Line<Dialer> {
    /// The server refused something. If another server may be better, all links to this one are given up.
    pub(super) fn heed(&self, link: &Link, refusal: &Refusal) {
        if refusal.ends_links() {
            self.dialer.primary.left(&link.place, self.dialer.named(LinkError::from(refusal)));
        } else if refusal.is_no_script() {
            link.give_up();
        }
    }
}
