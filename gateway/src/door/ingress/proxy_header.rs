//! The PROXY protocol's header, versions 1 and 2 (HAProxy's `doc/proxy-protocol.txt`): who the client behind a proxy is.
//!
//! The parser is pure. The reader takes exactly the header from the socket, so that what follows is whole for whoever
//! reads next. TLVs are skipped: a checksum among them would only guard what TCP does.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// §2.2: what begins a header of version 2, and nothing else.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, and the length of what follows.
const FIXED: usize = 16;
/// §2.1: the longest line of version 1, with its end.
const LINE: usize = 107;
/// Bytes looked at in one go. Addresses take 52 bytes; certificates among the TLVs may take many times more.
const STEP: usize = 512;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// The connection comes from this client.
    Client(SocketAddr),
    /// The proxy speaks for itself (a health check), or does not know.
    Local,
}

/// Not a header, or one that says nothing that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

/// How far a header reaches.
#[derive(Debug, PartialEq, Eq)]
enum Extent {
    /// All that came is part of it, and more must come.
    More,
    /// It has so many bytes, all of which came.
    Whole(usize),
}

/// Takes the header from a socket, and nothing beyond it. `None` means the socket's own peer. Not cancel safe: a connection
/// whose header did not come whole is of no use.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::new();
    loop {
        let had = header.len();
        header.resize(had + STEP, 0);
        let came = stream.peek(&mut header[had..]).await?;
        if came == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        header.truncate(had + came);
        let extent = extent(&header)?;
        if let Extent::Whole(length) = extent {
            header.truncate(length);
        }
        stream.read_exact(&mut header[had..]).await?;
        if let Extent::Whole(_) = extent {
            return Ok(match parse(&header)? {
                Header::Client(client) => Some(client),
                Header::Local => None,
            });
        }
    }
}

/// Looks at the first bytes of a connection: at least those of the header that have come.
fn extent(bytes: &[u8]) -> Result<Extent, Malformed> {
    if begins(bytes, &SIGNATURE) {
        let Some(&[_, _, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else { return Ok(Extent::More) };
        let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
        return match length {
            _ if length > bytes.len() => Ok(Extent::More),
            _ => Ok(Extent::Whole(length)),
        };
    }
    if !begins(bytes, b"PROXY ") {
        return Err(Malformed);
    }
    match bytes.iter().take(LINE).position(|byte| *byte == b'\n') {
        Some(end) => Ok(Extent::Whole(end + 1)),
        None if bytes.len() < LINE => Ok(Extent::More),
        None => Err(Malformed),
    }
}

/// Whether the bytes may be, or become, what begins so.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(one, other)| one == other)
}

/// Reads a whole header.
fn parse(header: &[u8]) -> Result<Header, Malformed> {
    match header.strip_prefix(&SIGNATURE) {
        Some(rest) => binary(rest),
        None => text(header),
    }
}

/// Version 1 (§2.1): `PROXY TCP4 <source> <destination> <source port> <destination port>`, ended by CR LF.
fn text(line: &[u8]) -> Result<Header, Malformed> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed)?;
    let mut fields = line.split(' ').skip(1);
    let family = fields.next();
    if family == Some("UNKNOWN") {
        // Whatever else the line says is to be ignored.
        return Ok(Header::Local);
    }
    let mut field = || fields.next().ok_or(Malformed);
    let (source, _) = (address(family, field()?)?, address(family, field()?)?);
    let (port, _) = (port(field()?)?, port(field()?)?);
    if fields.next().is_some() { Err(Malformed) } else { Ok(Header::Client(SocketAddr::new(source, port))) }
}

fn address(family: Option<&str>, text: &str) -> Result<IpAddr, Malformed> {
    let address = match family {
        Some("TCP4") => text.parse().ok().map(IpAddr::V4),
        Some("TCP6") => text.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    address.ok_or(Malformed)
}

/// A decimal number without sign or leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical).ok_or(Malformed)
}

/// Version 2 (§2.2), after its signature.
fn binary(bytes: &[u8]) -> Result<Header, Malformed> {
    let [command, family, _, _, addresses @ ..] = bytes else { return Err(Malformed) };
    match command {
        // LOCAL: whatever else is there is to be ignored.
        0x20 => return Ok(Header::Local),
        0x21 => {}
        _ => return Err(Malformed),
    }
    match family {
        // Unspecified.
        0x00 => Ok(Header::Local),
        // TCP over IPv4: source, destination, source port, destination port.
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, _, _, ..] = *addresses else { return Err(Malformed) };
            Ok(Header::Client((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into()))
        }
        // TCP over IPv6.
        0x21 => {
            let (source, rest) = addresses.split_first_chunk::<16>().ok_or(Malformed)?;
            let (_, ports) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            let [high, low, _, _, ..] = *ports else { return Err(Malformed) };
            Ok(Header::Client((Ipv6Addr::from(*source), u16::from_be_bytes([high, low])).into()))
        }
        // Datagrams and UNIX sockets: valid, but no address of a WebSocket's client.
        0x12 | 0x22 | 0x31 | 0x32 => Ok(Header::Local),
        _ => Err(Malformed),
    }
}

impl From<Malformed> for io::Error {
    fn from(Malformed: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, "no PROXY protocol header")
    }
}

#[cfg(test)]
mod tests;
