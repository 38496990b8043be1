//! The strict upgrade check: whether an HTTP request may become a WebSocket (RFC 6455 §4.2), and with which
//! subprotocol.
//!
//! A pure function of the request's head. [`Accepted`] borrows nothing from the head, so that the head can be freed.
//! Everything else is a [`Refusal`] that says what to do.

mod host;
mod hosts;
mod origins;
mod sharing;
#[cfg(test)]
mod tests;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode, Uri, Version};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

pub(crate) use host::Host;
pub use hosts::{HostError, Hosts};
pub use origins::{OriginError, Origins};
pub(crate) use sharing::{Sharing, sharing};

use crate::auth::BEARER;
use crate::errors_page::see;
use crate::field::{Shown, elements, is_token, lists};
use origins::{Verdict, can_be_listed};

/// RFC 6455 §4.2.1 requires a key that decodes to 16 bytes, not one in canonical form: the last bits of the example key
/// in §4.1 are not zero.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// What an upgrade request is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The node's own host names.
    pub hosts: &'a Hosts,
    /// The origins, besides the node's own, whose pages may connect.
    pub origins: &'a Origins,
    /// Whether the request is known to have come over TLS.
    pub over_tls: bool,
    /// The subprotocols that the path supports.
    pub protocols: &'static [&'static str],
}

/// The result of an accepted upgrade request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: HeaderValue,
    /// The value of `Sec-WebSocket-Protocol`; without one, the header must not be sent.
    pub protocol: Option<&'static str>,
    /// The subprotocols that the client offered, if none of them is supported, shortened for the log.
    pub unsupported: Option<String>,
}

/// Why a request is refused. The text is for the client's author or the operator. It says what to do, and quotes at
/// most a short piece of printable ASCII from the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a GET.
    #[error("a WebSocket handshake is a GET request: send GET")]
    Method,
    /// Not a GET, on a path of Server-Sent Events.
    #[error("an event stream is read with GET: send GET")]
    StreamMethod,
    /// A request for an event stream announces a body.
    #[error("a request for an event stream has no body: send neither Content-Length nor Transfer-Encoding")]
    StreamBody,
    /// Not HTTP/1.1.
    #[error("a WebSocket handshake needs HTTP/1.1: a proxy on the way may be set to HTTP/1.0")]
    HttpVersion,
    /// The Host header is missing, repeated or invalid.
    #[error("send exactly one Host header, with a host name and optionally a port")]
    Host,
    /// The request announces a body.
    #[error("a WebSocket handshake has no body: send neither Content-Length nor Transfer-Encoding")]
    Body,
    /// `Upgrade` does not list `websocket`.
    #[error("connect with a WebSocket client (Upgrade: websocket); a proxy on the way must pass the Upgrade header on")]
    Upgrade,
    /// `Connection` does not list `upgrade`.
    #[error("the Connection header must list Upgrade: a proxy on the way may remove it")]
    Connection,
    /// `Sec-WebSocket-Version` is missing or not 13.
    #[error("only WebSocket version 13 is supported: send Sec-WebSocket-Version: 13")]
    WebSocketVersion,
    /// `Sec-WebSocket-Key` is missing, repeated or not 16 bytes in base64.
    #[error("send exactly one Sec-WebSocket-Key header: 16 random bytes in base64")]
    Key,
    /// The page's origin is neither the node's own nor on the list.
    #[error(
        "pages of {0} may not connect: the node needs http.origins = [\"{0}\"], or FANFARE__HTTP__ORIGINS={0}; \
         test it with `fanfare probe URL --header 'Origin: {0}'`"
    )]
    Origin(String),
    /// The Origin header is repeated, or is not an origin that could be on the list.
    #[error("send at most one Origin header, with an origin as browsers send it: {0}")]
    NoOrigin(String),
    /// The request names a host that is not one of the node's names. Its page may belong to an attacker (DNS
    /// rebinding).
    #[error(
        "{0} is not one of this node's names: if it should be, the node needs http.hosts = [\"{0}\"], or \
          FANFARE__HTTP__HOSTS={0}; behind a balancer that ends TLS, the balancer's address in http.trusted_proxies is enough"
    )]
    Stranger(String),
    /// `Sec-WebSocket-Protocol` is not a list of distinct tokens.
    #[error("Sec-WebSocket-Protocol must be a list of distinct tokens, separated by commas")]
    Protocol,
}

impl Refusal {
    /// A refusal of a host that is not one of the node's names.
    pub(crate) fn stranger(host: &Host) -> Self {
        Self::Stranger(Shown::of(host.bare().as_bytes()).to_string())
    }

    fn origin(origin: &[u8]) -> Self {
        let shown = Shown::of(origin).to_string();
        // An origin that is shown shortened or altered could not be copied to the list.
        let whole = shown.as_bytes() == origin;
        if whole && can_be_listed(&shown) { Self::Origin(shown) } else { Self::NoOrigin(shown) }
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method | Self::StreamMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Upgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Origin(_) | Self::NoOrigin(_) => StatusCode::FORBIDDEN,
            Self::Stranger(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::HttpVersion
            | Self::Host
            | Self::Body
            | Self::StreamBody
            | Self::Connection
            | Self::Key
            | Self::Protocol => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that tell a program what the text tells a person.
    pub fn headers(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Method => &[("allow", "GET")],
            Self::StreamMethod => &[("allow", "GET, OPTIONS")],
            // RFC 9110 §15.5.22: a 426 lists the required protocols in Upgrade.
            Self::Upgrade | Self::WebSocketVersion => {
                &[("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13")]
            }
            // The bytes that follow may be the announced body. Reading them as a request would allow request smuggling.
            Self::Body | Self::StreamBody => &[("connection", "close")],
            _ => &[],
        }
    }

    /// The response, with the text as its body.
    pub fn into_response(self) -> Response<String> {
        let mut response = Response::new(format!("{self}{}\n", see(self.status().as_str())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        for &(name, value) in self.headers() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The host that a request is for. Each request must name exactly one (RFC 9112 §3.2); only HTTP/1.0, which old
/// balancers use for health checks, may name none. The host of an absolute target takes precedence over the header
/// (§3.2.2).
pub(crate) fn host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Host>, Refusal> {
    if version == Version::HTTP_10 && !headers.contains_key(header::HOST) {
        return Ok(None);
    }
    let named = single(headers, header::HOST).and_then(Host::read).ok_or(Refusal::Host)?;
    match uri.authority() {
        Some(authority) => Host::parse(authority.as_str()).ok_or(Refusal::Host).map(Some),
        None => Ok(Some(named)),
    }
}

/// Whether a request asks for a WebSocket. Other upgrades may be ignored, and upgrades in HTTP/1.0 must be (RFC 9110
/// §7.8).
pub(crate) fn is_wanted(version: Version, headers: &HeaderMap) -> bool {
    version != Version::HTTP_10 && lists(headers, "upgrade", "websocket")
}

/// Checks an upgrade request for `host`. Selects the first of the client's subprotocols that is supported. If none is,
/// the request is still accepted.
pub(crate) fn check(parts: &Parts, host: Option<&Host>, terms: &Terms<'_>) -> Result<Accepted, Refusal> {
    let headers = &parts.headers;
    if parts.method != Method::GET {
        return Err(Refusal::Method);
    }
    if parts.version != Version::HTTP_11 {
        return Err(Refusal::HttpVersion);
    }
    let host = host.ok_or(Refusal::Host)?;
    if announces_body(headers) {
        return Err(Refusal::Body);
    }
    if !lists(headers, "upgrade", "websocket") {
        return Err(Refusal::Upgrade);
    }
    if !lists(headers, "connection", "upgrade") {
        return Err(Refusal::Connection);
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(Refusal::WebSocketVersion);
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY).ok_or(Refusal::Key)?;
    let accept = accept(key).ok_or(Refusal::Key)?;
    check_page(headers, host, terms)?;
    let offered = offered(headers)?;
    let supported = |offer: &&[u8]| terms.protocols.iter().copied().find(|name| name.as_bytes() == *offer);
    let protocol = offered.iter().find_map(supported);
    // A token is no protocol: it is never selected, and never in the log.
    let offered: Vec<_> = offered.into_iter().filter(|name| !name.starts_with(BEARER.as_bytes())).collect();
    let unsupported = (protocol.is_none() && !offered.is_empty()).then(|| shown(&offered));
    Ok(Accepted { accept, protocol, unsupported })
}

/// Whether a request has a body.
pub(crate) fn announces_body(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(header::CONTENT_LENGTH);
    let is_zero = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0') && !length.is_empty();
    !lengths.iter().all(is_zero) || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Checks the page's origin. Browsers always send it, and other clients can send any value, so a request without it is
/// safe to accept.
fn check_page(headers: &HeaderMap, host: &Host, terms: &Terms<'_>) -> Result<(), Refusal> {
    let origin = match single(headers, header::ORIGIN) {
        Some(origin) => origin,
        None if !headers.contains_key(header::ORIGIN) => return Ok(()),
        None => return Err(Refusal::NoOrigin("it was sent several times".to_owned())),
    };
    // A value that is not UTF-8 does not parse as an origin.
    let text = std::str::from_utf8(origin).unwrap_or_default();
    match terms.origins.judge(text, (host, terms.hosts), terms.over_tls) {
        Verdict::Allowed => Ok(()),
        Verdict::Foreign => Err(Refusal::origin(origin)),
        Verdict::Stranger => Err(Refusal::stranger(host)),
    }
}

/// The value of a header that must be present exactly once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line.as_bytes()),
        _ => None,
    }
}

/// The value of `Sec-WebSocket-Accept` for a key; `None` if the key is not 16 bytes in base64.
pub(crate) fn accept(key: &[u8]) -> Option<HeaderValue> {
    /// RFC 6455 §1.3.
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    // 24 characters hold at most 18 bytes. Decoding a longer key fails because it does not fit.
    let mut decoded = [0; 18];
    if BASE64.decode_slice(key, &mut decoded) != Ok(16) {
        return None;
    }
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(GUID);
    HeaderValue::try_from(BASE64.encode(hash.digest().bytes())).ok()
}

/// The client's subprotocols: distinct tokens (RFC 6455 §4.1), at least one if the header is present.
fn offered(headers: &HeaderMap) -> Result<Vec<&[u8]>, Refusal> {
    let mut offered = Vec::new();
    for name in elements(headers, "sec-websocket-protocol") {
        if !is_token(name) || offered.contains(&name) {
            return Err(Refusal::Protocol);
        }
        offered.push(name);
    }
    if offered.is_empty() && headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Err(Refusal::Protocol);
    }
    Ok(offered)
}

/// Subprotocols for the log. Some clients send secret tokens as subprotocols, so only the beginnings of the first few
/// are shown.
fn shown(offered: &[&[u8]]) -> String {
    const NAMES: usize = 4;
    const LENGTH: usize = 20;
    let mut names: Vec<_> = offered.iter().take(NAMES).map(|name| Shown::at_most(name, LENGTH).to_string()).collect();
    if offered.len() > NAMES {
        names.push("...".to_owned());
    }
    names.join(", ")
}
