//! `[api]`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{ApiKey, Http, address, number};

/// The HTTP API, by which your backend publishes, reads history and ends tokens. It has a listener of its own. Never let a public
/// balancer route to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// IP address and port of the API, "off", or "auto". With "auto" the API listens on this machine only, on the port of
    /// `http.listen` plus 1000, or on a free port if that one is in use; and only if `http.listen` is this machine only too, or if
    /// there are `keys`. The API has no TLS: use a private network for other machines.
    pub listen: ApiListen,
    /// Keys of backends. Each is a table with `id`, a name without a dot; `hash`, which `fanfare genkey api` prints, or `secret`, the
    /// secret itself with at least 32 bytes; `can`, a list of "publish", "read" and "admin"; and optionally `channels`, patterns of the
    /// channels that it may use, as in `[[channels]]`; without it, all. If there are none and the API listens on this machine only, a
    /// key is made at each start and printed. Otherwise the node does not start without keys.
    pub keys: Vec<ApiKey>,
    /// Maximum number of messages that one key may publish per second; after a quiet second, twice as many. More get 429. 0 means no
    /// limit.
    #[serde(deserialize_with = "number::between::<_, _, 0, 10_000_000>")]
    pub publishes_per_second: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: ApiListen::Auto, keys: Vec::new(), publishes_per_second: 100_000 }
    }
}

impl Api {
    /// Where the API of a node with this public listener listens; `None` if there is none.
    pub(crate) fn address(&self, http: &Http) -> Option<SocketAddr> {
        match self.listen {
            ApiListen::Off => None,
            ApiListen::At(address) => Some(address),
            ApiListen::Auto if is_local(http.listen) || !self.keys.is_empty() => {
                Some(SocketAddr::from((Ipv4Addr::LOCALHOST, beside(http.listen.port()))))
            }
            ApiListen::Auto => None,
        }
    }

    /// Whether a backend has a key, or gets one that is made at the start.
    pub(in crate::config) fn has_keys(&self, http: &Http) -> bool {
        !self.keys.is_empty() || self.address(http).is_none_or(is_local)
    }
}

/// The port of the API beside that of the public listener; 0 stands for any free one.
fn beside(port: u16) -> u16 {
    match port {
        0 => 0,
        port => port.checked_add(1000).unwrap_or(port - 1000),
    }
}

/// Whether only this machine can reach the address.
fn is_local(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// Where the API listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApiListen {
    /// On this machine only, if that is safe or there are keys.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl fmt::Display for ApiListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl Serialize for ApiListen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApiListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |error: de::value::Error| de::Error::custom(format_args!("{error}, \"auto\" or \"off\""));
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            other => address::deserialize(other.into_deserializer()).map(Self::At).map_err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_listens_beside_a_local_node_and_elsewhere_only_with_keys() {
        let key: ApiKey =
            toml::from_str(&format!("id = \"a\"\ncan = [\"read\"]\nsecret = \"{}\"", "x".repeat(32))).expect("a key");
        for (listen, keyed, http, expected) in [
            ("auto", false, "127.0.0.1:8080", Some("127.0.0.1:9080")),
            ("auto", false, "[::1]:8080", Some("127.0.0.1:9080")),
            ("auto", false, "127.0.0.1:0", Some("127.0.0.1:0")),
            ("auto", false, "127.0.0.1:65000", Some("127.0.0.1:64000")),
            ("auto", false, "0.0.0.0:8080", None),
            ("auto", true, "0.0.0.0:8080", Some("127.0.0.1:9080")),
            ("off", true, "127.0.0.1:8080", None),
            ("10.0.0.1:7", true, "127.0.0.1:8080", Some("10.0.0.1:7")),
        ] {
            let listen = ApiListen::deserialize(IntoDeserializer::<de::value::Error>::into_deserializer(listen));
            let keys = if keyed { vec![key.clone()] } else { Vec::new() };
            let api = Api { listen: listen.expect("valid"), keys, ..Api::default() };
            let http = Http { listen: http.parse().expect("an address"), ..Http::default() };
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(api.address(&http), expected, "{} {keyed} {}", api.listen, http.listen);
        }
    }

    #[test]
    fn a_name_is_no_address_to_listen_on() {
        let listen = ApiListen::deserialize(IntoDeserializer::<de::value::Error>::into_deserializer("localhost:1"));
        let error = listen.expect_err("a name").to_string();
        assert_eq!(error, "expected an IP address, not a name: \"127.0.0.1:1\", \"auto\" or \"off\"");
    }
}
