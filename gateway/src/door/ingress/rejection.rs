//! Why sockets are closed before their first request, and the warnings about them.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use crate::node::metrics::Refused;
use crate::sparingly::Sparingly;

/// The interval between two warnings: a misconfigured proxy or a scanner may cause many rejections.
const SELDOM: Duration = Duration::from_secs(10);

/// Why a socket is closed before its first request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("`http.proxy_protocol` lets only `http.trusted_proxies` connect")]
    Untrusted,
    #[error("`http.proxy_protocol` expects a PROXY protocol header: {0}")]
    Header(io::Error),
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
}

impl From<&Rejection> for Refused {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::Untrusted | Rejection::Header(_) => Self::ProxyHeader,
            Rejection::Tls(_) => Self::Tls,
        }
    }
}

/// Warns the operator about rejections, at most once per [`SELDOM`].
#[derive(Debug)]
pub(super) struct Warnings(Sparingly);

impl Default for Warnings {
    fn default() -> Self {
        Self(Sparingly::per(SELDOM))
    }
}

impl Warnings {
    pub(super) fn tell(&self, peer: impl Display, rejection: &Rejection) {
        tracing::debug!(%peer, why = %rejection, "connection turned away");
        // Any client can fail a TLS handshake. A missing PROXY header is most likely a wrong configuration.
        if matches!(rejection, Rejection::Tls(_)) {
            return;
        }
        if let Some(times) = self.0.due(Instant::now()) {
            tracing::warn!(%peer, why = %rejection, times, "connections turned away");
        }
    }
}
