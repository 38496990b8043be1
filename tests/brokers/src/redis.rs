//! A real `redis-server`: nothing acknowledged is lost when it is killed.

use anyhow::Result;
use async_trait::async_trait;

use crate::certificates;
use crate::port::Port;
use crate::process::Process;
use crate::server::{DATA, PASSWORD, Server};
use crate::wire::Wire;

/// A Redis.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: Port,
    tls: Port,
    wires: Vec<Wire>,
}

impl Redis {
    /// One with so many wires.
    pub fn new(wires: usize) -> Result<Self> {
        let process = Process::new("redis", "apt-get install redis-server redis-tools openssl")?;
        let port = Port::take()?;
        let wires = (0..wires).map(|_| Wire::to(port.address)).collect::<Result<_>>()?;
        Ok(Self { process, port, tls: Port::take()?, wires })
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> &Port {
        &self.port
    }

    async fn answers(&self) -> bool {
        self.tool(&["PING"]).await.is_ok_and(|answer| answer.trim() == "PONG")
    }
}

#[async_trait]
impl Server for Redis {
    fn url(&self, wire: usize) -> String {
        format!("redis://:{PASSWORD}@{}", self.wires[wire].address())
    }

    fn inside_url(&self) -> String {
        format!("redis://:{PASSWORD}@{}", self.port.address)
    }

    fn named_url(&self, name: &str) -> String {
        format!("{}?prefix={name}", self.inside_url())
    }

    fn tls_url(&self, ca: &str) -> String {
        format!("rediss://:{PASSWORD}@{}/0?ca={ca}", self.tls.address)
    }

    fn wires(&self) -> &[Wire] {
        &self.wires
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.port.number(), self.tls.number()]
    }

    async fn start(&self) -> Result<()> {
        certificates::put(&self.process).await?;
        std::fs::create_dir_all(self.process.file(DATA))?;
        let (port, tls) = (self.port.number().to_string(), self.tls.number().to_string());
        let mut command = self.process.command("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--dir", DATA]);
        // One may be made the replica of another.
        command.args(["--requirepass", PASSWORD, "--masterauth", PASSWORD]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        command.args(["--tls-port", &tls, "--tls-auth-clients", "no"]);
        for (option, file) in [("ca-cert", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")] {
            command.arg(format!("--tls-{option}-file")).arg(self.process.file(file));
        }
        self.process.run(&command, || self.answers()).await
    }

    async fn tool(&self, words: &[&str]) -> Result<String> {
        let mut command = self.process.command("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.number().to_string()]);
        command.args(["-e", "--raw", "--no-auth-warning", "-a", PASSWORD]).args(words);
        self.process.tool(&mut command).await
    }

    async fn close_connections(&self) -> Result<()> {
        self.tool(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await.map(drop)
    }
}
