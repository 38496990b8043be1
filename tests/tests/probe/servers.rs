//! What stands before the probe: a HAProxy with chosen time-outs, a NAT that forgets, and servers that break the rules.
//!
//! The last two are small fakes: they are the broken peers that the probe has to name.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_brokers::{Port, Scratch, inherited};
use socket2::{Domain, Socket, Type};
use tests::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How often a port is tried until something listens.
const GLANCE: Duration = Duration::from_millis(25);

/// A program that listens on a port of its own until it is dropped.
pub(crate) struct Server {
    port: Port,
    _child: Child,
    _directory: Scratch,
}

impl Server {
    /// A HAProxy with these lines in its `defaults`, and these words behind the address on its `bind` line.
    pub(crate) async fn haproxy(nodes: &[SocketAddr], defaults: &[&str], bind: &str) -> Result<Self> {
        let port = Port::take()?;
        let servers = nodes.iter().enumerate().map(|(index, node)| format!("  server node-{} {node}\n", index + 1));
        let config = format!(
            "defaults\n  mode http\n  timeout connect 2s\n  retries 0\n  {}\nfrontend f\n  bind {} {bind}\n  \
             default_backend b\nbackend b\n  balance roundrobin\n  http-response set-header x-backend %s\n{}",
            defaults.join("\n  "),
            port.address,
            servers.collect::<String>()
        );
        let directory = Scratch::new("probe-haproxy")?;
        std::fs::write(directory.path().join("haproxy.cfg"), config)?;
        Self::start(port, directory, "haproxy", &["-db", "-f", "haproxy.cfg"]).await
    }

    /// TLS that takes HTTP/2 and nothing else.
    pub(crate) async fn http2_only(certificate: &str) -> Result<Self> {
        let port = Port::take()?;
        let address = port.address.to_string();
        let arguments = ["s_server", "-quiet", "-alpn", "h2", "-cert", certificate, "-key", certificate, "-accept"];
        let directory = Scratch::new("probe-openssl")?;
        Self::start(port, directory, "openssl", &[&arguments[..], &[&address]].concat()).await
    }

    async fn start(port: Port, directory: Scratch, program: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory.path()).env_clear().envs(inherited());
        let log = directory.path().join("output.log");
        let output = std::fs::File::create(&log)?;
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child =
            command.spawn().with_context(|| format!("{program} cannot be run: apt-get install {program}"))?;
        let begin = Instant::now();
        while TcpStream::connect(port.address).await.is_err() {
            ensure!(child.try_wait()?.is_none(), "{program} has ended: {}", std::fs::read_to_string(&log)?);
            ensure!(begin.elapsed() < PATIENCE, "{program} does not listen");
            sleep(GLANCE).await;
        }
        Ok(Self { port, _child: child, _directory: directory })
    }

    /// Its URL by name, with the WebSocket's usual path.
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/ws", self.port.number())
    }
}

/// A listener that takes no more connections: its queue is full, and the kernel drops what asks for more.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _first: TcpStream,
}

impl Full {
    pub(crate) async fn listening() -> Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        listener.listen(0)?;
        let address = listener.local_addr()?.as_socket().context("an address")?;
        let first = TcpStream::connect(address).await?;
        Ok(Self { address, _listener: listener, _first: first })
    }
}

/// A server that answers each connection with these bytes, and then neither speaks nor closes.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn answering(answer: &'static [u8]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 2048];
                // A client that leaves is the probe's affair.
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                open.push(stream);
            }
        });
        Ok(Self { address, task })
    }

    /// A NAT before a server: it drops a connection that was idle for so long, without a reset.
    pub(crate) async fn forgetful(server: SocketAddr, memory: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(translate(client, server, memory));
            }
        });
        Ok(Self { address, task })
    }
}

async fn translate(mut client: TcpStream, server: SocketAddr, memory: Duration) -> Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut from_server) = ([0; 4096], [0; 4096]);
    loop {
        let passed = timeout(memory, async {
            tokio::select! {
                read = client.read(&mut from_client) => {
                    let length = read?;
                    server.write_all(&from_client[..length]).await?;
                    anyhow::Ok(length)
                }
                read = server.read(&mut from_server) => {
                    let length = read?;
                    client.write_all(&from_server[..length]).await?;
                    Ok(length)
                }
            }
        });
        match passed.await {
            Ok(Ok(length)) if length > 0 => {}
            Ok(_) => return Ok(()),
            // Both sides stay open, and nothing passes any more.
            Err(_) => std::future::pending().await,
        }
    }
}
