//! Where to connect, and what to say there: the flags of all commands that open a WebSocket.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderName, HeaderValue};
use clap::Args;
use url::{ParseError, Url};

/// The server, and what each request to it contains.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Endpoint {
    /// WebSocket to connect to, such as wss://example.com/ws; http and https URLs work too.
    #[arg(value_name = "URL")]
    pub url: Target,
    /// Host to use instead of the URL's, in the Host header and in TLS.
    #[arg(long, value_name = "NAME")]
    pub host: Option<Host>,
    /// Extra header to send, such as 'Origin: https://example.com'; may be repeated.
    #[arg(long = "header", value_name = "K: V")]
    pub headers: Vec<Header>,
    /// Continue if the certificate cannot be trusted.
    #[arg(long)]
    pub insecure: bool,
}

impl Endpoint {
    /// The value of the Host header.
    pub(crate) fn authority(&self) -> String {
        if let Some(header) = self.headers.iter().find(|header| header.name == "host") {
            return header.value.clone();
        }
        let host = self.host.as_ref().map_or(&self.url.host, |host| &host.0);
        let standard = if self.url.secure { 443 } else { 80 };
        let bare = self.url.port == standard || has_port(host);
        if bare { host.clone() } else { format!("{host}:{}", self.url.port) }
    }

    /// The name that the certificate must contain.
    pub(crate) fn name(&self) -> &str {
        let host = self.host.as_ref().map_or(&self.url.host, |host| &host.0);
        let name = if has_port(host) { host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name) } else { host };
        name.trim_start_matches('[').trim_end_matches(']')
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(name, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (!name.contains(':') || name.ends_with(']'))
    })
}

/// A server's address and the path of its WebSocket, parsed as a browser does: the name in punycode, non-ASCII characters
/// of the path percent-encoded, the fragment removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether to use TLS.
    pub secure: bool,
    /// A name or an address; IPv6 addresses are in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a URL such as ws://localhost:8080/ws or wss://example.com/ws";
        const PORT: &str = "the port must be a number from 1 to 65535";
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::InvalidPort => PORT.to_owned(),
            ParseError::RelativeUrlWithoutBase => EXPECTED.to_owned(),
            error => format!("{error}: {EXPECTED}"),
        })?;
        let secure = match url.scheme() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(EXPECTED.to_owned()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("no user or password in the URL: give --header 'Authorization: …'".to_owned());
        }
        let host = url.host_str().ok_or(EXPECTED)?.to_owned();
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(PORT)?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { secure, host, port, path: url.path().to_owned() + &query })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

/// A host name, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a host name, such as example.com";
        let (name, port) = if has_port(text) { text.rsplit_once(':').ok_or(EXPECTED)? } else { (text, "") };
        let host = url::Host::parse(name).map_err(|_| EXPECTED)?;
        Ok(Self(if port.is_empty() { host.to_string() } else { format!("{host}:{port}") }))
    }
}

/// A header to add to each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// In lower case.
    pub name: String,
    /// As given.
    pub value: String,
}

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a name, a colon and a value, such as 'Origin: https://example.com', in ASCII (a \
            host as browsers send it: xn--…)";
        let (name, value) = text.split_once(':').ok_or(EXPECTED)?;
        let (name, value) = (HeaderName::try_from(name.trim()), HeaderValue::from_str(value.trim()));
        match (name, value.as_ref().map(HeaderValue::to_str)) {
            (Ok(name), Ok(Ok(value))) => Ok(Self { name: name.to_string(), value: value.to_owned() }),
            _ => Err(EXPECTED),
        }
    }
}

#[cfg(test)]
pub(crate) fn endpoint(line: &str) -> Result<Endpoint, clap::Error> {
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        endpoint: Endpoint,
    }
    let words = line.split_whitespace().map(|word| word.replace('_', " "));
    Line::try_parse_from(["client".to_owned()].into_iter().chain(words)).map(|line| line.endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_connect_and_what_to_ask_for() {
        for (line, url, authority, name) in [
            ("ws://localhost:8080/ws", "ws://localhost:8080/ws", "localhost:8080", "localhost"),
            ("http://10.0.0.7", "ws://10.0.0.7:80/", "10.0.0.7", "10.0.0.7"),
            ("wss://example.com/ws?node", "wss://example.com:443/ws?node", "example.com", "example.com"),
            ("https://[::1]:8443/a", "wss://[::1]:8443/a", "[::1]:8443", "::1"),
            ("wss://10.0.0.7:8443 --host b.example", "wss://10.0.0.7:8443/", "b.example:8443", "b.example"),
            ("ws://10.0.0.7 --host b.example:99", "ws://10.0.0.7:80/", "b.example:99", "b.example"),
            ("ws://10.0.0.7 --header Host:_c.example", "ws://10.0.0.7:80/", "c.example", "10.0.0.7"),
            ("WSS://EXAMPLE.com/WS", "wss://example.com:443/WS", "example.com", "example.com"),
            ("HTTP://localhost:80", "ws://localhost:80/", "localhost", "localhost"),
            ("ws://h/raw/café?room=日本", "ws://h:80/raw/caf%C3%A9?room=%E6%97%A5%E6%9C%AC", "h", "h"),
            ("ws://h/raw/a_b?c_d", "ws://h:80/raw/a%20b?c%20d", "h", "h"),
            ("ws://h/raw/caf%C3%A9", "ws://h:80/raw/caf%C3%A9", "h", "h"),
            ("ws://h/raw/50%", "ws://h:80/raw/50%", "h", "h"),
            ("ws://h?a=b", "ws://h:80/?a=b", "h", "h"),
            ("ws://h/a/../ws#part", "ws://h:80/ws", "h", "h"),
            (
                "wss://bücher.example/ws",
                "wss://xn--bcher-kva.example:443/ws",
                "xn--bcher-kva.example",
                "xn--bcher-kva.example",
            ),
            ("ws://[0:0::1]:81/", "ws://[::1]:81/", "[::1]:81", "::1"),
            ("ws://h --host bücher.example", "ws://h:80/", "xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("wss://h --host [0:0::1]:99", "wss://h:443/", "[::1]:99", "::1"),
        ] {
            let endpoint = endpoint(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!((endpoint.url.to_string().as_str(), endpoint.authority().as_str()), (url, authority), "{line}");
            assert_eq!(endpoint.name(), name, "{line}");
        }
    }

    #[test]
    fn an_invalid_command_line_is_a_usage_error() {
        for (line, message) in [
            ("localhost:8080/ws", "expected a URL"),
            ("ftp://localhost", "expected a URL"),
            ("ws://localhost:0x1/", "the port must be a number"),
            ("ws://localhost:99999/", "the port must be a number"),
            ("ws://user:secret@localhost/", "no user or password in the URL"),
            ("ws://h --header Origin", "expected a name, a colon and a value"),
            ("ws://h --header a:\r\nb:c", "unexpected argument"),
            ("ws://h --host a/b", "expected a host name"),
            ("ws://h --host user@b", "expected a host name"),
            ("ws://localhost:0/", "the port must be a number"),
            ("ws://token@localhost/", "no user or password in the URL"),
            ("ws://", "expected a URL"),
            ("ws://[::1", "expected a URL"),
            ("ws://a%00b/", "expected a URL"),
            ("ws://h --header Origin:_https://bücher.example", "as browsers send it"),
            ("", "<URL>"),
        ] {
            let error = endpoint(line).expect_err(line);
            assert!(error.to_string().contains(message), "{line}: {error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!("a: b\r\nc: d".parse::<Header>().is_err(), "a header must not contain a line break");
    }
}
