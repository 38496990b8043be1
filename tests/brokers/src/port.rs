//! A port of 127.0.0.1 that stays ours, also while the program that uses it is down.
//!
//! Below the range that outgoing connections take theirs from. Holds a socket that is bound and never listens: who binds
//! without `SO_REUSEADDR` first, as [`Port::take`] does, sees that the port is taken; a server sets that option and gets it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// A port that no other test gets.
#[derive(Debug)]
pub struct Port {
    /// 127.0.0.1 and the port.
    pub address: SocketAddr,
    _held: Socket,
}

impl Port {
    /// Takes a port.
    pub fn take() -> Result<Self> {
        let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).take(1000);
        ports.find_map(|port| Self::hold(port).ok()).context("no free port between 10000 and 32000")
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.address.port()
    }

    fn hold(port: u16) -> std::io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let held = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        held.bind(&address.into())?;
        held.set_reuse_address(true)?;
        Ok(Self { address, _held: held })
    }
}

/// How many established connections these ports of this machine took, as the system counts them.
pub fn established(ports: &[u16]) -> Result<usize> {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let ends: Vec<_> = ports.iter().map(|port| format!(":{port:04X}")).collect();
    let taken = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.get(3) == Some(&ESTABLISHED) && ends.iter().any(|end| words[1].ends_with(end))
    };
    Ok(table.lines().filter(taken).count())
}
