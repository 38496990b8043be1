//! HTTP requests of the node itself: bounded in size and time, without redirects.
//!
//! Runs on the node's main runtime, never on a worker's: its connections live on the runtime that sends the request. Its errors
//! name no URL, since a query may hold a secret.

mod reach;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

pub(crate) use self::reach::Reach;
use self::reach::{Resolver, is_out_of_reach};

/// The time for one page, from the name's resolution to the last byte.
const PAGE_TIME: Duration = Duration::from_secs(5);
/// The time for one answer of a node's API, which may wait for the broker.
const ASK_TIME: Duration = Duration::from_secs(15);
/// The largest page, in bytes.
const PAGE: usize = 256 * 1024;
/// How long an idle connection is kept: less than common servers keep it (Node.js 5 s), so that it is not used just when the
/// other side closes it.
const IDLE: Duration = Duration::from_secs(4);
const AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// Why there is no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("it cannot be reached, or its certificate is not trusted")]
    Unreachable,
    #[error("its name leads to a network that requests may not go to")]
    OutOfReach,
    #[error("there was no whole answer within {0:?}")]
    Slow(Duration),
    #[error("it redirects (status {0}), and redirects are not followed: configure the final URL")]
    Redirect(u16),
    #[error("it answers with status {0}")]
    Status(u16),
    #[error("its answer is larger than {0} KiB")]
    Large(usize),
    #[error("its answer broke off")]
    Broken,
}

/// A page and how long it may be kept.
pub(crate) struct Page {
    pub(crate) body: Bytes,
    pub(crate) max_age: Option<Duration>,
}

/// An HTTP client.
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>);

/// The system has no CA certificates, so nothing could be trusted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoRoots;

impl Client {
    /// A client that trusts the system's CAs (or those in the file that the variable `SSL_CERT_FILE` names). They are read
    /// only if they are needed. Keeps so many idle connections to each server.
    pub(crate) fn new(over_tls: bool, idle: usize) -> Result<Self, NoRoots> {
        Self::within(Reach::ANYWHERE, over_tls, idle)
    }

    /// The same, for addresses within reach. An address in a URL is not checked.
    pub(crate) fn within(reach: Reach, over_tls: bool, idle: usize) -> Result<Self, NoRoots> {
        let mut roots = RootCertStore::empty();
        if over_tls {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(NoRoots);
            }
        }
        Ok(Self::trusting(roots, reach, idle))
    }

    fn trusting(roots: RootCertStore, reach: Reach, idle: usize) -> Self {
        let tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new_with_resolver(Resolver::new(reach));
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let mut client = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(idle);
        Self(client.build(builder.wrap_connector(connector)))
    }

    /// Fetches a page with GET.
    pub(crate) async fn get(&self, url: &str) -> Result<Page, FetchError> {
        let request = Request::get(url).header(USER_AGENT, AGENT).header(ACCEPT, JSON);
        let request = request.body(Full::default()).map_err(|_| FetchError::Unreachable)?;
        let (headers, body) = within(PAGE_TIME, self.exchange(request, PAGE)).await?;
        Ok(Page { body, max_age: max_age(&headers) })
    }

    /// Posts JSON, with these headers, and returns the body of the answer, which has the status 200 and at most `most` bytes.
    /// If the connection breaks, which a kept one may do at any time, asks once more.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: &HeaderMap,
        json: Bytes,
        (time, most): (Duration, usize),
    ) -> Result<Bytes, FetchError> {
        let request = || posted(url, headers, json.clone());
        let answer = async {
            match self.exchange(request()?, most).await {
                Err(FetchError::Broken) => self.exchange(request()?, most).await,
                answer => answer,
            }
        };
        Ok(within(time, answer).await?.1)
    }

    /// Posts JSON, with these headers. Any status of success is well; what the answer says beside it is ignored.
    pub(crate) async fn notify(
        &self,
        url: &str,
        headers: &HeaderMap,
        json: Bytes,
        time: Duration,
    ) -> Result<(), FetchError> {
        let answered = async {
            let (head, body) = self.begin(posted(url, headers, json)?).await?;
            // A body that was read leaves the connection for the next request.
            let _ = whole(body, PAGE).await;
            if head.status.is_success() { Ok(()) } else { Err(FetchError::Status(head.status.as_u16())) }
        };
        within(time, answered).await
    }

    /// Sends a request with these headers, and JSON unless that is empty. Returns the status and the body, whatever they are; a
    /// redirect is an error.
    pub(crate) async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        json: Bytes,
    ) -> Result<(StatusCode, Bytes), FetchError> {
        let mut request = Request::builder().method(method).uri(url).header(USER_AGENT, AGENT).header(ACCEPT, JSON);
        if !json.is_empty() {
            request = request.header(CONTENT_TYPE, JSON);
        }
        let mut request = request.body(Full::new(json)).map_err(|_| FetchError::Unreachable)?;
        request.headers_mut().extend(headers.clone());
        let answer = async {
            let (head, body) = self.begin(request).await?;
            Ok((head.status, whole(body, PAGE).await?))
        };
        within(ASK_TIME, answer).await
    }

    /// Sends a request and reads its answer, which has the status 200.
    async fn exchange(&self, request: Request<Full<Bytes>>, most: usize) -> Result<(HeaderMap, Bytes), FetchError> {
        let (head, body) = self.begin(request).await?;
        if head.status != 200 {
            return Err(FetchError::Status(head.status.as_u16()));
        }
        Ok((head.headers, whole(body, most).await?))
    }

    /// Sends a request and reads the head of its answer.
    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<(Parts, Incoming), FetchError> {
        let lost = |error: hyper_util::client::legacy::Error| match error.is_connect() {
            true if is_out_of_reach(&error) => FetchError::OutOfReach,
            true => FetchError::Unreachable,
            false => FetchError::Broken,
        };
        let (head, body) = self.0.request(request).await.map_err(lost)?.into_parts();
        if head.status.is_redirection() {
            return Err(FetchError::Redirect(head.status.as_u16()));
        }
        Ok((head, body))
    }
}

fn posted(url: &str, headers: &HeaderMap, json: Bytes) -> Result<Request<Full<Bytes>>, FetchError> {
    let mut request = Request::post(url).body(Full::new(json)).map_err(|_| FetchError::Unreachable)?;
    request.headers_mut().extend(headers.clone());
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(JSON));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    Ok(request)
}

async fn whole(body: Incoming, most: usize) -> Result<Bytes, FetchError> {
    let body = Limited::new(body, most).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => FetchError::Large(most / 1024),
        false => FetchError::Broken,
    })?;
    Ok(body.to_bytes())
}

const JSON: &str = "application/json";

async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    timeout(time, answer).await.map_err(|_| FetchError::Slow(time))?
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
