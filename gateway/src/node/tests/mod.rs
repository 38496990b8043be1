//! A running node with real sockets, on a broker in memory that can be made to fail.

mod gate;
mod parts;
mod protocol;
mod revocation;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use broker_adapters::memory::Memory;
use broker_adapters::{
    Append, AppendError, Capabilities, Entry, LinkError, Offset, Opened, Partition, Reader, Start, Stored,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Longer than any successful test takes.
const PATIENT: Duration = Duration::from_secs(20);

/// A broker that can be made to panic.
#[derive(Clone)]
struct Faulty {
    memory: Memory,
    appends_panic: Arc<AtomicBool>,
    reads_panic: Arc<AtomicBool>,
}

#[async_trait]
impl Broker for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        assert!(!self.appends_panic.load(Ordering::Relaxed), "a fault in appending");
        self.memory.append(batch, deadline).await
    }

    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        let Opened { standings, reader } = self.memory.open(from).await?;
        Ok(Opened { standings, reader: Box::new(FaultyReader { reader, panics: Arc::clone(&self.reads_panic) }) })
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        self.memory.read_back(partition, before, most).await
    }

    async fn redial(&self) {
        self.memory.redial().await;
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}

struct FaultyReader {
    reader: Box<dyn Reader>,
    panics: Arc<AtomicBool>,
}

#[async_trait]
impl Reader for FaultyReader {
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        let entries = self.reader.next().await;
        assert!(!self.panics.load(Ordering::Relaxed), "a fault in reading");
        entries
    }
}

/// Starts a node with this app, and waits until it is ready.
async fn start(app: App) -> (Node, Faulty) {
    start_with(app, None).await
}

/// Like [`start`], with a judge that decides what clients may do.
async fn start_with(app: App, judge: Option<Box<dyn Judge>>) -> (Node, Faulty) {
    start_from(Config::default(), app, judge).await
}

/// Like [`start_with`], with this configuration, of which a few settings are changed.
async fn start_from(mut config: Config, app: App, judge: Option<Box<dyn Judge>>) -> (Node, Faulty) {
    config.http.listen = (Ipv4Addr::LOCALHOST, 0).into();
    config.node.workers = 1;
    config.timing.drain = Duration::from_millis(100);
    let settings = Settings { partitions: config.broker.partitions, retention: 1000 };
    let faulty = Faulty { memory: Memory::new(settings), appends_panic: Arc::default(), reads_panic: Arc::default() };
    let prepared = prepare(&config).expect("the defaults are valid");
    let gate = judge.unwrap_or(prepared.gate);
    let prepared = Prepared { broker: Arc::new(faulty.clone()), gate, ..prepared };
    let node = Node::on(prepared, app, config, "node".to_owned(), Metrics::default()).expect("it starts");
    until(|| node.core.health.ready().is_ok()).await;
    (node, faulty)
}

async fn until(mut there: impl FnMut() -> bool) {
    let look = async {
        while !there() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENT, look).await.expect("the condition becomes true in time");
}

/// Opens a WebSocket.
async fn connect(node: &Node, path: &str) -> TcpStream {
    let (stream, head) = ask(node, &handshake(path)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// Sends a request. Also returns the head of the answer.
async fn ask(node: &Node, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it is open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENT, stream.read_u8()).await.expect("an answer").expect("a head"));
    }
    (stream, String::from_utf8_lossy(&head).into_owned())
}

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Sends a text frame, masked with zeros.
async fn say(stream: &mut TcpStream, text: &str) {
    let length = 0x80 | u8::try_from(text.len()).expect("short");
    let frame = [&[0x81, length, 0, 0, 0, 0], text.as_bytes()].concat();
    stream.write_all(&frame).await.expect("it is open");
}

/// Receives the payload of the next frame, which is short.
async fn next(stream: &mut TcpStream) -> String {
    let mut payload = vec![0; timeout(PATIENT, header(stream)).await.expect("a frame comes")];
    stream.read_exact(&mut payload).await.expect("it is open");
    String::from_utf8_lossy(&payload).into_owned()
}

/// Reads the header of a frame. Returns the length of its payload.
async fn header(stream: &mut TcpStream) -> usize {
    let _opcode = stream.read_u8().await.expect("it is open");
    match stream.read_u8().await.expect("it is open") {
        126 => stream.read_u16().await.expect("it is open").into(),
        short => short.into(),
    }
}

/// Reads until the end of the stream.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // An error also ends the stream.
    let _ = timeout(PATIENT, stream.read_to_end(&mut bytes)).await.expect("it ends");
    bytes
}
