//! Opening a connection, step by step: DNS, TCP, TLS, the request and the head of the response.
//!
//! Each attempt ends within [`STEP`]. Further connections go to the address that accepted the first one.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::head::{self, Greeting, Response};
use super::socket::{Socket, Stream};
use super::trouble::{Good, Trouble, tame};
use super::trust::Tls;
use super::upgrade;
use crate::protocol::native;

/// The deadline of one attempt.
pub(crate) const STEP: Duration = Duration::from_secs(5);
/// "Too many open files", on Linux.
const EMFILE: i32 = 24;
/// Bytes of a refusal's text to read, at most.
const TEXT: usize = 512;

/// What a further connection needs: the endpoint, the address and TLS.
#[derive(Clone)]
pub(crate) struct Door<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) greeting: Greeting,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

/// The addresses of the URL's host.
pub(crate) async fn resolve(endpoint: &Endpoint) -> Result<(Vec<SocketAddr>, Good), Trouble> {
    let (host, port) = (endpoint.url.host.trim_matches(['[', ']']), endpoint.url.port);
    let found = within(lookup_host((host, port))).await.map(Iterator::collect::<Vec<_>>);
    let look = "the spelling; `getent hosts` and /etc/resolv.conf on this machine; --host with an address in the URL.";
    match found {
        Ok(addresses) if !addresses.is_empty() => {
            let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            let what = if list == [host] { "the URL has an address, not a name".to_owned() } else { list.join(", ") };
            Ok((addresses, Good::new(what, json!({"addresses": list}))))
        }
        Ok(_) => Err(Trouble::new(format!("{host} has no address"), "The name exists, but without an address.", look)),
        Err(error) if error.kind() == ErrorKind::TimedOut || error.to_string().contains("Temporary failure") => {
            Err(Trouble::new(format!("no answer about {host}: {error}"), "The name servers do not answer.", look))
        }
        Err(error) => Err(Trouble::new(format!("{host}: {error}"), "The name does not exist.", look)),
    }
}

/// Connects to the first address that accepts a connection.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> Result<((SocketAddr, TcpStream), Good), Trouble> {
    let mut failed = Vec::new();
    for address in addresses {
        match dial(*address).await {
            Ok(stream) => {
                let others: String =
                    failed.iter().map(|(error, address)| format!("; not to {address}: {error}")).collect();
                let good =
                    Good::new(format!("connected to {address}{others}"), json!({"address": address.to_string()}));
                return Ok(((*address, stream), good));
            }
            Err(error) => failed.push((error, *address)),
        }
    }
    let what: Vec<_> = failed.iter().map(|(error, address)| format!("{address}: {error}")).collect();
    let (means, look) = unreachable(failed.first().map(|(error, _)| error));
    Err(Trouble::new(what.join("; "), means, look))
}

/// What a failed connection attempt means, and what to look at.
fn unreachable(error: Option<&io::Error>) -> (&'static str, &'static str) {
    match error.map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => (
            "The machine answers, but nothing listens on this port.",
            "whether the balancer or the node runs, and on which address and port: ss -ltnp on the server.",
        ),
        Some(ErrorKind::TimedOut) => (
            "No answer at all: a firewall drops the packets, the machine is down, or its accept queue is full.",
            "firewalls and security groups; ping; on the server: ss -ltn (Recv-Q at Send-Q), nstat -az \
             TcpExtListenDrops.",
        ),
        Some(ErrorKind::AddrNotAvailable) => (
            "This machine has no source port left for that address.",
            "ss -tan | wc -l and sysctl net.ipv4.ip_local_port_range on this machine.",
        ),
        Some(ErrorKind::PermissionDenied) => ("This machine forbids the connection.", "its firewall and sandbox."),
        _ if error.and_then(io::Error::raw_os_error) == Some(EMFILE) => {
            ("This program has reached its limit of open files.", "ulimit -n, or fewer --connections.")
        }
        _ => ("This machine cannot reach that address.", "routes and addresses of this machine; IPv6 without a route."),
    }
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = within(TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn within<T>(attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(ErrorKind::TimedOut, format!("no answer within {} s", STEP.as_secs()));
    timeout(STEP, attempt).await.map_err(late)?
}

impl Door<'_> {
    /// Opens one more connection, with TLS if the URL asks for it.
    async fn open(&self) -> Result<Box<dyn Stream>, Trouble> {
        let (_, stream) = connect(&[self.address]).await?.0;
        match &self.tls {
            Some(tls) => Ok(Box::new(secure(tls, stream).await?)),
            None => Ok(Box::new(stream)),
        }
    }

    /// Opens one more WebSocket and checks its handshake.
    pub(crate) async fn socket(&self) -> Result<Socket, Trouble> {
        let (socket, response) = self.shake(self.open().await?).await?;
        upgrade::status(&response, self.endpoint)?;
        upgrade::accept(&response, &self.greeting)?;
        Ok(socket)
    }

    /// Sends the upgrade request on a new connection. Does not check the response: without a 101 the socket is useless.
    pub(crate) async fn shake(&self, stream: Box<dyn Stream>) -> Result<(Socket, Response), Trouble> {
        let (response, stream, rest) = exchange(stream, &head::upgrade(self.endpoint, &self.greeting)).await?;
        let mut socket = Socket::new(stream, rest);
        socket.node = response.header("x-backend").map(|node| tame(&node));
        socket.native = response.header("sec-websocket-protocol").as_deref() == Some(native::NAME);
        Ok((socket, response))
    }

    /// Requests the page at `/` on a new connection.
    pub(crate) async fn page(&self) -> Result<Good, Trouble> {
        let (response, ..) = exchange(self.open().await?, &head::page(self.endpoint, &self.greeting)).await?;
        let what = format!("GET / answers {}", response.line());
        match response.status {
            500.. => Err(Trouble::new(
                what,
                "Ordinary requests fail.",
                "the balancer's default backend and its health; its log.",
            )
            .with(json!({"status": response.status}))),
            status => Ok(Good::new(what, json!({"status": status}))),
        }
    }
}

/// Does the TLS handshake within [`STEP`].
pub(crate) async fn secure(
    tls: &Tls,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Trouble> {
    let late = |_| {
        Trouble::new(
            format!("no TLS within {} s", STEP.as_secs()),
            "The connection is open but silent: the listener does not speak TLS.",
            "ws:// instead of wss://; the port.",
        )
    };
    timeout(STEP, tls.connect(stream)).await.map_err(late)?
}

/// Sends a request and reads the head of the response. Returns it with the stream and the bytes after the head.
async fn exchange(stream: Box<dyn Stream>, request: &str) -> Result<(Response, Box<dyn Stream>, Vec<u8>), Trouble> {
    let late = |_| {
        Trouble::new(
            format!("no answer to the request within {} s", STEP.as_secs()),
            "The connection is open but silent: the balancer waits for a node, or the listener expects another protocol \
             than HTTP.",
            "the balancer's queue (`timeout queue`, `maxconn`); a stopped node; a listener that expects a PROXY \
             header.",
        )
    };
    timeout(STEP, answer(stream, request)).await.map_err(late)?
}

async fn answer(mut stream: Box<dyn Stream>, request: &str) -> Result<(Response, Box<dyn Stream>, Vec<u8>), Trouble> {
    let ended = |how: String| {
        Trouble::new(
            format!("{how} instead of an answer"),
            "The other side closed the connection on purpose, or it does not speak HTTP.",
            "wss:// if it is a TLS port; `tcp-request connection reject`, `silent-drop` and PROXY protocol settings of \
             the listener; the listener's log.",
        )
    };
    let broken = |error: io::Error| ended(error.to_string());
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut input = Vec::with_capacity(4 << 10);
    loop {
        if let Some((mut response, length)) = head::parse(&input).map_err(upgrade::not_http1)? {
            input.drain(..length);
            if response.status != 101 {
                response.text = text(&response, &mut stream, input).await;
                input = Vec::new();
            }
            return Ok((response, stream, input));
        }
        if input.len() > head::LONGEST {
            return Err(ended(format!("{} bytes without the end of a head", input.len())));
        }
        if stream.read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(ended("the connection ended".to_owned()));
        }
    }
}

/// The first line of a refusal in plain text.
async fn text(response: &Response, stream: &mut Box<dyn Stream>, mut input: Vec<u8>) -> String {
    let plain = response.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/plain"));
    if !plain || response.status < 400 {
        return String::new();
    }
    let length = response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(TEXT).min(TEXT);
    while input.len() < length && stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {}
    input.truncate(TEXT);
    tame(String::from_utf8_lossy(&input).lines().next().unwrap_or_default())
}
