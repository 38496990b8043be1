//! What a `kafka://` or `kafka+ssl://` URL says.
//!
//! `kafka[+ssl]://[user:password@]host[:port][,host[:port]…][/topic][?option=value&…]`. Nothing here ever shows
//! the password.

use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::connect::ConnectError;
use crate::file::read_file;

const SHAPE: &str = "it should read kafka://user:password@host:9092,host:9092/topic";
const OPTIONS: &str = "there are `replication`, `retention`, `sasl`, `ca` and `adopt`";
/// The longest topic name that Kafka takes.
const TOPIC_LENGTH: usize = 249;

/// Where Kafka is, how to log in, and which topic holds the log.
pub(super) struct Address {
    /// Hosts with ports, separated by commas.
    pub(super) hosts: String,
    pub(super) topic: String,
    /// Copies of each partition of a new topic; Kafka's own default without.
    pub(super) replication: Option<u16>,
    /// How long a new topic keeps its records; Kafka's own default without.
    pub(super) retention: Option<Retention>,
    /// Write to the topic even if it holds records of other programs.
    pub(super) adopt: bool,
    login: Option<Login>,
    tls: Option<Tls>,
}

/// How long records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retention {
    For(Duration),
    Forever,
}

impl Retention {
    fn parse(text: &str) -> Option<Self> {
        if text == "forever" {
            return Some(Self::Forever);
        }
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = (text[..digits].parse::<u64>().ok()?, &text[digits..]);
        let seconds = |each: u64| Some(Duration::from_secs(number.checked_mul(each)?));
        let time = match unit {
            "ms" => Duration::from_millis(number),
            "s" => seconds(1)?,
            "m" => seconds(60)?,
            "h" => seconds(3600)?,
            "d" => seconds(86_400)?,
            _ => return None,
        };
        (!time.is_zero()).then_some(Self::For(time))
    }

    /// The value of Kafka's `retention.ms`.
    pub(super) fn milliseconds(self) -> String {
        match self {
            Self::For(time) => time.as_millis().to_string(),
            Self::Forever => "-1".into(),
        }
    }
}

struct Login {
    user: String,
    password: String,
    mechanism: &'static str,
}

struct Tls {
    ca: Option<String>,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        let wrong = |why: &str| ConnectError::Url(why.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong(SHAPE))?;
        let tls = scheme == "kafka+ssl";
        if rest.contains('#') {
            return Err(wrong("`#…` is not known here; write a `#` in a password as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, topic) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let options = Options::parse(query, tls)?;
        Ok(Self {
            hosts: parse_hosts(hosts, if tls { 9093 } else { 9092 })?,
            topic: parse_topic(topic)?,
            replication: options.replication,
            retention: options.retention,
            adopt: options.adopt,
            login: parse_login(login, options.sasl, tls)?,
            tls: tls.then_some(Tls { ca: options.ca }),
        })
    }

    /// What every client of this library needs to find Kafka and to get in.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.hosts);
        let protocol = match (&self.login, &self.tls) {
            (None, None) => "plaintext",
            (None, Some(_)) => "ssl",
            (Some(_), None) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(Login { user, password, mechanism }) = &self.login {
            config.set("sasl.mechanism", *mechanism).set("sasl.username", user).set("sasl.password", password);
        }
        if let Some(Tls { ca: Some(file) }) = &self.tls {
            config.set("ssl.ca.location", file);
        }
        config
    }
}

#[derive(Default)]
struct Options {
    replication: Option<u16>,
    retention: Option<Retention>,
    sasl: Option<&'static str>,
    ca: Option<String>,
    adopt: bool,
}

impl Options {
    fn parse(query: &str, tls: bool) -> Result<Self, ConnectError> {
        let wrong = |why: String| ConnectError::Url(why);
        let mut options = Self::default();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let value = decode(value).ok_or_else(|| wrong(format!("`{}` is not UTF-8", key.escape_debug())))?;
            match key {
                "replication" => {
                    let copies = value.parse().ok().filter(|copies| (1..=100).contains(copies));
                    let copies = copies.ok_or_else(|| wrong("`replication` takes a number from 1 on".into()))?;
                    options.replication = Some(copies);
                }
                "retention" => {
                    let retention = Retention::parse(&value);
                    let explain =
                        || wrong("`retention` takes a time such as `90m`, `24h` or `7d`, or `forever`".into());
                    options.retention = Some(retention.ok_or_else(explain)?);
                }
                "sasl" => {
                    let known = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
                    let mechanism = known.into_iter().find(|known| known.eq_ignore_ascii_case(&value));
                    let explain = || wrong("`sasl` takes `plain`, `scram-sha-256` or `scram-sha-512`".into());
                    options.sasl = Some(mechanism.ok_or_else(explain)?);
                }
                "adopt" => {
                    let adopt = value.parse().ok().ok_or_else(|| wrong("`adopt` takes `true` or `false`".into()));
                    options.adopt = adopt?;
                }
                "ca" if tls => options.ca = Some(checked_ca(value)?),
                "ca" => return Err(wrong("`ca` needs kafka+ssl://".into())),
                _ => return Err(wrong(format!("`{}` is not known; {OPTIONS}", key.escape_debug()))),
            }
        }
        Ok(options)
    }
}

/// A wrong file is an error at the start, instead of a link that never comes up.
fn checked_ca(file: String) -> Result<String, ConnectError> {
    let wrong = |why: &dyn std::fmt::Display| ConnectError::Url(format!("the CA file {file} cannot be used: {why}"));
    let content = read_file(Path::new(&file)).map_err(|error| wrong(&error))?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !content.windows(begin.len()).any(|bytes| bytes == begin) {
        return Err(wrong(&"there is no certificate in it"));
    }
    Ok(file)
}

fn parse_hosts(text: &str, port: u16) -> Result<String, ConnectError> {
    let mut hosts = Vec::new();
    for host in text.split(',') {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if host.is_empty() || host.starts_with(':') || !host.bytes().all(bare) {
            return Err(ConnectError::Url(SHAPE.into()));
        }
        let named = match host.rsplit_once(':') {
            Some((_, rest)) if rest.ends_with(']') => None,
            Some((_, port)) => Some(port),
            None => None,
        };
        match named {
            None => hosts.push(format!("{host}:{port}")),
            Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => hosts.push(host.to_owned()),
            Some(_) => return Err(ConnectError::Url(format!("a port is a number up to 65535; {SHAPE}"))),
        }
    }
    Ok(hosts.join(","))
}

fn parse_topic(text: &str) -> Result<String, ConnectError> {
    let topic = if text.is_empty() { "fanfare" } else { text };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if topic.len() > TOPIC_LENGTH || topic == "." || topic == ".." || !topic.bytes().all(plain) {
        let why = format!("a topic takes up to {TOPIC_LENGTH} letters, digits and `-_.`");
        return Err(ConnectError::Url(why));
    }
    Ok(topic.to_owned())
}

fn parse_login(text: Option<&str>, sasl: Option<&'static str>, tls: bool) -> Result<Option<Login>, ConnectError> {
    let wrong = |why: &str| ConnectError::Url(why.to_owned());
    let Some(text) = text else {
        return match sasl {
            Some(_) => Err(wrong("`sasl` needs a user and a password")),
            None => Ok(None),
        };
    };
    let parts = text.split_once(':').and_then(|(user, password)| Some((decode(user)?, decode(password)?)));
    let (user, password) = parts.ok_or_else(|| wrong("a user comes with a password: user:password@host"))?;
    if user.is_empty() || password.is_empty() || [&user, &password].iter().any(|text| text.contains('\0')) {
        return Err(wrong("a user comes with a password: user:password@host"));
    }
    // PLAIN sends the password in clear: only over TLS, unless the URL asks for it.
    let mechanism = sasl.unwrap_or(if tls { "PLAIN" } else { "SCRAM-SHA-512" });
    Ok(Some(Login { user, password, mechanism }))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [char::from(bytes.next()?), char::from(bytes.next()?)].map(|digit| digit.to_digit(16));
        let [Some(high), Some(low)] = digits else { return None };
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn setting(url: &str, key: &str) -> Option<String> {
        parse(url).client().get(key).map(str::to_owned)
    }

    #[test]
    fn a_url_says_where_and_which_topic() {
        let address = parse("kafka://a.example:9192,b.example,[::1]/chat.v2");
        assert_eq!(address.hosts, "a.example:9192,b.example:9092,[::1]:9092");
        assert_eq!(address.topic, "chat.v2");
        assert_eq!(parse("kafka://h").topic, "fanfare");
        assert_eq!(parse("kafka://h/?replication=3").topic, "fanfare");
        assert_eq!(parse("kafka+ssl://h").hosts, "h:9093");
    }

    #[test]
    fn options_say_how_to_make_the_topic() {
        let address = parse("kafka://h/t?replication=3&retention=24h");
        assert_eq!((address.replication, address.adopt), (Some(3), false));
        assert!(parse("kafka://h/t?adopt=true").adopt && !parse("kafka://h/t?adopt=false").adopt);
        assert_eq!(address.retention.map(Retention::milliseconds).as_deref(), Some("86400000"));
        for (text, milliseconds) in [("1500ms", "1500"), ("90m", "5400000"), ("7d", "604800000"), ("forever", "-1")] {
            assert_eq!(Retention::parse(text).map(Retention::milliseconds).as_deref(), Some(milliseconds));
        }
        for text in ["", "0s", "24", "h", "1w", "-1", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(Retention::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_login_is_not_sent_in_the_clear_unless_asked_for() {
        let mechanism = |url| setting(url, "sasl.mechanism");
        assert_eq!(mechanism("kafka://u:p@h").as_deref(), Some("SCRAM-SHA-512"));
        assert_eq!(mechanism("kafka://u:p@h?sasl=plain").as_deref(), Some("PLAIN"));
        assert_eq!(mechanism("kafka+ssl://u:p@h").as_deref(), Some("PLAIN"));
        assert_eq!(mechanism("kafka+ssl://u:p@h?sasl=scram-sha-256").as_deref(), Some("SCRAM-SHA-256"));
        assert_eq!(mechanism("kafka://h"), None);
        assert_eq!(setting("kafka://me:p%40ss%3Aw%2F@h", "sasl.password").as_deref(), Some("p@ss:w/"));
        for (url, protocol) in [
            ("kafka://h", "plaintext"),
            ("kafka+ssl://h", "ssl"),
            ("kafka://u:p@h", "sasl_plaintext"),
            ("kafka+ssl://u:p@h", "sasl_ssl"),
        ] {
            assert_eq!(setting(url, "security.protocol").as_deref(), Some(protocol));
        }
    }

    #[test]
    fn a_wrong_url_is_explained_without_its_password() {
        for (rest, word) in [
            ("", "should read"),
            ("host:notanumber", "port"),
            ("host:99999", "port"),
            ("host,,other", "should read"),
            ("ho st", "should read"),
            ("host/a/b", "topic"),
            ("host/t?adopt=maybe", "`adopt`"),
            ("host/..", "topic"),
            ("host?colour=red", "colour"),
            ("host?replication=0", "replication"),
            ("host?retention=soon", "retention"),
            ("host?sasl=gssapi", "sasl"),
            ("host?ca=/etc/ca.pem", "kafka+ssl"),
            ("host#x", "%23"),
        ] {
            let Err(error) = Address::parse(&format!("kafka://user:hunter2@{rest}")) else { panic!("{rest} is taken") };
            let error = error.to_string();
            assert!(error.contains(word), "{rest}: {error}");
            assert!(!error.contains("hunter2"), "{rest}: {error}");
        }
        for url in ["kafka://user@host", "kafka://:hunter2@host", "kafka://user:%zz@host", "kafka://h?sasl=plain"] {
            let Err(error) = Address::parse(url) else { panic!("{url} is taken") };
            assert!(error.to_string().contains("password") && !error.to_string().contains("hunter2"), "{error}");
        }
        let Err(error) = Address::parse("kafka+ssl://u:hunter2@h?ca=/nowhere.pem") else { panic!("no such file") };
        assert!(error.to_string().contains("/nowhere.pem") && !error.to_string().contains("hunter2"), "{error}");
        let Err(error) = Address::parse("kafka+ssl://h?ca=/etc/hostname") else { panic!("no certificate") };
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
