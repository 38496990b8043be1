//! Sockets that are closed before their first request, and the word of it.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use crate::node::metrics::Refused;
use crate::sparingly::Sparingly;

/// Time between two warnings: a proxy that is set up wrong comes with every client, and a scanner when it likes.
const SELDOM: Duration = Duration::from_secs(10);

/// Why a socket is closed before its first request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Turned {
    #[error("`http.proxy_protocol` lets only `http.trusted_proxies` connect")]
    Untrusted,
    #[error("`http.proxy_protocol` expects a PROXY protocol header: {0}")]
    Header(io::Error),
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
}

impl From<&Turned> for Refused {
    fn from(turned: &Turned) -> Self {
        match turned {
            Turned::Untrusted | Turned::Header(_) => Self::ProxyHeader,
            Turned::Tls(_) => Self::Tls,
        }
    }
}

/// Says what an operator should know of them, without a line for each.
#[derive(Debug)]
pub(super) struct Warnings(Sparingly);

impl Default for Warnings {
    fn default() -> Self {
        Self(Sparingly::per(SELDOM))
    }
}

impl Warnings {
    pub(super) fn tell(&self, peer: impl Display, turned: &Turned) {
        tracing::debug!(%peer, why = %turned, "connection turned away");
        // Anyone can fail a handshake; a missing header is most likely a proxy's or ours.
        if matches!(turned, Turned::Tls(_)) {
            return;
        }
        if let Some(times) = self.0.due(Instant::now()) {
            tracing::warn!(%peer, why = %turned, times, "connections turned away");
        }
    }
}
