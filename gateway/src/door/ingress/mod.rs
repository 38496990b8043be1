//! The steps from an accepted socket to its first request: they find the client's address and apply limits.
//!
//! The order is that on the wire: PROXY header, TLS, then HTTP with its `X-Forwarded-…` headers. Only proxies from a trusted
//! network are believed; other clients' headers are ignored.

mod addresses;
mod forwarded;
mod pem;
mod proxy_header;
mod rate;
mod rejection;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::addresses::{Addresses, Place};
use self::rate::Rate;
pub(crate) use self::rejection::Rejection;
use self::rejection::Warnings;
pub(crate) use self::tls::Tls;
pub use self::tls::TlsError;
use crate::clock;
use crate::config::{Config, Network};
use crate::door::stream::Stream;
use crate::http::handshake::Host;

/// The settings and counts for new connections.
pub(crate) struct Ingress {
    proxy_protocol: bool,
    trusted: Vec<Network>,
    tls: Option<Tls>,
    addresses: Arc<Addresses>,
    rate: Mutex<Rate>,
    /// The deadline for the PROXY header, and again for the TLS handshake.
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

    /// Whether to accept a connection now. Trusted proxies bypass the rate here: they carry health checks, and their
    /// connections cost no TLS handshake per client. Their WebSockets count in [`lets_upgrade`](Self::lets_upgrade).
    pub(crate) fn lets_in(&self, peer: SocketAddr) -> bool {
        self.trusts(peer) || self.take()
    }

    /// Whether a connection may become a WebSocket now. Limits only connections through a trusted proxy, since the others
    /// counted when they were accepted.
    pub(crate) fn lets_upgrade(&self, entrant: Entrant) -> bool {
        !entrant.through_proxy || self.take()
    }

    fn take(&self) -> bool {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(clock::now())
    }

    /// Reads the PROXY header of a new socket and does the TLS handshake, as configured.
    pub(crate) async fn enter(&self, mut tcp: TcpStream, peer: SocketAddr) -> Result<(Stream, Entrant), Rejection> {
        let mut client = peer;
        if self.proxy_protocol {
            if !self.trusts(peer) {
                return Err(Rejection::Untrusted);
            }
            let header = timeout(self.patience, Box::pin(proxy_header::read(&mut tcp))).await;
            let header = header.unwrap_or_else(|late| Err(late.into())).map_err(Rejection::Header)?;
            client = header.unwrap_or(peer);
        }
        let stream = match &self.tls {
            None => Stream::Tcp(tcp),
            Some(tls) => Stream::encrypted(Box::pin(tls.accept(tcp, self.patience)).await.map_err(Rejection::Tls)?),
        };
        let address = canonical(client);
        Ok((stream, Entrant { address, through_proxy: self.trusts(peer), is_proxy: self.trusts(client) }))
    }

    fn trusts(&self, peer: SocketAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer.ip()))
    }

    /// The client of a request.
    pub(crate) fn client(&self, entrant: Entrant, headers: &HeaderMap) -> Client {
        match entrant.is_proxy {
            false => Client(entrant.address),
            true => Client(forwarded::client(headers, entrant.address, &self.trusted)),
        }
    }

    /// Whether the client is known to use TLS.
    pub(crate) fn over_tls(&self, entrant: Entrant, headers: &HeaderMap) -> bool {
        self.tls.is_some() || entrant.is_proxy && forwarded::over_tls(headers)
    }

    /// The host that the client asked its proxy for, if the proxy forwards it.
    pub(crate) fn host(&self, entrant: Entrant, headers: &HeaderMap) -> Option<Host> {
        if entrant.is_proxy { forwarded::host(headers) } else { None }
    }

    /// Takes a place in the count of a client's address. Trusted proxies have no limit.
    pub(crate) fn place(&self, client: Client) -> Result<Option<Place>, TooMany> {
        match self.trusts(client.0) {
            true => Ok(None),
            false => self.addresses.take(client.0.ip()).map(Some).ok_or(TooMany),
        }
    }

    /// Logs that a socket was turned away.
    pub(crate) fn tell(&self, peer: SocketAddr, rejection: &Rejection) {
        self.warnings.tell(peer, rejection);
    }

    /// Reads the certificate again. Returns whether one is configured.
    ///
    /// # Errors
    /// Fails if a file cannot be used; the certificate then stays as it was.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        self.tls.as_ref().map(Tls::reload).transpose().map(|reloaded| reloaded.is_some())
    }
}

/// A client's address already has as many connections as it may.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooMany;

/// The other end of a socket, before any HTTP header is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entrant {
    /// The address from the PROXY header, otherwise that of the peer.
    address: SocketAddr,
    /// The peer is a trusted proxy.
    through_proxy: bool,
    /// The address is a trusted proxy's, so its `X-Forwarded-…` headers are believed.
    is_proxy: bool,
}

impl Entrant {
    /// The client, if no header names another one.
    pub(crate) fn client(self) -> Client {
        Client(self.address)
    }
}

/// A client's address. The port is 0 if a proxy did not forward it.
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

/// An IPv4 address in its IPv4 form, also on a listener for both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
