//! What stands between an accepted socket and its first request: who the client is, and whether it may come in.
//!
//! The order is the wire's: PROXY header, TLS, then HTTP with its `X-Forwarded-…` headers. Proxies are believed only when
//! they come from a trusted network; everyone else's word counts for nothing.

mod addresses;
mod forwarded;
mod pem;
mod proxy_header;
mod rate;
mod tls;
mod turned;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::addresses::{Addresses, Place};
use self::rate::Rate;
pub(crate) use self::tls::Tls;
pub use self::tls::TlsError;
pub(crate) use self::turned::Turned;
use self::turned::Warnings;
use crate::clock;
use crate::config::{Config, Network};
use crate::door::stream::Stream;
use crate::http::handshake::Host;

/// The ways into a node.
pub(crate) struct Ingress {
    proxy_protocol: bool,
    trusted: Vec<Network>,
    tls: Option<Tls>,
    addresses: Arc<Addresses>,
    rate: Mutex<Rate>,
    /// How long each of PROXY header and TLS handshake may take.
    patience: Duration,
    warnings: Warnings,
}

impl Ingress {
    pub(crate) fn new(config: &Config, tls: Option<Tls>) -> Self {
        Self {
            proxy_protocol: config.http.proxy_protocol,
            trusted: config.http.trusted_proxies.clone(),
            tls,
            addresses: Arc::new(Addresses::new(config.limits.connections_per_address)),
            rate: Mutex::new(Rate::new(config.http.accept_rate, clock::now())),
            patience: config.http.head_time,
            warnings: Warnings::default(),
        }
    }

    /// Whether a connection may come in now. A trusted proxy's always may, as it brings health checks too, and costs no
    /// handshake of TLS with each client: it is the sockets that are counted there.
    pub(crate) fn lets_in(&self, peer: SocketAddr) -> bool {
        self.trusts(peer) || self.take()
    }

    /// Whether it may become a WebSocket now.
    pub(crate) fn lets_upgrade(&self, entrant: Entrant) -> bool {
        !entrant.through_proxy || self.take()
    }

    fn take(&self) -> bool {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(clock::now())
    }

    /// Takes from a new socket what comes before HTTP.
    pub(crate) async fn enter(&self, mut tcp: TcpStream, peer: SocketAddr) -> Result<(Stream, Entrant), Turned> {
        let mut client = peer;
        if self.proxy_protocol {
            if !self.trusts(peer) {
                return Err(Turned::Untrusted);
            }
            let header = timeout(self.patience, Box::pin(proxy_header::read(&mut tcp))).await;
            let header = header.unwrap_or_else(|late| Err(late.into())).map_err(Turned::Header)?;
            client = header.unwrap_or(peer);
        }
        let stream = match &self.tls {
            None => Stream::Tcp(tcp),
            Some(tls) => Stream::encrypted(Box::pin(tls.accept(tcp, self.patience)).await.map_err(Turned::Tls)?),
        };
        let address = canonical(client);
        Ok((stream, Entrant { address, through_proxy: self.trusts(peer), is_proxy: self.trusts(client) }))
    }

    fn trusts(&self, peer: SocketAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer.ip()))
    }

    /// The client that a request comes from.
    pub(crate) fn client(&self, entrant: Entrant, headers: &HeaderMap) -> Client {
        match entrant.is_proxy {
            false => Client(entrant.address),
            true => Client(forwarded::client(headers, entrant.address, &self.trusted)),
        }
    }

    /// Whether the client is known to have come over TLS.
    pub(crate) fn over_tls(&self, entrant: Entrant, headers: &HeaderMap) -> bool {
        self.tls.is_some() || entrant.is_proxy && forwarded::over_tls(headers)
    }

    /// The host that the client asked its proxy for, where the proxy says so.
    pub(crate) fn host(&self, entrant: Entrant, headers: &HeaderMap) -> Option<Host> {
        if entrant.is_proxy { forwarded::host(headers) } else { None }
    }

    /// A place in the count of a client's address. Proxies have as many as they want.
    pub(crate) fn place(&self, client: Client) -> Result<Option<Place>, TooMany> {
        match self.trusts(client.0) {
            true => Ok(None),
            false => self.addresses.take(client.0.ip()).map(Some).ok_or(TooMany),
        }
    }

    /// Says that a socket was turned away.
    pub(crate) fn tell(&self, peer: SocketAddr, turned: &Turned) {
        self.warnings.tell(peer, turned);
    }

    /// Reads the certificate again; says whether there is one.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        self.tls.as_ref().map(Tls::reload).transpose().map(|reloaded| reloaded.is_some())
    }
}

/// A client's address has all the connections it may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooMany;

/// Who is at the other end of a socket, as far as the socket tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entrant {
    address: SocketAddr,
    /// The connection is a trusted proxy's.
    through_proxy: bool,
    /// It may speak for others.
    is_proxy: bool,
}

impl Entrant {
    /// As a client, while nobody else is named.
    pub(crate) fn client(self) -> Client {
        Client(self.address)
    }
}

/// A client's address; its port is 0 where a proxy did not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client(pub(crate) SocketAddr);

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            0 => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

/// An IPv4 client is called the same on a listener of both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
