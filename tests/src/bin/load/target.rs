//! Where the server listens: a `ws://` URL on this machine, and on no other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

/// Connections that share a source address: far below the ~28,000 ports of one, so that those in TIME-WAIT never matter.
const PER_SOURCE: usize = 2_000;
const SOURCES: usize = 200;

/// A server's address and the path of its WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("ws://").with_context(|| format!("{url}: a ws:// URL is needed"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = authority.replace("localhost:", "127.0.0.1:");
        let address: SocketAddr = match authority.parse() {
            Ok(address) => address,
            Err(_) => bail!("{url}: the host must be an address with a port, as in ws://127.0.0.1:8080/raw/bench"),
        };
        ensure!(address.ip().is_loopback(), "{url}: refused, load is sent to this machine only (127.0.0.0/8 or ::1)");
        ensure!(!path.contains(|c: char| c.is_whitespace() || c.is_control()), "{url}: the path has blanks in it");
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { address, path: path.to_owned() })
    }
}

impl Target {
    /// The address from which the connection of this number comes; `start` varies from run to run.
    pub(crate) fn source(&self, start: usize, connection: usize) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(_) => {
                let last = 2 + (start + connection / PER_SOURCE) % SOURCES;
                IpAddr::V4(Ipv4Addr::new(127, 0, 0, last as u8))
            }
            ip => ip,
        };
        SocketAddr::new(ip, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_url_is_taken_apart() {
        for (url, address, path) in [
            ("ws://127.0.0.1:8080/raw/bench", "127.0.0.1:8080", "/raw/bench"),
            ("ws://127.9.9.9:1/x?y=1", "127.9.9.9:1", "/x?y=1"),
            ("ws://[::1]:3000", "[::1]:3000", "/"),
            ("ws://localhost:80/ws", "127.0.0.1:80", "/ws"),
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!((target.address.to_string().as_str(), target.path.as_str()), (address, path), "{url}");
        }
    }

    #[test]
    fn every_other_machine_is_refused() {
        let names = ["ws://example.com:80/", "wss://127.0.0.1:1/", "ws://127.0.0.1/", "ws://127.0.0.1:80@10.0.0.1:80/"];
        for url in ["ws://10.0.0.1:80/", "ws://0.0.0.0:80/", "ws://[::2]:1/"].into_iter().chain(names) {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
        let refusal = "ws://192.168.0.1:80/".parse::<Target>().unwrap_err().to_string();
        assert!(refusal.contains("this machine only"), "{refusal}");
    }

    #[test]
    fn sources_stay_within_the_loopback_network() {
        let target: Target = "ws://127.0.0.1:80/".parse().unwrap();
        for (start, connection) in [(0, 0), (199, 17_999), (usize::from(u16::MAX), 5)] {
            assert!(target.source(start, connection).ip().is_loopback());
        }
        assert_ne!(target.source(0, 0), target.source(0, PER_SOURCE));
    }
}
