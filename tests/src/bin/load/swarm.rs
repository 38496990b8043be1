//! Thousands of WebSocket clients on one thread, one epoll and one read buffer.
//!
//! Owns the sockets. A connection holds memory only while a frame is incomplete. Answers pings.
//! Never goes on after a connection has ended: that is an error which says how.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol as Transport, Socket as RawSocket, Type};

use crate::ended::{Ended, How};
use crate::frame::{self, CLOSE, PING, PONG, TEXT};
use crate::protocol::{self, Heard, Protocol};
use crate::target::Target;
use crate::user;

/// Sockets of one process: below the usual limit of 20,000 open files.
pub(crate) const PER_PROCESS: usize = 18_000;
/// The longest frame that is understood, and what one `read` can bring.
const BUFFER: usize = 512 * 1024;
/// Handshakes at a time: less than the shortest usual accept queue (128).
const IN_PROGRESS: usize = 100;
/// What one connection may have waiting to be sent.
const UNSENT: usize = 4 << 20;
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may make no progress with handshakes.
const OPEN_PATIENCE: Duration = Duration::from_secs(15);

/// What to open.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// Subscribe where the protocol asks for it.
    pub(crate) subscribe: bool,
    /// Size that every message must have.
    pub(crate) size: Option<usize>,
    /// `SO_RCVBUF`, in bytes.
    pub(crate) receive_buffer: Option<usize>,
    /// Signs a token for each connection.
    pub(crate) secret: Option<String>,
}

/// A connection that has news.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) index: usize,
    /// The server has ended it, or at least its own direction.
    pub(crate) ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Upgrading,
    Subscribing,
    Open,
}

struct Socket {
    stream: TcpStream,
    state: State,
    /// The start of an incomplete frame.
    partial: Vec<u8>,
    unsent: Vec<u8>,
}

pub(crate) struct Swarm {
    plan: Plan,
    poll: Poll,
    events: Events,
    sockets: Vec<Socket>,
    buffer: Box<[u8]>,
    open: usize,
    pings: u64,
    /// Varies the source addresses from run to run.
    start: usize,
}

impl Swarm {
    /// Opens all connections and, where asked, subscribes them.
    ///
    /// # Errors
    /// When the server refuses one, ends one, or makes no progress for 15 s.
    pub(crate) fn open(plan: Plan) -> Result<Self> {
        let wanted = plan.connections;
        ensure!(wanted <= PER_PROCESS, "{wanted} connections: one process opens at most {PER_PROCESS}");
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_millis() as usize);
        let mut swarm = Self {
            plan,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            sockets: Vec::with_capacity(wanted),
            buffer: vec![0; BUFFER].into(),
            open: 0,
            pings: 0,
            start,
        };
        let (mut ready, mut progress) = (Vec::new(), (0, Instant::now()));
        while swarm.open < wanted {
            while swarm.sockets.len() < wanted && swarm.sockets.len() - swarm.open < IN_PROGRESS {
                swarm.dial()?;
            }
            swarm.wait(Duration::from_millis(100), &mut ready)?;
            for news in &ready {
                swarm.read(*news, &mut |_, _| Ok(()))?;
            }
            if progress.0 != swarm.open {
                progress = (swarm.open, Instant::now());
            }
            let (open, patient) = (swarm.open, progress.1.elapsed() < OPEN_PATIENCE);
            ensure!(patient, "the server opened {open} of {wanted} connections and then none for {OPEN_PATIENCE:?}");
        }
        Ok(swarm)
    }

    pub(crate) fn connections(&self) -> usize {
        self.sockets.len()
    }

    /// How many pings were answered.
    pub(crate) fn pings(&self) -> u64 {
        self.pings
    }

    /// Waits until some connections have news, at most for `patience`.
    pub(crate) fn wait(&mut self, patience: Duration, ready: &mut Vec<Ready>) -> Result<()> {
        ready.clear();
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        ready.extend(
            self.events
                .iter()
                .map(|event| Ready { index: event.token().0, ended: event.is_read_closed() || event.is_error() }),
        );
        Ok(())
    }

    /// Reads all that has arrived at a connection, and passes on the numbers of the messages in it.
    ///
    /// # Errors
    /// [`Ended`] when the connection has ended, or an error of the protocol or of `hear`.
    pub(crate) fn read(&mut self, news: Ready, hear: &mut dyn FnMut(usize, u64) -> Result<()>) -> Result<()> {
        let index = news.index;
        if !self.sockets[index].unsent.is_empty() {
            self.flush(index)?;
        }
        loop {
            let socket = &mut self.sockets[index];
            let carried = socket.partial.len();
            self.buffer[..carried].copy_from_slice(&socket.partial);
            let end = match socket.stream.read(&mut self.buffer[carried..]) {
                Ok(0) => return Err(Ended { connection: index, how: How::WithoutClose }.into()),
                Ok(more) => carried + more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Ended { connection: index, how: How::Broken(error.kind()) }.into()),
            };
            socket.partial.clear();
            let used = self.consume(index, end, hear)?;
            self.sockets[index].partial.extend_from_slice(&self.buffer[used..end]);
            // A read that does not fill the buffer has emptied the socket (epoll(7)): saves one call per delivery.
            if end < self.buffer.len() && !news.ended {
                return Ok(());
            }
        }
    }

    /// Sends a frame, now or as soon as the socket takes it.
    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let socket = &mut self.sockets[index];
        ensure!(socket.unsent.len() + bytes.len() <= UNSENT, "the server reads nothing: {UNSENT} bytes wait for it");
        socket.unsent.extend_from_slice(bytes);
        self.flush(index)
    }

    fn flush(&mut self, index: usize) -> Result<()> {
        let socket = &mut self.sockets[index];
        while !socket.unsent.is_empty() {
            match socket.stream.write(&socket.unsent) {
                Ok(sent) => drop(socket.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Ended { connection: index, how: How::Broken(error.kind()) }.into()),
            }
        }
        Ok(())
    }

    /// Connects one more socket, at once because it is to this machine, and asks for a WebSocket on it.
    fn dial(&mut self) -> Result<()> {
        let (index, address) = (self.sockets.len(), self.plan.target.address);
        let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Transport::TCP))
            .with_context(|| format!("connection {index}: no socket (is `ulimit -n` above {PER_PROCESS}?)"))?;
        if let Some(bytes) = self.plan.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let source = self.plan.target.source(self.start, index);
        socket.bind(&source.into()).with_context(|| format!("connection {index}: no free port at {source}"))?;
        let connected = socket.connect_timeout(&address.into(), CONNECT_PATIENCE);
        connected.with_context(|| format!("connection {index}: cannot connect to {address}"))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(StdStream::from(socket));
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), interest)?;
        self.sockets.push(Socket { stream, state: State::Upgrading, partial: Vec::new(), unsent: Vec::new() });
        let token = self.plan.secret.as_deref().map(|secret| user::token(secret, index));
        let request = self.plan.protocol.upgrade(&self.plan.target, token.as_deref());
        self.send(index, request.as_bytes())
    }

    /// Takes all complete frames out of the buffer and tells where the first incomplete one begins.
    fn consume(&mut self, index: usize, end: usize, hear: &mut dyn FnMut(usize, u64) -> Result<()>) -> Result<usize> {
        let mut at = 0;
        if self.sockets[index].state == State::Upgrading {
            match self.buffer[..end].windows(4).position(|window| window == b"\r\n\r\n") {
                Some(blank) => at = blank + 4,
                None => return Ok(0),
            }
            protocol::check_upgrade(&self.buffer[..at]).with_context(|| format!("connection {index}"))?;
            self.upgraded(index)?;
        }
        while let Some(head) = frame::head(&self.buffer[at..end], BUFFER - 16)? {
            if at + head.end() > end {
                break;
            }
            let (body, next) = (at + head.size, at + head.end());
            match head.opcode {
                TEXT => self.take(index, body..next, hear)?,
                PING => {
                    let mut pong = Vec::new();
                    frame::append_masked(&mut pong, PONG, &self.buffer[body..next]);
                    self.pings += 1;
                    self.send(index, &pong)?;
                }
                CLOSE => {
                    let (code, reason) = frame::close_code(&self.buffer[body..next]);
                    return Err(Ended { connection: index, how: How::Closed { code, reason } }.into());
                }
                _ => {}
            }
            at = next;
        }
        Ok(at)
    }

    fn take(
        &mut self,
        index: usize,
        text: std::ops::Range<usize>,
        hear: &mut dyn FnMut(usize, u64) -> Result<()>,
    ) -> Result<()> {
        let text = &self.buffer[text];
        let heard = self.plan.protocol.read(text, self.plan.size, &mut |number| hear(index, number))?;
        match heard {
            Heard::Subscribed if self.sockets[index].state == State::Subscribing => self.opened(index),
            Heard::Ping => {
                let mut pong = Vec::new();
                Protocol::append_pong(&mut pong);
                self.pings += 1;
                self.send(index, &pong)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn upgraded(&mut self, index: usize) -> Result<()> {
        let mut subscribe = Vec::new();
        if self.plan.subscribe && self.plan.protocol.append_subscribe(&mut subscribe) {
            self.sockets[index].state = State::Subscribing;
            return self.send(index, &subscribe);
        }
        self.opened(index);
        Ok(())
    }

    fn opened(&mut self, index: usize) {
        let socket = &mut self.sockets[index];
        socket.state = State::Open;
        self.open += 1;
    }
}
