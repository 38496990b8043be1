//! Makes a connection: TCP, TLS, log-in, and the check that this node and the log in Redis fit together.
//!
//! The name is resolved each time, and each of its addresses is tried: after a failover it leads to another server.

use std::net::SocketAddr;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::diagnosis::{diagnose, is_about_certificate};
use super::primary::{Place, Primary};
use super::url::Address;
use super::wire::{Stream, Wire};
use super::words::{FOLLOW, refusal};
use crate::broker::LinkError;

/// The longest that making a connection may take, log-in included.
const DIAL: Duration = Duration::from_secs(2);
/// The longest that a TLS handshake may take: a server without TLS may wait for more.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// The oldest Redis that has streams.
const OLDEST: u32 = 5;

/// The names under which a server knows the scripts.
pub(super) struct Scripts {
    agree: Vec<u8>,
    check: Vec<u8>,
    pub(super) open: Vec<u8>,
    pub(super) append: Vec<u8>,
}

/// The scripts, in the order of [`Scripts`].
const SCRIPTS: [&str; 4] = [
    include_str!("agree.lua"),
    concat!(include_str!("partition.lua"), include_str!("check.lua")),
    concat!(include_str!("partition.lua"), include_str!("open.lua")),
    concat!(include_str!("append.lua"), include_str!("partition.lua"), include_str!("append_again.lua")),
];

/// Why there is no connection.
enum Failure {
    /// Nothing listens there.
    Unreachable(String),
    /// The reason is known.
    Known(LinkError),
    /// The server does not answer as expected.
    Unclear(SocketAddr, String),
}

/// A connection to a server that holds this node's log, or can.
pub(super) struct Session {
    pub(super) wire: Wire,
    /// The scripts, as this server knows them.
    pub(super) scripts: Scripts,
    /// Where it leads.
    pub(super) place: Place,
}

/// Makes connections to Redis.
pub(super) struct Dialer {
    pub(super) address: Address,
    pub(super) primary: Primary,
    partitions: u16,
}

impl Dialer {
    pub(super) fn new(address: Address, partitions: u16) -> Self {
        Self { address, primary: Primary::default(), partitions }
    }

    /// Connects, logs in, and makes sure that this node fits to the log.
    pub(super) async fn connect(&self) -> Result<Session, LinkError> {
        let error = match timeout(DIAL, self.dial_each()).await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(Failure::Known(error))) => error,
            Ok(Err(Failure::Unreachable(why))) => LinkError::new(why),
            Ok(Err(Failure::Unclear(socket, why))) => {
                diagnose(socket, self.address.tls.is_some()).await.unwrap_or_else(|| LinkError::new(why))
            }
            Err(_) => LinkError::new(format!("no connection within {DIAL:?}")),
        };
        Err(self.named(error))
    }

    /// An error that says which Redis it is about.
    pub(super) fn named(&self, error: LinkError) -> LinkError {
        LinkError::of(error.kind, format!("{}: {}", self.address, error.why))
    }

    /// Tries the addresses of the name in turn. A server's answer is a better reason than an address without a server.
    async fn dial_each(&self) -> Result<Session, Failure> {
        let Address { host, port, .. } = &self.address;
        let sockets = lookup_host((host.as_str(), *port)).await;
        let sockets = sockets.map_err(|error| Failure::Unreachable(format!("the name cannot be resolved: {error}")))?;
        let mut failure = Failure::Unreachable("the name has no address".into());
        for socket in sockets {
            match self.dial_one(socket).await {
                Ok(session) => return Ok(session),
                Err(Failure::Unreachable(_)) if !matches!(failure, Failure::Unreachable(_)) => {}
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    async fn dial_one(&self, socket: SocketAddr) -> Result<Session, Failure> {
        let unclear = |why: String| Failure::Unclear(socket, why);
        let stream = TcpStream::connect(socket).await.map_err(|error| Failure::Unreachable(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| Failure::Unreachable(error.to_string()))?;
        let stream: Box<dyn Stream> = match &self.address.tls {
            None => Box::new(stream),
            Some(tls) => match timeout(HANDSHAKE, tls.connector.connect(tls.name.clone(), stream)).await {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) if is_about_certificate(&error) => {
                    return Err(Failure::Known(LinkError::set_up(format!("TLS failed: {error}"))));
                }
                Ok(Err(error)) => return Err(unclear(format!("TLS failed: {error}"))),
                Err(_) => return Err(unclear(format!("no TLS handshake within {HANDSHAKE:?}"))),
            },
        };
        let mut wire = Wire::new(stream);
        let (server, scripts) = self.log_in(&mut wire).await.map_err(unclear)?.map_err(Failure::Known)?;
        self.agree(&mut wire, &scripts).await.map_err(unclear)?.map_err(Failure::Known)?;
        Ok(Session { wire, scripts, place: self.primary.arrived(server) })
    }

    /// Gives the id of the server's run and its names of the scripts.
    async fn log_in(&self, wire: &mut Wire) -> Result<Result<(String, Scripts), LinkError>, String> {
        let login = &self.address.login;
        let mut pipeline = Pipeline::with_capacity(10);
        if let Some(password) = login.password() {
            pipeline.cmd("AUTH").arg(login.username()).arg(password);
        }
        if login.db() != 0 {
            pipeline.cmd("SELECT").arg(login.db());
        }
        let entry = pipeline.len();
        // For `CLIENT LIST`; Redis before 7.2 does not know it.
        pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg("fanfare");
        pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-VER").arg(env!("CARGO_PKG_VERSION"));
        pipeline.cmd("INFO").arg("server");
        pipeline.cmd("INFO").arg("replication");
        for script in SCRIPTS {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        let mut answers = wire.ask(&pipeline).await?.into_iter();
        let entered: Vec<_> = answers.by_ref().take(entry).collect();
        let info: String = answers.by_ref().take(4).filter_map(text).collect();
        let scripts: Vec<_> = answers.collect();
        if let Some(why) = misplaced(&info) {
            return Ok(Err(why));
        }
        if let Some(refusal) = entered.iter().chain(&scripts).find_map(refusal) {
            return Ok(Err(refusal.into()));
        }
        let names = scripts.into_iter().map(|name| if let Value::BulkString(name) = name { Some(name) } else { None });
        let names = names.collect::<Option<Vec<_>>>().and_then(|names| names.try_into().ok());
        let [agree, check, open, append] = names.ok_or("not the answers of a Redis")?;
        let server = field(&info, "run_id").unwrap_or_default().to_owned();
        Ok(Ok((server, Scripts { agree, check, open, append })))
    }

    /// Whether the keys are Fanfare's or free, whether the server takes writes, and whether the log has as many
    /// partitions as this node. Nothing is written if a key belongs to another program.
    async fn agree(&self, wire: &mut Wire, scripts: &Scripts) -> Result<Result<(), LinkError>, String> {
        let adopt = self.address.adopt();
        let mut pipeline = Pipeline::with_capacity(usize::from(self.partitions));
        for partition in 0..self.partitions {
            let keys = self.address.partition_keys(partition);
            pipeline.cmd("EVALSHA").arg(&scripts.check).arg(2).arg(&keys).arg(adopt);
        }
        if let Some(refusal) = wire.ask(&pipeline).await?.iter().find_map(refusal) {
            return Ok(Err(refusal.into()));
        }
        let mut pipeline = Pipeline::with_capacity(1);
        let agree = pipeline.cmd("EVALSHA").arg(&scripts.agree).arg(1).arg(self.address.settings_key());
        agree.arg(self.partitions).arg(adopt);
        let answer = wire.ask(&pipeline).await?.into_iter().next().unwrap_or(Value::Nil);
        if let Some(refusal) = refusal(&answer) {
            return Ok(Err(refusal.into()));
        }
        let (there, here) = (text(answer).ok_or("not the answer of a Redis")?, self.partitions.to_string());
        if there == here {
            return Ok(Ok(()));
        }
        Ok(Err(LinkError::set_up(format!(
            "the log there has {there} partitions, this node is set to {here}: set this node to {there}, \
             or start a new log with another `?prefix=`"
        ))))
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    }
}

/// A line of what `INFO` says.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Why a server of this kind cannot hold a log. A server that does not answer `INFO` passes.
fn misplaced(info: &str) -> Option<LinkError> {
    if field(info, "redis_mode") == Some("sentinel") {
        let how = "it knows the primary's address: `redis-cli -p PORT SENTINEL get-master-addr-by-name NAME`";
        return Some(LinkError::set_up(format!("this is a Sentinel: {FOLLOW} ({how})")));
    }
    if field(info, "role") == Some("slave") {
        // A failover makes it the primary, or leads elsewhere.
        return Some(LinkError::new(format!("this is a replica: {FOLLOW}")));
    }
    let version = field(info, "redis_version")?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    let old = || LinkError::set_up(format!("Redis {version} has no streams: Redis {OLDEST} or newer is needed"));
    (major < OLDEST).then(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_hold_a_log_is_known_by_what_it_says() {
        for (info, word) in [
            ("# Server\r\nredis_version:7.0.15\r\nredis_mode:sentinel\r\nrun_id:1cf1\r\n", Some("get-master-addr")),
            ("redis_version:4.0.9\r\nredis_mode:standalone\r\n", Some("Redis 4.0.9")),
            ("redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:slave\r\n", Some("this is a replica")),
            ("redis_version:5.0.0\r\nredis_mode:standalone\r\n", None),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nredis_mode:cluster\r\n", None),
            ("", None),
        ] {
            let why = misplaced(info);
            assert_eq!(why.is_some(), word.is_some(), "{info}: {why:?}");
            assert!(why.is_none_or(|error| error.why.contains(word.unwrap_or_default())), "{info}");
        }
        assert_eq!(field("redis_version:7\r\nrun_id:1cf1\r\n", "run_id"), Some("1cf1"));
    }
}
