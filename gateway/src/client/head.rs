//! The client's HTTP: two requests, and the head of a response.
//!
//! Pure. A response that is not HTTP/1 is classified by its first bytes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

use super::endpoint::Endpoint;
use crate::http::handshake::accept;
use crate::protocol::native;

/// The example of RFC 6455 §1.3: its answer is well known, so a person can check it by eye.
pub(crate) static PROBE: Greeting = Greeting {
    agent: "fanfare-probe",
    key: Cow::Borrowed("dGhlIHNhbXBsZSBub25jZQ=="),
    accept: Cow::Borrowed("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
};
/// The longest head that is read, in bytes.
pub(crate) const LONGEST: usize = 32 << 10;

/// What a handshake says of the client, and what proves that the server has read it.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    agent: &'static str,
    key: Cow<'static, str>,
    /// The `Sec-WebSocket-Accept` value for the key.
    pub(crate) accept: Cow<'static, str>,
}

impl Greeting {
    /// With a random key (RFC 6455 §4.1). Use it for one handshake.
    pub(crate) fn random() -> Self {
        let key = BASE64.encode(fastrand::u128(..).to_ne_bytes());
        let accept = accept(key.as_bytes()).expect("16 bytes in base64 are a key");
        let accept = accept.to_str().expect("base64 is ASCII").to_owned();
        Self { agent: concat!("fanfare/", env!("CARGO_PKG_VERSION")), key: key.into(), accept: accept.into() }
    }
}

/// The upgrade request.
pub(crate) fn upgrade(endpoint: &Endpoint, greeting: &Greeting) -> String {
    let own = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", &greeting.key),
        ("sec-websocket-protocol", native::NAME),
    ];
    request(&endpoint.url.path, endpoint, greeting, &own)
}

/// The request for the page at the root.
pub(crate) fn page(endpoint: &Endpoint, greeting: &Greeting) -> String {
    request("/", endpoint, greeting, &[("connection", "close")])
}

/// The upgrade request in a few words, for people.
pub(crate) fn asked(endpoint: &Endpoint) -> String {
    format!("GET {} (Host: {})", endpoint.url.path, endpoint.authority())
}

/// The subprotocols that the request offers.
pub(crate) fn offered(endpoint: &Endpoint) -> Vec<&str> {
    let mut given = endpoint.headers.iter().filter(|header| header.name == "sec-websocket-protocol").peekable();
    match given.peek() {
        Some(_) => given.flat_map(|header| header.value.split(',').map(str::trim)).collect(),
        // Servers that do not know `fanfare.v1` leave the header out of their response.
        None => vec![native::NAME],
    }
}

/// A GET request. The user's headers replace the program's own.
fn request(path: &str, endpoint: &Endpoint, greeting: &Greeting, own: &[(&str, &str)]) -> String {
    let authority = endpoint.authority();
    let own = [("host", authority.as_str()), ("user-agent", greeting.agent)].into_iter().chain(own.iter().copied());
    let given = || endpoint.headers.iter().map(|header| (header.name.as_str(), header.value.as_str()));
    let own = own.filter(|(name, _)| given().all(|(given, _)| given != *name));
    let lines = own.chain(given()).map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("GET {path} HTTP/1.1\r\n{}\r\n", lines.collect::<String>())
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The first line of the body, if the response is a refusal in plain text.
    pub(crate) text: String,
}

impl Response {
    /// The values of a header, joined with commas as RFC 9110 §5.3 allows.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Status, reason, and the text if there is one.
    pub(crate) fn line(&self) -> String {
        let line = format!("{} {}", self.status, self.reason);
        if self.text.is_empty() { line } else { format!("{}: {}", line.trim(), self.text) }
    }
}

/// The kind of a response that is not HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// An HTTP/2 frame.
    Http2,
    /// A TLS record.
    Tls,
    /// Anything else.
    Unknown,
}

/// Parses the head at the front of `bytes` and returns it with its length; `None` while it is incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Response, usize)>, Foreign> {
    let start = &bytes[..bytes.len().min(7)];
    if !b"HTTP/1."[..].starts_with(start) {
        return Err(match *bytes {
            // A SETTINGS or GOAWAY frame: 3 bytes of length, type 4 or 7 (RFC 9113 §3.4, §5.4.1).
            [0, 0, _, 4 | 7, ..] => Foreign::Http2,
            // A TLS alert (RFC 8446 §5.1).
            [0x15, 3, ..] => Foreign::Tls,
            _ => Foreign::Unknown,
        });
    }
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let mut line = lines.next().unwrap_or_default().splitn(3, ' ').skip(1);
    let status = line.next().and_then(|status| status.parse().ok()).ok_or(Foreign::Unknown)?;
    let reason = line.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok(Some((Response { status, reason, headers, text: String::new() }, end + 4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::endpoint::endpoint;

    #[test]
    fn headers_of_the_user_replace_the_programs_own() {
        let request = |line| upgrade(&endpoint(line).expect("a good line"), &PROBE);
        let plain = request("ws://h:81/ws?a=b");
        assert!(
            plain.starts_with(
                "GET /ws?a=b HTTP/1.1\r\nhost: h:81\r\nuser-agent: fanfare-probe\r\nupgrade: websocket\r\n"
            )
        );
        assert!(plain.ends_with("\r\nsec-websocket-protocol: fanfare.v1\r\n\r\n"), "{plain}");
        let other = request("ws://h/ --header Sec-WebSocket-Protocol:_chat --header Origin:_https://a.example");
        assert!(other.ends_with("\r\nsec-websocket-protocol: chat\r\norigin: https://a.example\r\n\r\n"), "{other}");
        assert!(!other.contains("fanfare.v1"), "{other}");
    }

    #[test]
    fn a_head_is_parsed_once_it_is_complete() {
        let bytes = b"HTTP/1.1 101 Switching Protocols\r\nX-Backend: node-1\r\nVia: a\r\nvia:b\r\n\r\n\x81\x00";
        for cut in 0..bytes.len() - 2 {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (response, length) = parse(bytes).expect("HTTP").expect("complete");
        assert_eq!((response.status, length), (101, bytes.len() - 2));
        assert_eq!(
            (response.header("x-backend"), response.header("via")),
            (Some("node-1".into()), Some("a, b".into()))
        );
        assert_eq!((response.header("upgrade"), response.line()), (None, "101 Switching Protocols".into()));
    }

    #[test]
    fn a_response_that_is_not_http_1_is_classified() {
        for (bytes, foreign) in [
            (&b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"[..], Foreign::Http2),
            (b"\x15\x03\x01\x00\x02\x02\x46", Foreign::Tls),
            (b"SSH-2.0-OpenSSH_9.9\r\n", Foreign::Unknown),
            (b"HTTP/2 200 OK\r\n\r\n", Foreign::Unknown),
            (b"HTTP/1.1 ok\r\n\r\n", Foreign::Unknown),
        ] {
            assert_eq!(parse(bytes), Err(foreign), "{bytes:?}");
        }
    }
}
