//! `[http]`.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::{Network, address, duration, number};

/// Where the node accepts connections, and from which clients, pages and proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// IP address and port to listen on. The default accepts connections from this machine only. `0.0.0.0:8080` accepts them
    /// from all machines, `[::]:8080` over IPv6 too.
    #[serde(deserialize_with = "address::deserialize")]
    pub listen: SocketAddr,
    /// Origins of pages on other hosts that may open sockets, such as `https://example.com`, "null" or "file://"; "*" allows
    /// all. Pages of the node's own hosts always may. In the environment, separate the origins by commas.
    pub origins: Vec<String>,
    /// Host names of the node, such as `example.com` or `*.example.com`; "*" allows any name. Always allowed are addresses,
    /// `localhost`, the hosts of `origins` and, unless `listen` is this machine only, names without a dot or under `.local`
    /// and `.internal`. A request without TLS for another name is refused, because its page may belong to an attacker (DNS
    /// rebinding).
    pub hosts: Vec<String>,
    /// Time that a client has to send the head of its request. Raise it for very slow networks; lower it against clients that
    /// send single bytes to keep connections open.
    #[serde(with = "duration")]
    pub head_time: Duration,
    /// Maximum number of open connections; more are refused. Keep it below the node's limit of open files, and within its
    /// memory.
    #[serde(deserialize_with = "number::between::<_, _, 1, 10_000_000>")]
    pub max_connections: usize,
    /// Maximum number of new connections per second; after a quiet second, twice as many. More get 503 before anything is
    /// read. The default is about what one core can do; with TLS in the node, a core can do a tenth of it. For
    /// `trusted_proxies` only the upgrades count, so their health checks are always answered.
    #[serde(deserialize_with = "number::between::<_, _, 1, 1_000_000>")]
    pub accept_rate: u32,
    /// Networks of the proxies in front of the node, such as `10.0.0.0/8`. The node believes them about a client's address
    /// (PROXY protocol, `X-Forwarded-For`), scheme (`-Proto`) and host (`-Host`). From other addresses it ignores all of these.
    pub trusted_proxies: Vec<Network>,
    /// Whether every connection starts with a PROXY protocol header, which HAProxy sends with `send-proxy-v2`. If true,
    /// connections without the header, and connections that do not come from `trusted_proxies`, are closed.
    pub proxy_protocol: bool,
    /// Whether clients may publish with `POST /publish`, with the same rights as over a WebSocket. Set it to true for pages and
    /// programs that only have HTTP.
    pub publish: bool,
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
            publish: false,
        }
    }
}
