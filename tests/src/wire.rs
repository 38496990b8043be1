//! A raw client: sends any bytes, lawful or not, and says what came back.
//!
//! A [`Head`] and a [`Frame`] are values that the rows of a table bend: nothing stops a test from breaking a rule.
//! What comes from the server is read strictly: a server that breaks a rule fails the test.
//! Every wait ends within [`PATIENCE`].

mod frame;
mod request;

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

pub use self::frame::{BINARY, CLOSE, CONTINUATION, Frame, Length, PING, PONG, Received, TEXT};
pub use self::request::{ACCEPT, Head, KEY, Response};
use crate::{PATIENCE, Program};

/// The least room for one read.
const READ: usize = 4 << 10;

/// How a connection ended.
#[derive(Debug)]
pub struct End {
    /// The frames before the close frame.
    pub frames: Vec<Received>,
    /// The code of the close frame, if there was one with a code.
    pub code: Option<u16>,
    /// The reason in the close frame.
    pub reason: String,
    /// Whether the server reset the connection instead of closing it.
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
        let Some((received, length)) = frame::parse(self.rest())? else { return Ok(None) };
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

    /// Reads the next bytes, and waits for them; `false` at the end of the stream.
    async fn read(&mut self) -> Result<bool> {
        // The rest is the beginning of a frame or a head, so seldom long.
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
