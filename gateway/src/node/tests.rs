//! Parts of a running node that panic, end, or stand still: each costs what it must, and is said.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use async_trait::async_trait;
use broker_adapters::memory::Memory;
use broker_adapters::{
    Append, AppendError, Capabilities, Entry, LinkError, Offset, Opened, Partition, Reader, Start, Stored,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::app::socket::Socket;
use crate::node::health::NotReady;

/// Longer than any test takes that does not fail.
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
    let mut config = Config::default();
    config.http.listen = (Ipv4Addr::LOCALHOST, 0).into();
    config.node.workers = 1;
    config.timing.drain = Duration::from_millis(100);
    let settings = Settings { partitions: config.broker.partitions, retention: 1000 };
    let faulty = Faulty { memory: Memory::new(settings), appends_panic: Arc::default(), reads_panic: Arc::default() };
    let prepared = Prepared { broker: Arc::new(faulty.clone()), ..prepare(&config).expect("the defaults are valid") };
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
    timeout(PATIENT, look).await.expect("it never comes");
}

/// An open WebSocket.
async fn connect(node: &Node, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.expect("it listens");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it is open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENT, stream.read_u8()).await.expect("an answer").expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A short text frame, masked with zeros.
async fn say(stream: &mut TcpStream, text: &str) {
    let length = 0x80 | u8::try_from(text.len()).expect("short");
    let frame = [&[0x81, length, 0, 0, 0, 0], text.as_bytes()].concat();
    stream.write_all(&frame).await.expect("it is open");
}

/// All that comes until the end.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // An error is an end too.
    let _ = timeout(PATIENT, stream.read_to_end(&mut bytes)).await.expect("it ends");
    bytes
}

/// Panics in whoever has something for its task.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a fault in a connection's task");
    }
}

#[tokio::test]
async fn a_panic_in_a_connections_task_ends_that_socket_with_1011_and_no_other() {
    let mut app = App::new();
    app.ws("/bomb", async |mut socket: Socket| {
        let waker = Waker::from(Arc::new(Bomb));
        let mut receiving = Box::pin(socket.recv());
        assert!(receiving.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        std::future::pending().await
    });
    app.ws("/echo", async |mut socket: Socket| {
        while let Some(message) = socket.recv().await {
            socket.send(message)?;
        }
        Ok(())
    });
    let (node, _) = start(app).await;
    let (mut bomb, mut other) = (connect(&node, "/bomb").await, connect(&node, "/echo").await);
    say(&mut bomb, "boom").await;
    let end = rest(&mut bomb).await;
    assert_eq!(end.get(2..4), Some(&1011_u16.to_be_bytes()[..]), "{end:?}");
    say(&mut other, "still here").await;
    let mut echo = [0; 12];
    other.read_exact(&mut echo).await.expect("it is open");
    assert!(echo.ends_with(b"still here"));
    assert_eq!(node.core.health.ready(), Ok(()));
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}

#[tokio::test]
async fn a_worker_that_stands_still_makes_the_node_not_ready_by_its_name() {
    let mut app = App::new();
    app.ws("/sleep", async |_socket: Socket| {
        std::thread::sleep(2 * vitals::PATIENCE + 4 * vitals::ROUND);
        Ok(())
    });
    let (node, _) = start(app).await;
    let _sleeper = connect(&node, "/sleep").await;
    let named = |why: NotReady| matches!(why, NotReady::Part(why) if why.contains("worker-0 has not answered"));
    until(|| node.core.health.ready().is_err_and(named)).await;
    until(|| node.core.health.ready().is_ok()).await;
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}

#[tokio::test]
async fn a_tail_that_panics_ends_the_node_and_its_clients_are_sent_elsewhere() {
    let (node, faulty) = start(App::gateway()).await;
    let mut client = connect(&node, "/ws").await;
    faulty.reads_panic.store(true, Ordering::Relaxed);
    assert_eq!(timeout(PATIENT, node.failed()).await.expect("it is noticed"), "the broker's tail has ended");
    assert_eq!(node.core.health.ready(), Err(NotReady::Part("the broker's tail has ended".to_owned())));
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
    let end = rest(&mut client).await;
    let code = 1012_u16.to_be_bytes();
    assert!(end.windows(2).any(|bytes| bytes == code), "{}", String::from_utf8_lossy(&end));
}

#[tokio::test]
async fn a_publisher_that_panics_ends_the_node() {
    let (node, faulty) = start(App::gateway()).await;
    let mut client = connect(&node, "/raw/news").await;
    faulty.appends_panic.store(true, Ordering::Relaxed);
    say(&mut client, "a message").await;
    assert_eq!(timeout(PATIENT, node.failed()).await.expect("it is noticed"), "the publisher has ended");
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}
