//! The floor: the least that a broadcast can cost when each subscriber gets each message by a `write` of its own.
//!
//! One epoll thread. Every client is a subscriber; a text frame from any is written to all, and nothing else is done.
//! No pings, no limits, no queues: a client whose socket is full is dropped. It is a measure, not a server.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::frame::{self, CLOSE, TEXT};

const LISTENER: Token = Token(usize::MAX);
const BUFFER: usize = 512 * 1024;
const READY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nready\n";

/// The floor program
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Address to listen at, on loopback
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Ends by itself after this time
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
}

impl Options {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(self.listen.ip().is_loopback(), "{}: the floor listens on loopback only", self.listen);
        let listener = TcpListener::bind(self.listen).with_context(|| format!("cannot listen at {}", self.listen))?;
        Floor::new(listener)?.run(Instant::now() + Duration::from_secs(self.seconds))
    }
}

struct Client {
    stream: TcpStream,
    /// The handshake is done.
    open: bool,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    /// Requests and frames of which only the start has arrived: rare, so kept apart from the clients.
    partial: HashMap<usize, Vec<u8>>,
    buffer: Vec<u8>,
    frame: Vec<u8>,
}

impl Floor {
    fn new(mut listener: TcpListener) -> Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            clients: Vec::new(),
            free: Vec::new(),
            partial: HashMap::new(),
            buffer: vec![0; BUFFER],
            frame: Vec::new(),
        })
    }

    fn run(&mut self, deadline: Instant) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.poll.poll(&mut events, Some(left)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(index) => {
                        if self.read(index, event.is_read_closed()).is_none() {
                            self.end(index);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.clients.len());
            self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            let client = Some(Client { stream, open: false });
            match self.clients.get_mut(index) {
                Some(place) => *place = client,
                None => self.clients.push(client),
            }
        }
    }

    fn end(&mut self, index: usize) {
        if self.clients[index].take().is_some() {
            self.partial.remove(&index);
            self.free.push(index);
        }
    }

    /// Reads and serves all that has arrived; `None` when the connection has to end.
    fn read(&mut self, index: usize, closed: bool) -> Option<()> {
        loop {
            let carried = self.partial.remove(&index).unwrap_or_default();
            self.buffer[..carried.len()].copy_from_slice(&carried);
            let client = self.clients[index].as_mut()?;
            let end = match client.stream.read(&mut self.buffer[carried.len()..]) {
                Ok(0) => return None,
                Ok(more) => carried.len() + more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !carried.is_empty() {
                        self.partial.insert(index, carried);
                    }
                    return Some(());
                }
                Err(_) => return None,
            };
            let used = match client.open {
                true => self.serve(index, end)?,
                false => self.upgrade(index, end)?,
            };
            if used < end {
                self.partial.insert(index, self.buffer[used..end].to_vec());
            }
            if end < BUFFER && !closed {
                return Some(());
            }
        }
    }

    fn upgrade(&mut self, index: usize, end: usize) -> Option<usize> {
        let Some(blank) = self.buffer[..end].windows(4).position(|window| window == b"\r\n\r\n") else {
            return (end < BUFFER).then_some(0);
        };
        let client = self.clients[index].as_mut()?;
        let answer = match key(&self.buffer[..blank]) {
            Some(key) => switch(key),
            None => READY.to_vec(),
        };
        client.open = answer != READY;
        let written = client.stream.write(&answer).ok()?;
        (written == answer.len() && client.open).then_some(blank + 4)
    }

    fn serve(&mut self, index: usize, end: usize) -> Option<usize> {
        let mut at = 0;
        while let Some(head) = frame::head(&self.buffer[at..end], BUFFER - 16).ok()? {
            if at + head.end() > end {
                break;
            }
            let (body, next) = (at + head.size, at + head.end());
            match head.opcode {
                TEXT => {
                    frame::mask(&mut self.buffer[body..next], head.key?);
                    self.frame.clear();
                    frame::append_plain(&mut self.frame, TEXT, &self.buffer[body..next]);
                    self.broadcast();
                }
                CLOSE => return None,
                _ => {}
            }
            self.clients[index].as_ref()?;
            at = next;
        }
        Some(at)
    }

    fn broadcast(&mut self) {
        for index in 0..self.clients.len() {
            if let Some(Client { stream, open: true }) = &mut self.clients[index]
                && !stream.write(&self.frame).is_ok_and(|written| written == self.frame.len())
            {
                self.end(index);
            }
        }
    }
}

fn key(request: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(request).ok().filter(|text| text.starts_with("GET "))?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find_map(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-key").then_some(value.trim()))
}

fn switch(key: &str) -> Vec<u8> {
    let digest = sha1_smol::Sha1::from(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")).digest().bytes();
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_standard() {
        let request = b"GET /any HTTP/1.1\r\nHost: x\r\nsec-websocket-KEY:  dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let answer = switch(key(request).unwrap());
        crate::protocol::check_upgrade(&answer).unwrap();
        assert_eq!(key(b"GET /ready HTTP/1.1\r\nHost: x\r\n"), None);
        assert_eq!(key(b"POST / HTTP/1.1\r\nsec-websocket-key: a\r\n"), None);
    }
}
