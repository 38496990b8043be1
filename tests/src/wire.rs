//! A raw client: sends any bytes, lawful or not, and says what came back.
//!
//! A [`Head`] and a [`Frame`] are values that the rows of a table bend: nothing stops a test from breaking a rule.
//! What comes from the server is read strictly: a server that breaks a rule fails the test.
//! Every wait ends within [`PATIENCE`].

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, timeout};

use crate::{PATIENCE, Program};

/// The key of RFC 6455 §1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The proof that [`KEY`] was understood.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A continuation frame's opcode.
pub const CONTINUATION: u8 = 0x0;
/// A text frame's opcode.
pub const TEXT: u8 = 0x1;
/// A binary frame's opcode.
pub const BINARY: u8 = 0x2;
/// A close frame's opcode.
pub const CLOSE: u8 = 0x8;
/// A ping's opcode.
pub const PING: u8 = 0x9;
/// A pong's opcode.
pub const PONG: u8 = 0xA;

/// The least room for one read.
const READ: usize = 4 << 10;

/// The head of a request, line by line.
#[derive(Debug, Clone)]
pub struct Head {
    line: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// A plain request that every server understands.
    #[must_use]
    pub fn get(path: impl AsRef<[u8]>) -> Self {
        let line = [b"GET ", path.as_ref(), b" HTTP/1.1"].concat();
        Self { line, fields: vec![("Host".into(), b"localhost".into())] }
    }

    /// A lawful handshake.
    #[must_use]
    pub fn upgrade(path: impl AsRef<[u8]>) -> Self {
        Self::get(path)
            .with("Upgrade", "websocket")
            .with("Connection", "Upgrade")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", KEY)
    }

    /// With another first line.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.line = line.into();
        self
    }

    /// With one more header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.into(), value.as_ref().into()));
        self
    }

    /// Without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self
    }

    /// With a header's lines replaced by one.
    #[must_use]
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).with(name, value)
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let fields = self.fields.iter().flat_map(|(name, value)| [name.as_bytes(), b": ", value, b"\r\n"].concat());
        [&self.line[..], b"\r\n"].concat().into_iter().chain(fields).chain(*b"\r\n").collect()
    }
}

/// A frame as a client sends it: lawful until it is bent.
#[derive(Debug, Clone)]
pub struct Frame {
    first: u8,
    mask: Option<[u8; 4]>,
    length: Option<Length>,
    payload: Vec<u8>,
}

/// How a frame writes its length, which need not be that of its payload.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    /// In the 7 bits of the second byte.
    Short(u8),
    /// In 16 bits.
    Medium(u16),
    /// In 64 bits.
    Long(u64),
}

impl Frame {
    /// A final, masked frame.
    #[must_use]
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            first: 0x80 | opcode,
            mask: Some([0x37, 0xFA, 0x21, 0x3D]),
            length: None,
            payload: payload.as_ref().into(),
        }
    }

    /// A text message.
    #[must_use]
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self::new(TEXT, text)
    }

    /// A close frame with a code.
    #[must_use]
    pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
    }

    /// With more fragments to follow.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.first &= 0x7F;
        self
    }

    /// With bits of the first byte set: RSV1 is 0x40, RSV2 0x20, RSV3 0x10.
    #[must_use]
    pub fn bits(mut self, bits: u8) -> Self {
        self.first |= bits;
        self
    }

    /// As only a server may send it.
    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// With a length of its own, in a form of its own.
    #[must_use]
    pub fn announcing(mut self, length: Length) -> Self {
        self.length = Some(length);
        self
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or(match self.payload.len() {
            short @ ..126 => Length::Short(short as u8),
            medium @ 126..0x1_0000 => Length::Medium(medium as u16),
            long => Length::Long(long as u64),
        });
        let masked = u8::from(self.mask.is_some()) << 7;
        let mut bytes = vec![self.first];
        match length {
            Length::Short(length) => bytes.push(masked | length),
            Length::Medium(length) => bytes.extend([&[masked | 126][..], &length.to_be_bytes()].concat()),
            Length::Long(length) => bytes.extend([&[masked | 127][..], &length.to_be_bytes()].concat()),
        }
        bytes.extend(self.mask.into_iter().flatten());
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

/// A response to a request.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
    head: String,
}

impl Response {
    /// The value of a header, whose name is given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// One frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What kind it is.
    pub opcode: u8,
    /// What it holds.
    pub payload: Vec<u8>,
}

impl Received {
    /// The payload as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// How a connection ended.
#[derive(Debug)]
pub struct End {
    /// The frames before the close frame.
    pub frames: Vec<Received>,
    /// The code of the close frame, if there was one with a code.
    pub code: Option<u16>,
    /// The reason in the close frame.
    pub reason: String,
    /// Whether the kernel was told to forget the connection, rather than to close it.
    pub reset: bool,
}

/// A connection, before and after its handshake.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    /// How much of the input is used.
    used: usize,
}

impl Wire {
    /// Connects, and sends nothing.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Self::of(TcpSocket::new_v4()?, address).await
    }

    /// Connects from another of this machine's addresses, such as 127.0.0.2, and sends nothing.
    pub async fn from(source: &str, address: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source.parse()?, 0))?;
        Self::of(socket, address).await
    }

    /// Connects with the smallest receive buffer that the kernel has, so that not to read is soon felt.
    pub async fn narrow(address: SocketAddr) -> Result<Self> {
        Self::with_room(address, 1).await
    }

    /// Connects with a receive buffer of about so many bytes.
    pub async fn with_room(address: SocketAddr, bytes: u32) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        Self::of(socket, address).await
    }

    async fn of(socket: TcpSocket, address: SocketAddr) -> Result<Self> {
        let stream = within(socket.connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new(), used: 0 })
    }

    /// Connects and shakes hands.
    pub async fn open(address: SocketAddr, path: &str) -> Result<Self> {
        Self::connect(address).await?.upgraded(path).await
    }

    /// Shakes hands.
    pub async fn upgraded(mut self, path: &str) -> Result<Self> {
        self.send(Head::upgrade(path).bytes()).await?;
        let response = self.response().await?;
        ensure!(response.status == 101, "{path} is refused: {response:?}");
        Ok(self)
    }

    /// This end's address, as the server logs it.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// Sends bytes; fails once the server has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(self.stream.write_all(bytes.as_ref())).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    /// Sends bytes in pieces of a size, one every `pause`; fails once the server has closed.
    pub async fn trickle(&mut self, bytes: impl AsRef<[u8]>, size: usize, pause: Duration) -> io::Result<()> {
        let mut pace = interval(pause);
        for piece in bytes.as_ref().chunks(size) {
            pace.tick().await;
            self.send(piece).await?;
        }
        Ok(())
    }

    /// Sends bytes and keeps what comes meanwhile for later, so that both sides can go on.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let (mut reader, mut writer) = self.stream.split();
        let mut sent = pin!(writer.write_all(bytes.as_ref()));
        loop {
            tokio::select! {
                sent = &mut sent => return sent,
                read = reader.read_buf(&mut self.input) => if read? == 0 { return Err(ErrorKind::UnexpectedEof.into()) },
            }
        }
    }

    /// Sends no more, and goes on reading.
    pub async fn shut(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Leaves with a reset.
    pub fn reset(self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// The next response.
    pub async fn response(&mut self) -> Result<Response> {
        self.next_response().await?.context("closed without a response")
    }

    /// The next response; `None` when the connection ends instead.
    pub async fn next_response(&mut self) -> Result<Option<Response>> {
        let end = loop {
            if let Some(end) = self.rest().windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match self.read().await {
                Ok(true) => {}
                Err(error) if !is_reset(&error) => return Err(error),
                _ if self.rest().is_empty() => return Ok(None),
                _ => bail!("closed within a head: {:?}", String::from_utf8_lossy(self.rest())),
            }
        };
        let head = String::from_utf8(self.take(end))?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let mut response = Response { status, body: String::new(), head };
        let length = match response.header("content-length") {
            Some(length) => length.parse()?,
            None if status == 101 => 0,
            None => bail!("a response without its length: {response:?}"),
        };
        while self.rest().len() < length {
            ensure!(self.read().await?, "closed within a body");
        }
        response.body = String::from_utf8(self.take(length))?;
        Ok(Some(response))
    }

    /// The next frame; `None` when the connection has ended.
    pub async fn next(&mut self) -> Result<Option<Received>> {
        loop {
            if let Some(received) = self.received()? {
                return Ok(Some(received));
            }
            if !self.read().await? {
                ensure!(self.rest().is_empty(), "closed within a frame");
                return Ok(None);
            }
        }
    }

    /// The next of the frames that have been read already.
    pub fn received(&mut self) -> Result<Option<Received>> {
        let Some((received, length)) = parse(self.rest())? else { return Ok(None) };
        self.used += length;
        Ok(Some(received))
    }

    /// Reads so many bytes at most and keeps them for later; `false` at the end of the stream.
    pub async fn bite(&mut self, most: usize) -> Result<bool> {
        self.input.drain(..std::mem::take(&mut self.used));
        let mut bite = (&mut self.stream).take(most as u64);
        Ok(within(bite.read_buf(&mut self.input)).await?? > 0)
    }

    /// The next frame, which must come.
    pub async fn frame(&mut self) -> Result<Received> {
        self.next().await?.context("closed")
    }

    /// The text of the next message; pings are skipped.
    pub async fn message(&mut self) -> Result<String> {
        loop {
            let received = self.frame().await?;
            match received.opcode {
                TEXT => return Ok(received.text()),
                PING | PONG => {}
                _ => bail!("no message: {received:?} {}", received.text()),
            }
        }
    }

    /// Sends a command of the native protocol, and gives the next message as its reply.
    pub async fn ask(&mut self, command: &str) -> Result<Value> {
        self.send(Frame::text(command).bytes()).await?;
        Ok(serde_json::from_str(&self.message().await?)?)
    }

    /// Reads until the connection ends.
    pub async fn end(&mut self) -> Result<End> {
        let mut end = End { frames: Vec::new(), code: None, reason: String::new(), reset: false };
        let mut closed = false;
        loop {
            match self.next().await {
                Ok(None) => return Ok(end),
                Ok(Some(received)) if closed => bail!("a frame after the close frame: {received:?}"),
                Ok(Some(received)) if received.opcode == CLOSE => {
                    closed = true;
                    if let Some((code, reason)) = received.payload.split_first_chunk() {
                        end.code = Some(u16::from_be_bytes(*code));
                        end.reason = String::from_utf8(reason.to_vec())?;
                    }
                }
                Ok(Some(received)) => end.frames.push(received),
                Err(error) if is_reset(&error) => return Ok(End { reset: true, ..end }),
                Err(error) => return Err(error),
            }
        }
    }

    /// What came and is not yet used.
    fn rest(&self) -> &[u8] {
        &self.input[self.used..]
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.rest()[..length].into();
        self.used += length;
        taken
    }

    /// Reads what is there, or waits for it; `false` at the end of the stream.
    async fn read(&mut self) -> Result<bool> {
        // What is left is the beginning of something: seldom much.
        self.input.drain(..std::mem::take(&mut self.used));
        self.input.reserve(READ);
        Ok(within(self.stream.read_buf(&mut self.input)).await?? > 0)
    }
}

/// Whether an error is a reset by the server.
fn is_reset(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

async fn within<T>(what: impl Future<Output = T>) -> Result<T> {
    timeout(PATIENCE, what).await.context("the server neither answers nor closes")
}

/// The first frame in `bytes` and its length there; `None` while it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(Received, usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    ensure!(first & 0x70 == 0 && first & 0x80 != 0 && second & 0x80 == 0, "not a server's frame: {first:x} {second:x}");
    let (length, rest) = match (second, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest),
        (126 | 127, _) => return Ok(None),
        (short, rest) => (u64::from(*short), rest),
    };
    let length = usize::try_from(length)?;
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let received = Received { opcode: first & 0x0F, payload: payload.into() };
    Ok(Some((received, bytes.len() - rest.len() + length)))
}

/// A server of this workspace, by its name, that is ready for clients.
pub async fn serve(name: &str, environment: &[(&str, &str)]) -> Result<Program> {
    let server = Program::start(name, &[], environment).await?;
    ready(server.address).await?;
    Ok(server)
}

/// Waits until a node is ready for clients.
pub async fn ready(address: SocketAddr) -> Result<()> {
    let mut look = interval(Duration::from_millis(10));
    let ready = async {
        loop {
            look.tick().await;
            if get(address, "/ready").await?.status == 200 {
                return anyhow::Ok(());
            }
        }
    };
    within(ready).await?
}

/// Asks for a page.
pub async fn get(address: SocketAddr, path: &str) -> Result<Response> {
    let mut wire = Wire::connect(address).await?;
    wire.send(Head::get(path).bytes()).await?;
    wire.response().await
}

/// A good client's visit: whatever others do, a message sent at `path` comes back.
pub async fn visit(address: SocketAddr, path: &str) -> Result<()> {
    let mut wire = Wire::open(address, path).await?;
    let text = format!("from {}", wire.local());
    wire.send(Frame::text(&text).bytes()).await?;
    while !wire.message().await?.contains(&text) {}
    wire.send(Frame::close(1000, "").bytes()).await?;
    let end = wire.end().await?;
    ensure!(end.code == Some(1000), "{end:?}");
    Ok(())
}
