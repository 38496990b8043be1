//! Connections to Redis for many requests at a time: never repaired; a broken one is replaced by its next user.
//!
//! A connection that owes an answer for too long is given up, even if its socket is open. So is one that leads to another
//! server than the newest.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, Value};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::dial::{Dialer, Scripts, Session};
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
    async fn over(session: Session) -> Result<Self, LinkError> {
        let Session { wire, scripts, place } = session;
        // The log-in was made already: the client library would not say why it fails.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let anonymous = RedisConnectionInfo::default().set_skip_set_lib_name();
        let connected = MultiplexedConnection::new_with_config(&anonymous, wire.into_stream(), config).await;
        let (connection, driver) = connected.map_err(LinkError::new)?;
        let (driver, given_up) = (tokio::spawn(driver), AtomicBool::new(false));
        Ok(Self { connection, driver, scripts, place, owed: AtomicUsize::new(0), given_up })
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
        let mut connection = self.connection.clone();
        let answer = connection.send_packed_commands(pipeline, 0, pipeline.len());
        let broken = match timeout_at(deadline.min(patience), answer).await {
            Ok(Ok(values)) => return Ok(values),
            Ok(Err(error)) => NoAnswer::Broken(error.to_string()),
            Err(_) if deadline < patience => return Err(NoAnswer::Late),
            Err(_) => NoAnswer::Late,
        };
        self.give_up();
        Err(broken)
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
        Link::over(self.connect().await?).await
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
