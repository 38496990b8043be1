//! Cross-origin requests (CORS): which pages may read an answer, and with which credentials.
//!
//! A pure function of the request's head. Other pages are refused, whatever they could read.

use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::request::Parts;

use super::{Host, Refusal, Terms, check_page, single};

/// How long a browser may keep the answer to a preflight, in seconds.
const MAX_AGE: &str = "600";

/// The headers that pages may send.
const HEADERS: &str = "authorization, content-type, idempotency-key, last-event-id";

/// What the page that sent a request may do with the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// The origin that may read it; `None` if the request is not of another origin's page, or not of a page.
    origin: Option<HeaderValue>,
    /// Whether the client's cookies count.
    pub(crate) credentials: bool,
}

/// Checks the page of a request for `host`.
pub(crate) fn sharing(parts: &Parts, host: Option<&Host>, terms: &Terms<'_>) -> Result<Sharing, Refusal> {
    let host = host.ok_or(Refusal::Host)?;
    check_page(&parts.headers, host, terms)?;
    let Some(origin) = single(&parts.headers, header::ORIGIN) else {
        return Ok(Sharing { origin: None, credentials: true });
    };
    let trusted = terms.origins.trusts(std::str::from_utf8(origin).unwrap_or_default(), host, terms.over_tls);
    let origin = if trusted { HeaderValue::from_bytes(origin).ok() } else { Some(HeaderValue::from_static("*")) };
    Ok(Sharing { origin, credentials: trusted })
}

impl Sharing {
    /// Adds the headers by which a browser lets the page read the answer.
    pub(crate) fn allow(&self, headers: &mut HeaderMap) {
        // A cache must not give one page's answer to another page.
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = &self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Adds the headers of the answer to a preflight, for requests with this method.
    pub(crate) fn allow_method(&self, method: &'static str, headers: &mut HeaderMap) {
        self.allow(headers);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(method));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    }
}
