//! The strict upgrade check: may this HTTP request become a WebSocket (RFC 6455 §4.2), and on what terms?
//!
//! A pure function over the request's head. Owns nothing of it: what is accepted is told without borrowing a header, so
//! that the head can be freed. Everything else is a [`Refusal`] that says what to do.

mod origins;
#[cfg(test)]
mod tests;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use origins::{OriginError, Origins};

/// What the 101 response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: HeaderValue,
    /// The value of `Sec-WebSocket-Protocol`; without one, the header must not be sent.
    pub protocol: Option<&'static str>,
}

/// Why a request can not become a WebSocket. The text is for the client's author: it says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a GET.
    #[error("a WebSocket handshake is a GET request: send GET")]
    Method,
    /// Not HTTP/1.1.
    #[error("a WebSocket handshake needs HTTP/1.1: a proxy on the way may be set to HTTP/1.0")]
    HttpVersion,
    /// No Host, several, or one that is not a host.
    #[error("send exactly one Host header, with a host name and optionally a port")]
    Host,
    /// A body was announced.
    #[error("a WebSocket handshake has no body: send neither Content-Length nor Transfer-Encoding")]
    Body,
    /// `Upgrade` does not list `websocket`.
    #[error("connect with a WebSocket client (Upgrade: websocket); a proxy on the way must pass the Upgrade header on")]
    Upgrade,
    /// `Connection` does not list `upgrade`.
    #[error("the Connection header must list Upgrade: a proxy on the way may remove it")]
    Connection,
    /// Another `Sec-WebSocket-Version` than 13, or none.
    #[error("only WebSocket version 13 is spoken here: send Sec-WebSocket-Version: 13")]
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is missing, repeated or not 16 bytes in base64.
    #[error("send exactly one Sec-WebSocket-Key header: 16 random bytes in base64")]
    Key,
    /// The page that connects is neither of this host nor on the list.
    #[error("pages of this Origin may not connect: add it to the server's list of allowed origins")]
    Origin,
    /// `Sec-WebSocket-Protocol` is not a list of distinct tokens.
    #[error("Sec-WebSocket-Protocol must be a list of distinct tokens, separated by commas")]
    Protocol,
}

impl Refusal {
    /// The status of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Upgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::HttpVersion | Self::Host | Self::Body | Self::Connection | Self::Key | Self::Protocol => {
                StatusCode::BAD_REQUEST
            }
        }
    }

    /// The headers of the response that tell a program what the text tells a person.
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Method => &[("allow", "GET")],
            // RFC 9110 §15.5.22: a 426 lists in Upgrade what would do.
            Self::Upgrade | Self::WebSocketVersion => {
                &[("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13")]
            }
            // What follows on the connection is, to someone, a body: to read it as a request would be smuggling.
            Self::Body => &[("connection", "close")],
            _ => &[],
        }
    }

    /// The response, with the text as its body.
    pub fn into_response(self) -> Response<String> {
        let mut response = Response::new(format!("{self}\n"));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        for &(name, value) in self.headers() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Checks what holds for every request, whatever it asks for: it names exactly one host (RFC 9112 §3.2). Only HTTP/1.0,
/// which old balancers use for their health checks, may name none.
pub fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    if version == Version::HTTP_10 && !headers.contains_key(header::HOST) {
        return Ok(());
    }
    host(headers).map(drop)
}

/// Checks an upgrade request; `over_tls` if it is known to have come so. Of the client's subprotocols, the first that is
/// `supported` is taken; that none is, is no error.
pub fn check(
    parts: &Parts,
    over_tls: bool,
    origins: &Origins,
    supported: &[&'static str],
) -> Result<Accepted, Refusal> {
    let headers = &parts.headers;
    if parts.method != Method::GET {
        return Err(Refusal::Method);
    }
    if parts.version != Version::HTTP_11 {
        return Err(Refusal::HttpVersion);
    }
    let host = host(headers)?;
    let lengths = headers.get_all(header::CONTENT_LENGTH);
    if lengths.iter().any(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::Body);
    }
    if !lists(headers, header::UPGRADE, "websocket") {
        return Err(Refusal::Upgrade);
    }
    if !lists(headers, header::CONNECTION, "upgrade") {
        return Err(Refusal::Connection);
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refusal::WebSocketVersion);
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY).ok_or(Refusal::Key)?;
    let accept = accept(key).ok_or(Refusal::Key)?;
    let mut origin_lines = headers.get_all(header::ORIGIN).iter();
    // No browser omits the Origin, and whoever is not a browser can send any: absence gives nothing away.
    let allowed = match (origin_lines.next(), origin_lines.next()) {
        (None, _) => true,
        (Some(origin), None) => origin.to_str().is_ok_and(|origin| origins.allow(origin, &host, over_tls)),
        (Some(_), Some(_)) => false,
    };
    if !allowed {
        return Err(Refusal::Origin);
    }
    Ok(Accepted { accept, protocol: protocol(headers, supported)? })
}

fn host(headers: &HeaderMap) -> Result<origins::Host, Refusal> {
    single(headers, header::HOST).and_then(origins::Host::parse).ok_or(Refusal::Host)
}

/// The value of a header that must be there once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok(),
        _ => None,
    }
}

/// Whether a header lists a token, in any case, on any of its lines (RFC 9110 §5.6.1).
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let mut elements =
        headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    elements.any(|element| element.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
}

/// What proves to the client that its key was read as one; `None` when it is not 16 bytes in base64.
fn accept(key: &str) -> Option<HeaderValue> {
    /// RFC 6455 §1.3.
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    // 18: what 24 characters can hold at most. A longer key does not fit, and is an error by that.
    let mut decoded = [0; 18];
    if STANDARD.decode_slice(key, &mut decoded) != Ok(16) {
        return None;
    }
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    HeaderValue::try_from(STANDARD.encode(hash.digest().bytes())).ok()
}

/// The client's first subprotocol that is supported.
fn protocol(headers: &HeaderMap, supported: &[&'static str]) -> Result<Option<&'static str>, Refusal> {
    let mut wanted = Vec::new();
    for line in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for element in line.to_str().map_err(|_| Refusal::Protocol)?.split(',') {
            let element = element.trim_matches([' ', '\t']);
            // RFC 6455 §4.1: non-empty tokens, all of them distinct.
            if element.is_empty() || !element.bytes().all(is_token_byte) || wanted.contains(&element) {
                return Err(Refusal::Protocol);
            }
            wanted.push(element);
        }
    }
    Ok(wanted.into_iter().find_map(|wanted| supported.iter().copied().find(|name| *name == wanted)))
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
