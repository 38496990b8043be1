//! Fetches a page by HTTP for the node itself: bounded in size and time, without redirects.
//!
//! Runs on the node's main runtime. Its errors name no URL, since a query may hold a secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, CACHE_CONTROL, USER_AGENT};
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// The time for one page, from the name's resolution to the last byte.
const TIME: Duration = Duration::from_secs(5);
/// The largest body, in bytes.
const BODY: usize = 256 * 1024;
const AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// Why a page cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("it cannot be reached, or its certificate is not trusted")]
    Unreachable,
    #[error("there was no whole answer within {} s", TIME.as_secs())]
    Slow,
    #[error("it redirects (status {0}), and redirects are not followed: configure the final URL")]
    Redirect(u16),
    #[error("it answers with status {0}")]
    Status(u16),
    #[error("its answer is larger than {} KiB", BODY / 1024)]
    Large,
    #[error("its answer broke off")]
    Broken,
}

/// A page and how long it may be kept.
pub(super) struct Page {
    pub(super) body: Bytes,
    pub(super) max_age: Option<Duration>,
}

/// An HTTP client.
pub(super) struct Client(hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

/// The system has no CA certificates, so nothing could be trusted.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoRoots;

impl Client {
    /// A client that trusts the system's CAs (or those in the file that the variable `SSL_CERT_FILE` names). They are read
    /// only if they are needed.
    pub(super) fn new(over_tls: bool) -> Result<Self, NoRoots> {
        let mut roots = RootCertStore::empty();
        if over_tls {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(NoRoots);
            }
        }
        Ok(Self::trusting(roots))
    }

    fn trusting(roots: RootCertStore) -> Self {
        let tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // Pages are minutes apart: an idle connection would only be closed by the other side.
        let mut client = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Self(client.pool_max_idle_per_host(0).build(connector))
    }

    /// Fetches a page with GET.
    pub(super) async fn get(&self, url: &str) -> Result<Page, FetchError> {
        timeout(TIME, self.page(url)).await.map_err(|_| FetchError::Slow)?
    }

    async fn page(&self, url: &str) -> Result<Page, FetchError> {
        let request = Request::get(url).header(USER_AGENT, AGENT).header(ACCEPT, "application/json");
        let request = request.body(Empty::new()).map_err(|_| FetchError::Unreachable)?;
        let response = self.0.request(request).await.map_err(|_| FetchError::Unreachable)?;
        let (status, max_age) = (response.status(), max_age(response.headers()));
        if status.is_redirection() {
            return Err(FetchError::Redirect(status.as_u16()));
        }
        if status != 200 {
            return Err(FetchError::Status(status.as_u16()));
        }
        let body = Limited::new(response.into_body(), BODY)
            .collect()
            .await
            .map_err(|error| if error.is::<LengthLimitError>() { FetchError::Large } else { FetchError::Broken })?;
        Ok(Page { body: body.to_bytes(), max_age })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// RFC 9111 §5.2.2.1.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    crate::field::elements(headers, CACHE_CONTROL.as_str()).find_map(|directive| {
        let (name, seconds) = std::str::from_utf8(directive).ok()?.split_once('=')?;
        let seconds = seconds.trim_matches('"').parse().ok()?;
        name.eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests;
