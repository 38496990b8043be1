//! A real `rabbitmq-server`, with a name of its own.

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::certificates;
use crate::port::Port;
use crate::process::Process;
use crate::server::{DATA, PASSWORD, Server, USER};
use crate::wire::Wire;

const MISSING: &str = "apt-get install rabbitmq-server openssl";
/// The scripts themselves; those in the path change to another user first.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

/// RabbitMQ 3.10 notes that it keeps streams at all some time after the first was made; killed before that, it never
/// finds them again.
const SETTLE: &str = "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"first\">>), true, false, \
     [{<<\"x-queue-type\">>, longstr, <<\"stream\">>}], none, <<\"nobody\">>), \
     [dets:sync(Table) || Table <- dets:all()].";

/// A RabbitMQ.
#[derive(Debug)]
pub struct RabbitMq {
    process: Process,
    name: String,
    port: Port,
    tls: Port,
    distribution: Port,
    wires: Vec<Wire>,
}

impl RabbitMq {
    /// One with so many wires.
    pub fn new(wires: usize) -> Result<Self> {
        let process = Process::new("rabbitmq", MISSING)?;
        let (port, tls, distribution) = (Port::take()?, Port::take()?, Port::take()?);
        let name = format!("fanfare-{}", port.number());
        let wires = (0..wires).map(|_| Wire::to(port.address)).collect::<Result<_>>()?;
        Ok(Self { process, name, port, tls, distribution, wires })
    }

    /// One more wire, for another user of this server.
    pub fn another_wire(&self) -> Result<Wire> {
        Wire::to(self.port.address)
    }

    /// What a node is given that is to come over this wire.
    #[must_use]
    pub fn url_by(&self, wire: &Wire) -> String {
        format!("amqp://{USER}:{PASSWORD}@{}", wire.address())
    }

    async fn prepare(&self) -> Result<()> {
        certificates::put(&self.process).await?;
        let file = |name: &str| self.process.file(name).display().to_string();
        let (port, tls) = (self.port.address, self.tls.address);
        let config = format!(
            "listeners.tcp.1 = {port}\nlisteners.ssl.1 = {tls}\n\
             default_user = {USER}\ndefault_pass = {PASSWORD}\nssl_options.verify = verify_none\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            file("ca.pem"),
            file("server.pem"),
            file("server.key")
        );
        std::fs::write(file("rabbitmq.conf"), config)?;
        Ok(std::fs::write(file("enabled_plugins"), "[].")?)
    }

    async fn command(&self, script: &str) -> Result<Command> {
        let path = |name: &str| self.process.file(name).display().to_string();
        let mut command = self.process.command(program(script));
        command.envs([
            ("HOME", path("")),
            ("ERL_EPMD_PORT", name_service().await?.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", format!("{}@localhost", self.name)),
            ("RABBITMQ_NODE_PORT", self.port.number().to_string()),
            ("RABBITMQ_DIST_PORT", self.distribution.number().to_string()),
            // The tools' own: any; they would take one of eleven, which outgoing connections take too.
            ("RABBITMQ_CTL_DIST_PORT_MIN", "0".into()),
            ("RABBITMQ_CTL_DIST_PORT_MAX", "0".into()),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq")),
            ("RABBITMQ_CONF_ENV_FILE", path("none")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", path(DATA)),
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_PLUGINS_EXPAND_DIR", path("plugins")),
            ("RABBITMQ_FEATURE_FLAGS_FILE", path("feature_flags")),
            // The script becomes the server: its process id is the server's.
            ("RUNNING_UNDER_SYSTEMD", "1".into()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none".into()),
        ]);
        Ok(command)
    }
}

#[async_trait]
impl Server for RabbitMq {
    fn url(&self, wire: usize) -> String {
        self.url_by(&self.wires[wire])
    }

    fn inside_url(&self) -> String {
        format!("amqp://{USER}:{PASSWORD}@{}", self.port.address)
    }

    fn named_url(&self, name: &str) -> String {
        format!("{}?prefix={name}", self.inside_url())
    }

    fn tls_url(&self, ca: &str) -> String {
        format!("amqps://{USER}:{PASSWORD}@{}?ca={ca}", self.tls.address)
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
        let is_empty = !self.process.file(DATA).exists();
        if is_empty {
            self.prepare().await?;
        }
        let listens = async || TcpStream::connect(self.port.address).await.is_ok();
        self.process.run(&self.command("rabbitmq-server").await?, listens).await?;
        if is_empty {
            self.tool(&["eval", SETTLE]).await?;
        }
        Ok(())
    }

    async fn tool(&self, words: &[&str]) -> Result<String> {
        self.process.tool(self.command("rabbitmqctl").await?.arg("--quiet").args(words)).await
    }

    async fn close_connections(&self) -> Result<()> {
        self.tool(&["close_all_connections", "closed by an operator"]).await.map(drop)
    }
}

fn program(name: &str) -> String {
    let script = Path::new(SCRIPTS).join(name);
    if script.exists() { script.display().to_string() } else { name.to_owned() }
}

/// The port of a name service of our own, at which Erlang's tools look up a server's port.
async fn name_service() -> Result<u16> {
    static SERVICE: OnceCell<(Process, Port)> = OnceCell::const_new();
    let service = SERVICE.get_or_try_init(async || {
        let (process, port) = (Process::new("epmd", MISSING)?, Port::take()?);
        let mut command = process.command("epmd");
        command.args(["-address", "127.0.0.1", "-port", &port.number().to_string()]);
        process.run(&command, async || TcpStream::connect(port.address).await.is_ok()).await?;
        anyhow::Ok((process, port))
    });
    Ok(service.await?.1.number())
}
