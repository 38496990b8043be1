//! What an `amqp://`, `rabbitmq://` or `amqps://` URL says.
//!
//! `amqp[s]://[user[:password]@]host[:port][/vhost][?prefix=NAME][&max-bytes=SIZE][&ca=FILE]`. Nothing here
//! ever shows the password.

use std::path::Path;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use url::Url;

use crate::connect::ConnectError;
use crate::tls::Tls;

const OPTIONS: &str = "`prefix`, `max-bytes`, `ca` and `adopt`";
/// Bytes that a partition keeps, if the URL does not say.
const KEEP: u64 = 256 << 20;
/// Less than this would be trimmed while it is being read.
const LEAST: u64 = 64 << 10;
/// The largest frame. A connection holds two buffers of 32 of them.
const FRAME: u32 = 16 << 10;
/// Seconds between two heartbeats of a connection; after twice that it is dead.
const HEARTBEAT: u16 = 5;

/// Where RabbitMQ is, how to log in, and under which names the log is kept there.
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: AMQPUri,
    pub(super) tls: Option<Tls>,
    /// Bytes that a partition keeps, if this node makes its stream.
    pub(super) max_bytes: u64,
    /// Write to the streams even if they hold records of other programs.
    pub(super) adopt: bool,
    /// The names of all streams begin with it and a dot.
    pub(super) prefix: String,
}

fn wrong(why: impl Into<String>) -> ConnectError {
    ConnectError::Url(why.into())
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        // The parser's own errors might quote the text.
        let url = Url::parse(text).ok().filter(|url| url.has_host());
        let url = url.ok_or_else(|| wrong("it should read amqp://user:password@host:5672/vhost"))?;
        if url.fragment().is_some() {
            return Err(wrong("`#…` is not known here; for a private CA use `amqps://…?ca=FILE`"));
        }
        let private = url.scheme() == "amqps";
        let (mut prefix, mut max_bytes, mut ca, mut adopt) = ("fanfare".to_owned(), KEEP, None, false);
        for (key, value) in url.query_pairs() {
            match &*key {
                "prefix" => prefix = value.into_owned(),
                "max-bytes" => max_bytes = size(&value)?,
                "adopt" => adopt = value.parse().map_err(|_| wrong("`adopt` takes `true` or `false`"))?,
                "ca" if private => ca = Some(value.into_owned()),
                "ca" => return Err(wrong("`ca` needs amqps://")),
                _ => {
                    let key = key.escape_debug();
                    return Err(wrong(format!("`{key}` is not known; there are {OPTIONS}")));
                }
            }
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if prefix.is_empty() || prefix.len() > 200 || !prefix.bytes().all(plain) {
            return Err(wrong("`prefix` takes up to 200 letters, digits and `-_.:`"));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port().unwrap_or(if private { 5671 } else { 5672 });
        let login = login(&url, &host, port)?;
        let tls = private.then(|| Tls::new(&host, ca.as_deref().map(Path::new))).transpose()?;
        Ok(Self { host, port, login, tls, max_bytes, adopt, prefix })
    }

    /// The stream whose first record says what holds for the whole log.
    pub(super) fn settings_stream(&self) -> String {
        format!("{}.settings", self.prefix)
    }

    /// A partition's stream.
    pub(super) fn stream(&self, partition: u16) -> String {
        format!("{}.{partition}", self.prefix)
    }
}

fn login(url: &Url, host: &str, port: u16) -> Result<AMQPUri, ConnectError> {
    let decoded = |part: &str| {
        let decoded = percent_encoding::percent_decode_str(part).decode_utf8();
        decoded.map(String::from).map_err(|_| wrong("user, password and vhost are to be percent-encoded UTF-8"))
    };
    let path = url.path().trim_start_matches('/');
    if path.contains('/') {
        return Err(wrong("a `/` in the vhost is written %2f"));
    }
    let vhost = if path.is_empty() { "/".to_owned() } else { decoded(path)? };
    let (username, password) = match (url.username(), url.password()) {
        ("", None) => ("guest".to_owned(), "guest".to_owned()),
        (user, password) => (decoded(user)?, decoded(password.unwrap_or_default())?),
    };
    Ok(AMQPUri {
        // TLS is made here, with the same roots for all connections.
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority { userinfo: AMQPUserInfo { username, password }, host: host.to_owned(), port },
        vhost,
        query: AMQPQueryString { frame_max: Some(FRAME), heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
    })
}

/// A number of bytes, with or without a unit.
fn size(text: &str) -> Result<u64, ConnectError> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = unit.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    let bytes = bytes.filter(|bytes| (LEAST..=i64::MAX as u64).contains(bytes));
    bytes.ok_or_else(|| wrong("`max-bytes` takes a size such as 256MiB, at least 64KiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn parts(url: &str) -> (String, u16, String, String, String) {
        let AMQPUri { authority, vhost, .. } = parse(url).login;
        let AMQPUserInfo { username, password } = authority.userinfo;
        (authority.host, authority.port, username, password, vhost)
    }

    #[test]
    fn a_url_names_the_server_the_user_and_the_vhost() {
        let expected = |host: &str, port, user: &str, password: &str, vhost: &str| {
            (host.to_owned(), port, user.to_owned(), password.to_owned(), vhost.to_owned())
        };
        let all = expected("rabbit.example", 5673, "me", "p@ss", "chat/v2");
        assert_eq!(parts("amqp://me:p%40ss@rabbit.example:5673/chat%2fv2"), all);
        assert_eq!(parts("rabbitmq://h/chat"), expected("h", 5672, "guest", "guest", "chat"));
        for default in ["amqp://h", "amqp://h/", "amqp://h/%2f", "amqp://h?prefix=a"] {
            assert_eq!(parts(default), expected("h", 5672, "guest", "guest", "/"), "{default}");
        }
        assert_eq!(parts("amqp://me@[::1]"), expected("::1", 5672, "me", "", "/"));
    }

    #[test]
    fn the_prefix_names_the_streams() {
        assert_eq!(parse("amqp://h").stream(3), "fanfare.3");
        assert!(parse("amqp://h?adopt=true").adopt && !parse("amqp://h").adopt);
        assert_eq!(parse("amqp://h/?prefix=chat.v2").settings_stream(), "chat.v2.settings");
    }

    #[test]
    fn a_size_may_have_a_unit() {
        for (text, bytes) in [("65536", 65_536), ("1MiB", 1 << 20), ("2GB", 2_000_000_000), ("64KiB", 65_536)] {
            assert_eq!(parse(&format!("amqp://h?max-bytes={text}")).max_bytes, bytes, "{text}");
        }
        for text in ["", "1", "-1", "1.5GB", "1 GB", "1TB", "99999999999999999999", "9999999999GiB"] {
            assert!(Address::parse(&format!("amqp://h?max-bytes={text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_url_is_explained_without_its_password() {
        for (rest, word) in [
            ("host/a/b", "%2f"),
            ("host:99999", "should read"),
            ("host/%ff", "UTF-8"),
            ("host?prefix=", "prefix"),
            ("host?prefix={x}", "prefix"),
            ("host?max-bytes=1", "256MiB"),
            ("host?adopt=", "`adopt`"),
            ("host?colour=red", "colour"),
            ("host?ca=/etc/ca.pem", "amqps"),
            ("host#insecure", "ca=FILE"),
        ] {
            let Err(error) = Address::parse(&format!("amqp://user:hunter2@{rest}")) else { panic!("{rest} is taken") };
            let error = error.to_string();
            assert!(error.contains(word), "{rest}: {error}");
            assert!(!error.contains("hunter2"), "{rest}: {error}");
        }
        let Err(error) = Address::parse("amqps://:hunter2@host?ca=/nowhere.pem") else { panic!("no such file") };
        assert!(error.to_string().contains("/nowhere.pem") && !error.to_string().contains("hunter2"), "{error}");
    }
}
