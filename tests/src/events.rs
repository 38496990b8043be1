//! A client of Server-Sent Events that reads as the HTML standard says (§9.2), and tells what came.
//!
//! Strict where browsers forgive: a field that the server should not send fails the test.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::PATIENCE;

/// An event that a page would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message` if the server named none.
    pub name: String,
    /// Its lines, joined.
    pub data: String,
}

/// An open stream, or a refusal.
#[derive(Debug)]
pub struct Events {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The id from which a browser would resume.
    pub last_id: String,
    /// The time after which a browser would reconnect, in milliseconds.
    pub retry: Option<u64>,
    /// How many comments came.
    pub comments: usize,
    stream: TcpStream,
    input: Vec<u8>,
}

impl Events {
    /// Sends a GET for a path with these headers, and reads the head of the answer.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self> {
        Self::request(TcpSocket::new_v4()?, address, "GET", path, headers).await
    }

    /// The same as a browser that reconnects after this id.
    pub async fn resume(address: SocketAddr, path: &str, id: &str) -> Result<Self> {
        Self::open(address, path, &[("Last-Event-ID", id)]).await
    }

    /// The same with a receive buffer of about so many bytes.
    pub async fn with_room(address: SocketAddr, path: &str, bytes: u32) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        Self::request(socket, address, "GET", path, &[]).await
    }

    /// Sends a request with any method.
    pub async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Self> {
        Self::request(TcpSocket::new_v4()?, address, method, path, headers).await
    }

    async fn request(
        socket: TcpSocket,
        address: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self> {
        let stream = timeout(PATIENCE, socket.connect(address)).await.context("no connection")??;
        let host = if headers.iter().any(|(name, _)| *name == "Host") {
            String::new()
        } else {
            format!("Host: {address}\r\n")
        };
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\n{host}{more}\r\n");
        let mut events = Self {
            status: 0,
            head: String::new(),
            last_id: String::new(),
            retry: None,
            comments: 0,
            stream,
            input: Vec::new(),
        };
        events.stream.write_all(request.as_bytes()).await?;
        let end = loop {
            if let Some(end) = events.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(events.read().await?, "closed within the head");
        };
        events.head = String::from_utf8(events.input.drain(..end).collect())?;
        events.status = events.head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(events)
    }

    /// The value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Sends bytes after the request.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The body of a refusal.
    pub async fn body(&mut self) -> Result<String> {
        let length: usize = self.header("content-length").context("a refusal without a length")?.parse()?;
        while self.input.len() < length {
            ensure!(self.read().await?, "closed within the body");
        }
        Ok(String::from_utf8(self.input.drain(..length).collect())?)
    }

    /// The next event; `None` at the end of the stream, with which an incomplete event is dropped.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some(end) = self.input.windows(2).position(|two| two == b"\n\n") {
                let block = String::from_utf8(self.input.drain(..end + 2).collect())?;
                if let Some(event) = self.dispatch(&block)? {
                    return Ok(Some(event));
                }
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// The next event, which must come.
    pub async fn event(&mut self) -> Result<Event> {
        self.next().await?.context("the stream has ended")
    }

    /// The next line that is not empty, of a stream of lines.
    pub async fn line(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(String::from_utf8(self.input.drain(..=end).collect())?.trim_end().to_owned()));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Waits until the id is that of a place: the stream has begun, or a heartbeat came.
    pub async fn placed(&mut self) -> Result<()> {
        while self.last_id.is_empty() {
            let end = loop {
                match self.input.windows(2).position(|two| two == b"\n\n") {
                    Some(end) => break end,
                    None => ensure!(self.read().await?, "the stream has ended"),
                }
            };
            let block = String::from_utf8(self.input.drain(..end + 2).collect())?;
            let event = self.dispatch(&block)?;
            ensure!(event.is_none(), "{event:?} came before a place");
        }
        Ok(())
    }

    fn dispatch(&mut self, block: &str) -> Result<Option<Event>> {
        let (mut name, mut data) = ("message", Vec::new());
        for line in block.trim_end_matches('\n').split('\n') {
            match line.split_once(':').context("a line without a colon")? {
                ("", _) => self.comments += 1,
                ("event", value) => name = value.strip_prefix(' ').unwrap_or(value),
                ("data", value) => data.push(value.strip_prefix(' ').unwrap_or(value)),
                ("id", value) => self.last_id = value.trim().to_owned(),
                ("retry", value) => self.retry = Some(value.trim().parse()?),
                (field, _) => bail!("a field that is not known: {field} in {block:?}"),
            }
        }
        Ok((!data.is_empty()).then(|| Event { name: name.to_owned(), data: data.join("\n") }))
    }

    async fn read(&mut self) -> Result<bool> {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await.context("nothing comes")? {
            Ok(length) => Ok(length > 0),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
