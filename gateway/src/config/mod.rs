//! What an operator can set, where it may come from, and what is said when it is wrong.
//!
//! Defaults, then the file, then the environment, then flags: [`load`] merges them. A [`Config`] that was loaded
//! is valid; nothing checks it again. A field's doc comment is its reference line and its comment in
//! `deploy/fanfare.toml`. Printing a `Config` in any way never shows the broker's password.

mod address;
mod broker_url;
mod duration;
mod environment;
mod errors;
mod keys;
mod load;
mod name;
mod network;
mod number;
mod rules;
mod size;

use std::{fmt, fs, net::SocketAddr, process, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use self::duration::parse as parse_duration;
pub(crate) use self::network::masked;
pub use self::{
    broker_url::{BrokerUrl, redacted},
    errors::{ConfigError, ConfigErrors, Place},
    load::{Overrides, load},
    network::Network,
    size::ByteSize,
};

/// All that can be set, by section.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this node is and how much of the machine it takes.
    pub node: Node,
    /// Where and from whom connections are accepted.
    pub http: Http,
    /// TLS for those without a balancer that ends it.
    pub tls: Tls,
    /// What one client, and all clients together, may take.
    pub limits: Limits,
    /// How long things may take once a client is connected.
    pub timing: Timing,
    /// The log that joins the nodes.
    pub broker: Broker,
    /// What the node remembers for clients that come back.
    pub window: Window,
    /// What the node tells about itself.
    pub log: Log,
    /// The word for HAProxy's agent-check.
    pub agent: Agent,
}

/// Who this node is and how much of the machine it takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// The node's name in logs, headers and the cluster; it must differ from every other node's. Default: empty, which
    /// means `<hostname>-<process id>`. Set it where hostnames repeat or names should outlive a restart.
    #[serde(deserialize_with = "name::deserialize")]
    pub name: String,
    /// Threads that serve connections. Default: 0, one per core. Lower it to leave cores to others.
    #[serde(deserialize_with = "number::between::<_, _, 0, 1024>")]
    pub workers: usize,
}

/// Where and from whom connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// IP address and port to listen on. Default: "127.0.0.1:8080", this machine only. `0.0.0.0:8080` takes connections
    /// from everywhere, `[::]:8080` over IPv6 as well.
    #[serde(deserialize_with = "address::deserialize")]
    pub listen: SocketAddr,
    /// Origins whose pages may open sockets, such as `https://example.com`, "null" or "file://". Default: none but the node's
    /// own; "*" allows all. Set it when the pages come from another host. In the environment, separate them by commas.
    pub origins: Vec<String>,
    /// Names that the node is called by, such as `example.com` or `*.example.com`; "*" is any. Default: none but addresses,
    /// `localhost`, the hosts of `origins` and, where `listen` is not this machine only, names without a dot or under
    /// `.local` and `.internal`. What came without TLS for another name is refused: its page may be a stranger's.
    pub hosts: Vec<String>,
    /// Time a client has to send its request's head. Default: "5s". Raise it for very slow networks; lower it against
    /// clients that trickle bytes to hold connections.
    #[serde(with = "duration")]
    pub head_time: Duration,
    /// Open connections at most; further ones are refused. Default: 100000. Keep it below the node's limit of open
    /// files, and to what its memory can bear.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000_000>")]
    pub max_connections: usize,
    /// Connections taken per second at most, and as many more at once after a quiet second; further ones are answered with
    /// 503 before anything is read. Default: 20000, about what a core can do; with TLS in the node a tenth of it is.
    /// Of what `trusted_proxies` bring, the upgrades count, so that their health checks are always answered.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub accept_rate: u32,
    /// Networks of the proxies in front of the node, such as `10.0.0.0/8`. Default: none. What they say of a client's
    /// address (PROXY protocol, `X-Forwarded-For`), scheme (`-Proto`) and host (`-Host`) is believed; anyone else's is not.
    pub trusted_proxies: Vec<Network>,
    /// Whether every connection begins with a PROXY protocol header, as `send-proxy-v2` makes HAProxy send it. Default:
    /// false. Connections that do not come from `trusted_proxies`, or come without the header, are then closed.
    pub proxy_protocol: bool,
}

/// TLS for those without a balancer that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file with the certificate and those that lead to its CA. Default: empty, no TLS. Once it is set, nothing but TLS
    /// 1.2 or newer is spoken. SIGHUP reads both files again; open connections stay.
    pub certificate: String,
    /// PEM file with the certificate's private key. Default: empty. Let nobody but the node's user read it.
    pub key: String,
}

/// What one client, and all clients together, may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Size of one message from a client, all its fragments together; a larger one closes the connection with 1009.
    /// Default: "64KiB". At most half of `outbox`, and what the broker accepts.
    #[serde(deserialize_with = "size::at_most::<_, 0x4000_0000>")]
    pub message: ByteSize,
    /// Frames that one message may be split into. Default: 16384. Lower it against clients that send many empty frames.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub fragments: usize,
    /// Time from a message's first byte to its last. Default: "30s". Raise it for large messages over slow networks.
    #[serde(with = "duration")]
    pub message_time: Duration,
    /// Open connections from one address (IPv6: one /64); further ones are answered with 429. Default: 50000, half of a
    /// node. Lower it where clients have addresses of their own. `trusted_proxies` are not counted, only who is behind.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000_000>")]
    pub connections_per_address: u32,
    /// Messages that wait for one client, in bytes, with 64 more for each; a client that falls further behind is closed with
    /// 4410. The message that is being written and the newest do not count, so one may be larger than this. Default: "1MiB".
    /// Raise it to ride out longer stalls, at the cost of memory.
    pub outbox: ByteSize,
    /// Messages that wait for all the node's clients together, in bytes; one that waits for many counts once per worker. When
    /// there are more, besides the largest, the clients that have taken nothing for longest are closed with 4410. Default:
    /// "256MiB". Set it to the memory the node may spend on slow clients.
    pub outbox_total: ByteSize,
    /// Pings a client may send per second that are answered one by one; more are answered together, and ten times as many
    /// close the connection with 1008. Default: 20.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub pings_per_second: u32,
    /// Channels that one connection may be subscribed to at a time. Default: 100. Each costs memory on the node.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub channels_per_connection: usize,
    /// Length of a channel's name in bytes of UTF-8. Default: "255B"; at most "65535B".
    #[serde(deserialize_with = "size::at_most::<_, 0xffff>")]
    pub channel_name: ByteSize,
}

/// How long things may take once a client is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Time between the pings a client is sent. Default: "25s". Keep it below the idle timeout of every proxy between the
    /// node and its clients; raise it to save mobile batteries.
    #[serde(with = "duration")]
    pub ping: Duration,
    /// Time a client has to answer a ping before it is taken for gone. Default: "10s". Shorter than `ping`. It counts from the
    /// last bytes that a slow client took, so a ping that waits behind messages ends nobody.
    #[serde(with = "duration")]
    pub pong: Duration,
    /// Time after which a connection is closed that has neither subscribed nor sent a message. Default: "off". Set it to
    /// reap connections that nobody uses.
    #[serde(with = "duration::or_off")]
    pub idle: Option<Duration>,
    /// Time that a node that is told to stop goes on as before, but for saying that it is not ready, so that balancers notice.
    /// Default: "3s". Twice the interval of their checks; Kubernetes needs more, about "10s". "off" for no balancer;
    /// SIGINT (Ctrl-C) never waits for one.
    #[serde(with = "duration::or_off")]
    pub drain_wait: Option<Duration>,
    /// Time over which it then closes its clients, in random order and at an even pace; few take less. Default: "10s".
    /// Supervisors must wait for both, and 5 s and `publish_timeout` more (Docker: 10 s unless told, Kubernetes: 30 s).
    #[serde(with = "duration")]
    pub drain: Duration,
}

/// The log that joins the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Broker {
    /// Where messages go through; nodes with the same broker are one cluster. Default: "memory:", a log inside this one
    /// node. README.md says what each of these needs, and what its options are:
    /// `redis[s]://[[user]:password@]host[:port][/database][?prefix=&adopt=&ca=]`,
    /// `kafka[+ssl]://[user:password@]host[:port][,host…][/topic][?replication=&retention=&sasl=&ca=&adopt=]`,
    /// `amqp[s]://[user[:password]@]host[:port][/vhost][?prefix=&max-bytes=&ca=&adopt=]` for RabbitMQ.
    pub url: BrokerUrl,
    /// Logs that the channels are spread over. Default: 16. All nodes of a cluster must agree, and a change needs all of
    /// them stopped. Raise it for many nodes and channels.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1024>")]
    pub partitions: u16,
    /// Records that Redis or the embedded log keeps per partition, for clients that come back. Default: 20000. Raise it to
    /// bridge longer absences, at the cost of memory. Kafka keeps by time and RabbitMQ by size, as the URL says.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000_000>")]
    pub retention: u64,
    /// Time after which a publish that the broker has not confirmed fails. Default: "3s". Raise it to let publishers wait
    /// through longer outages.
    #[serde(with = "duration")]
    pub publish_timeout: Duration,
    /// Publishes that may wait for the broker at a time; further ones are refused at once. Default: 10000.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000_000>")]
    pub in_flight: usize,
    /// The same in bytes. Default: "64MiB". It bounds the memory that an outage of the broker takes.
    pub in_flight_bytes: ByteSize,
    /// Silence of a partition after which a node writes a heartbeat; after three without a record the link counts as
    /// dead. Default: "2s". Raise it for brokers far away.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
}

/// What the node remembers for clients that come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Window {
    /// Age up to which messages are kept in memory; older ones are read from the broker when a client needs them.
    /// Default: "5m". Raise it where many clients are away for longer.
    #[serde(with = "duration")]
    pub age: Duration,
    /// Memory for them, in bytes, shared by all partitions: the oldest message goes first. Default: "64MiB". A message takes
    /// about 580 B and twice its size. Raise it where the broker should be asked less.
    pub bytes: ByteSize,
}

/// What the node tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged: error, warn, info, debug or trace, or a filter such as "info,gateway=debug". Default: "info".
    pub level: String,
}

/// The word for HAProxy's agent-check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// IP address and port where connections are told `up`, `drain` or `down` in a line. Default: "off". Nobody but the
    /// balancer should reach it. `fanfare ready` asks it where `http.listen` has TLS or the PROXY protocol.
    #[serde(with = "address::or_off")]
    pub listen: Option<SocketAddr>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            origins: Vec::new(),
            hosts: Vec::new(),
            head_time: Duration::from_secs(5),
            max_connections: 100_000,
            accept_rate: 20_000,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: ByteSize::kib(64),
            fragments: 16_384,
            message_time: Duration::from_secs(30),
            connections_per_address: 50_000,
            outbox: ByteSize::mib(1),
            outbox_total: ByteSize::mib(256),
            pings_per_second: 20,
            channels_per_connection: 100,
            channel_name: ByteSize::new(255),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            idle: None,
            drain_wait: Some(Duration::from_secs(3)),
            drain: Duration::from_secs(10),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: BrokerUrl::default(),
            partitions: 16,
            retention: 20_000,
            publish_timeout: Duration::from_secs(3),
            in_flight: 10_000,
            in_flight_bytes: ByteSize::mib(64),
            heartbeat: Duration::from_secs(2),
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { age: Duration::from_secs(300), bytes: ByteSize::mib(64) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

impl Config {
    /// The node's name: `node.name`, or `<hostname>-<process id>` where that is empty. The same whenever it is asked for.
    ///
    /// The hostname is the kernel's (Linux), else the variable `HOSTNAME`, else `node`.
    pub fn node_name(&self, environment: impl IntoIterator<Item = (String, String)>) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        name::derived(kernel, environment, process::id())
    }
}

/// As TOML, without the broker's password.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/fanfare.toml");

    #[test]
    fn the_example_file_holds_exactly_the_defaults() {
        assert_eq!(toml::from_str::<Config>(EXAMPLE), Ok(Config::default()));
    }

    #[test]
    fn the_example_file_has_every_key_under_its_doc_comment() {
        let source = include_str!("mod.rs").split("impl Default").next().unwrap_or_default();
        let (mut expected, mut doc) = (Vec::new(), Vec::new());
        for line in source.lines().skip_while(|line| !line.starts_with("pub struct Node")).map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                doc.push(format!("#{text}"));
            } else if let Some(name) = line.strip_prefix("pub struct ") {
                expected.append(&mut doc);
                expected.push(format!("[{}]", name.trim_end_matches(" {").to_lowercase()));
            } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
                expected.append(&mut doc);
                expected.push(name.to_owned());
            }
        }
        let without_value = |line: &str| match line.split_once(" = ") {
            Some((key, _)) if !line.starts_with('#') => key.to_owned(),
            _ => line.to_owned(),
        };
        let body = EXAMPLE.lines().skip_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty());
        let found: Vec<String> = body.map(without_value).collect();
        assert_eq!(found, expected);
        let defaults = toml::Table::try_from(Config::default()).expect("strings and numbers");
        let keys: usize = defaults.values().filter_map(|section| section.as_table()).map(toml::Table::len).sum();
        assert_eq!(found.iter().filter(|line| !line.starts_with(['#', '['])).count(), keys);
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_configuration() {
        let config = Config::default();
        assert_eq!(toml::from_str::<Config>(&config.to_string()), Ok(config));
    }

    #[test]
    fn no_way_of_printing_shows_the_password() {
        let url = "redis://user:hunter2@host?token=hunter2".parse().expect("a URL");
        let config = Config { broker: Broker { url, ..Broker::default() }, ..Config::default() };
        for text in [format!("{config}"), format!("{config:?}"), format!("{config:#?}"), config.broker.url.to_string()]
        {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("redis://user:***@host?token=***"), "{text}");
        }
        assert_eq!(config.broker.url.expose(), "redis://user:hunter2@host?token=hunter2");
    }

    #[test]
    fn a_node_without_a_name_is_called_after_its_host_and_process() {
        let mut config = Config::default();
        assert!(config.node_name([]).ends_with(&format!("-{}", process::id())));
        config.node.name = "fanfare-1".into();
        assert_eq!(config.node_name([]), "fanfare-1");
    }
}
