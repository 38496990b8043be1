//! Reads the PROXY protocol header, versions 1 and 2 (HAProxy's `doc/proxy-protocol.txt`), with the client's address.
//!
//! The parser is pure. The reader takes exactly the header from the socket and leaves the bytes after it. TLVs are skipped,
//! also a checksum: TCP has its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// §2.2: the first bytes of every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes of the signature, of version and command, of family and transport, and of the length of the rest.
const FIXED: usize = 16;
/// §2.1: the longest line of version 1 with CR LF, in bytes.
const LINE: usize = 107;
/// Bytes to peek at a time. Addresses take at most 52 bytes; TLVs with certificates may take many more.
const STEP: usize = 512;

/// The content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// The address of the client.
    Client(SocketAddr),
    /// The proxy's own connection (a health check), or an unknown client.
    Local,
}

/// Not a header, or one without a usable address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

/// How much of a header has arrived.
#[derive(Debug, PartialEq, Eq)]
enum Extent {
    /// Only a part; more must come.
    More,
    /// All of it, this many bytes.
    Whole(usize),
}

/// Reads the header from a socket, and nothing after it. `None` means that the client is the socket's peer. Not cancel safe:
/// a connection without its whole header is useless.
///
/// # Errors
/// Fails if the header is malformed or the connection ends before the header does.
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

/// Finds the end of the header. `bytes` are the first bytes of the connection, with all of the header that has arrived.
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

/// Whether `bytes` starts with `with`, or is the beginning of it.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(one, other)| one == other)
}

/// Parses a whole header.
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
        // The rest of the line must be ignored.
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
        // LOCAL: the rest must be ignored.
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
        // Datagrams and UNIX sockets: valid, but without an address of a WebSocket client.
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
