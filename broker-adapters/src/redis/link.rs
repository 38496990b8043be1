//! Connections to Redis: made here, never repaired; a broken one is replaced by its next user.
//!
//! A connection that owes an answer for too long is given up, whatever its socket says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, ServerError, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::url::Address;
use crate::broker::LinkError;

/// The longest that making a connection may take, log-in included.
const DIAL: Duration = Duration::from_secs(2);
/// How long Redis may owe an answer, beside the time for the bytes under way.
const ANSWER: Duration = Duration::from_secs(1);
/// The least speed that is expected of the network: 1 MB/s.
const PER_BYTE: Duration = Duration::from_micros(1);

/// All that is needed to make a connection.
pub(super) struct Dialer {
    pub(super) address: Address,
    pub(super) partitions: u16,
}

/// One connection. Dropping it closes it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    /// The name under which Redis knows the append script.
    pub(super) append_sha: Vec<u8>,
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

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Dialer {
    /// Connects, logs in, and makes sure that this node fits to the log.
    pub(super) async fn dial(&self) -> Result<Link, LinkError> {
        let Address { host, port, .. } = &self.address;
        let named = |why: String| LinkError(format!("Redis at {host}:{port}: {why}"));
        match timeout(DIAL, self.dial_for_ever()).await {
            Ok(result) => result.map_err(named),
            Err(_) => Err(named(format!("no connection within {DIAL:?}"))),
        }
    }

    async fn dial_for_ever(&self) -> Result<Link, String> {
        let Address { host, port, tls, login, .. } = &self.address;
        let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let wire: Box<dyn Wire> = match tls {
            None => Box::new(socket),
            Some(tls) => {
                let connected = tls.connector.connect(tls.name.clone(), socket).await;
                Box::new(connected.map_err(|error| format!("TLS failed: {error}"))?)
            }
        };
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(login, wire, config).await.map_err(|error| explain(&error))?;
        let mut link = Link {
            connection,
            driver: tokio::spawn(driver),
            append_sha: Vec::new(),
            owed: AtomicUsize::new(0),
            given_up: AtomicBool::new(false),
        };
        link.append_sha = self.greet(&link).await?;
        Ok(link)
    }

    async fn greet(&self, link: &Link) -> Result<Vec<u8>, String> {
        let mut pipeline = Pipeline::with_capacity(2);
        let agree = pipeline.cmd("EVAL").arg(include_str!("agree.lua")).arg(1);
        agree.arg(self.address.settings_key()).arg(self.partitions);
        pipeline.cmd("SCRIPT").arg("LOAD").arg(include_str!("append.lua"));
        let values = link.ask_for_ever(&pipeline).await?;
        let [Value::BulkString(partitions), Value::BulkString(sha)] = &values[..] else {
            return Err(values.iter().find_map(refusal).unwrap_or_else(|| "not the answer of a Redis".into()));
        };
        let (there, here) = (String::from_utf8_lossy(partitions), self.partitions.to_string());
        if there != here {
            return Err(format!(
                "the log there has {there} partitions, this node is set to {here}: set this node to {there}, \
                 or start a new log with another `?prefix=`"
            ));
        }
        Ok(sha.clone())
    }
}

impl Link {
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
        answer.map_err(|error| explain(&error))
    }

    /// Sends one command that may block at the server, and waits for its answer.
    pub(super) async fn wait_for(&self, command: &Cmd) -> Result<Value, LinkError> {
        match self.connection.clone().send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(LinkError(describe(&error))),
            Ok(value) => Ok(value),
            Err(error) => Err(LinkError(explain(&error))),
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
        Self { dialer, state: Mutex::default() }
    }

    /// The connection. An error means that nothing was sent.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Arc<Link>, LinkError> {
        let asked = Instant::now();
        let late = |_| LinkError::new("no connection to Redis in time");
        let mut state = timeout_at(deadline, self.state.lock()).await.map_err(late)?;
        if state.closed {
            return Err(LinkError::new("closed"));
        }
        if let Some(link) = state.link.as_ref().filter(|link| link.usable()) {
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

    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        if let Some(link) = state.link.take() {
            link.driver.abort();
        }
    }
}

/// The server's error in a value, if it is one.
pub(super) fn refusal(value: &Value) -> Option<String> {
    match value {
        Value::ServerError(error) => Some(describe(error)),
        _ => None,
    }
}

/// A server's error, with what to do about it where that is known.
fn describe(error: &ServerError) -> String {
    let advice = match error.code() {
        "NOAUTH" => " (put the password into the broker's URL)",
        "MOVED" | "ASK" | "CROSSSLOT" => " (Redis Cluster is not supported yet; use a single primary)",
        _ => "",
    };
    format!("{} {}{advice}", error.code(), error.details().unwrap_or_default())
}

fn explain(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::AuthenticationFailed => "it refused the user or the password of the broker's URL".into(),
        _ => error.to_string(),
    }
}
