//! The probe's HTTP: two requests, and the head of a response.
//!
//! Pure. A response that is not HTTP/1 is classified by its first bytes.

use super::options::Options;
use crate::protocol::native;

/// The example key of RFC 6455 §1.3: its answer is well known, so a person can check it by eye.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The `Sec-WebSocket-Accept` value for [`KEY`].
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The longest head that the probe reads, in bytes.
pub(super) const LONGEST: usize = 32 << 10;

/// The upgrade request.
pub(super) fn upgrade(options: &Options) -> String {
    let own = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-protocol", native::NAME),
    ];
    request(&options.url.path, options, &own)
}

/// The request for the page at the root.
pub(super) fn page(options: &Options) -> String {
    request("/", options, &[("connection", "close")])
}

/// The upgrade request in a few words, for people.
pub(super) fn asked(options: &Options) -> String {
    format!("GET {} (Host: {})", options.url.path, options.authority())
}

/// The subprotocols that the request offers.
pub(super) fn offered(options: &Options) -> Vec<&str> {
    let mut given = options.headers.iter().filter(|header| header.name == "sec-websocket-protocol").peekable();
    match given.peek() {
        Some(_) => given.flat_map(|header| header.value.split(',').map(str::trim)).collect(),
        // Servers that do not know `fanfare.v1` leave the header out of their response.
        None => vec![native::NAME],
    }
}

/// A GET request. The user's headers replace the probe's.
fn request(path: &str, options: &Options, own: &[(&str, &str)]) -> String {
    let authority = options.authority();
    let own = [("host", authority.as_str()), ("user-agent", "fanfare-probe")].into_iter().chain(own.iter().copied());
    let given = || options.headers.iter().map(|header| (header.name.as_str(), header.value.as_str()));
    let own = own.filter(|(name, _)| given().all(|(given, _)| given != *name));
    let lines = own.chain(given()).map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("GET {path} HTTP/1.1\r\n{}\r\n", lines.collect::<String>())
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) reason: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// The first line of the body, if the response is a refusal in plain text.
    pub(super) text: String,
}

impl Response {
    /// The values of a header, joined with commas as RFC 9110 §5.3 allows.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Status, reason, and the text if there is one.
    pub(super) fn line(&self) -> String {
        let line = format!("{} {}", self.status, self.reason);
        if self.text.is_empty() { line } else { format!("{}: {}", line.trim(), self.text) }
    }
}

/// The kind of a response that is not HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// An HTTP/2 frame.
    Http2,
    /// A TLS record.
    Tls,
    /// Anything else.
    Unknown,
}

/// Parses the head at the front of `bytes` and returns it with its length; `None` while it is incomplete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Response, usize)>, Foreign> {
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
    use crate::probe::options::options;

    #[test]
    fn headers_of_the_user_replace_the_probes_own() {
        let request = |line| upgrade(&options(line).expect("a good line"));
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
