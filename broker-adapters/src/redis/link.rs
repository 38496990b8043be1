//! Connections to Redis: never repaired; a broken one is replaced by its next user.
//!
//! A connection that owes an answer for too long is given up, whatever its socket says, and so is one that leads to
//! another server than the newest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::dial::{Dialer, Scripts};
use super::primary::Place;
use super::refusal::Refusal;
use crate::broker::LinkError;
use crate::turns::{Turn, Turns};

/// How long Redis may owe an answer, beside the time for the bytes under way.
const ANSWER: Duration = Duration::from_secs(1);
/// The least speed that is expected of the network: 1 MB/s.
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
    /// Over a connection whose driver runs by now, to a server that is yet to be asked who it is.
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

    /// Sends commands and waits for one answer to each, which may be an error of the server.
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

/// A place for one connection, made when it is first needed and again when it has failed.
pub(super) struct Line {
    dialer: Arc<Dialer>,
    state: Mutex<State>,
    turns: Turns,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    /// The last failure, shared by all who waited for it.
    failed: Option<(Instant, LinkError)>,
    closed: bool,
}

impl Line {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer, state: Mutex::default(), turns: Turns::default() }
    }

    /// The connection. An error means that nothing was sent.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Arc<Link>, LinkError> {
        let asked = Instant::now();
        let mut state = self.lock(deadline).await?;
        self.connect(&mut state, asked, deadline).await
    }

    /// The connection, for an append that must not overtake those before it. An error means that nothing was sent.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<(Arc<Link>, Turn), LinkError> {
        let asked = Instant::now();
        let mut state = self.lock(deadline).await?;
        if !state.link.as_ref().is_some_and(|link| self.serves(link)) {
            timeout_at(deadline, self.turns.all_ended(asked)).await.map_err(late)??;
        }
        let link = self.connect(&mut state, asked, deadline).await?;
        Ok((link, self.turns.take(asked).await?))
    }

    async fn lock(&self, deadline: Instant) -> Result<MutexGuard<'_, State>, LinkError> {
        let state = timeout_at(deadline, self.state.lock()).await.map_err(late)?;
        if state.closed { Err(LinkError::new("closed")) } else { Ok(state) }
    }

    async fn connect(&self, state: &mut State, asked: Instant, deadline: Instant) -> Result<Arc<Link>, LinkError> {
        if let Some(link) = state.link.as_ref().filter(|link| self.serves(link)) {
            return Ok(Arc::clone(link));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        state.link = None;
        match timeout_at(deadline, self.dialer.dial()).await.map_err(late)? {
            Ok(link) => Ok(Arc::clone(state.link.insert(Arc::new(link)))),
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn serves(&self, link: &Link) -> bool {
        link.usable() && self.dialer.primary.is_current(&link.place)
    }

    /// The server refused something: all links to it are left if others may be better.
    pub(super) fn heed(&self, link: &Link, refusal: &Refusal) {
        if refusal.ends_links() {
            self.dialer.primary.left(&link.place, self.dialer.named(LinkError::from(refusal)));
        } else if refusal.is_no_script() {
            link.give_up();
        }
    }

    /// The next request makes a new connection; those under way may still be answered.
    pub(super) async fn hang_up(&self) {
        self.state.lock().await.link = None;
    }

    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        if let Some(link) = state.link.take() {
            link.driver.abort();
        }
    }
}

fn late(_: Elapsed) -> LinkError {
    LinkError::new("no connection to Redis in time")
}
