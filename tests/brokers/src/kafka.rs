//! A real Kafka in KRaft mode, broker and controller in one process, as `tests/scripts/install-kafka` puts it there.

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::certificates;
use crate::port::Port;
use crate::process::Process;
use crate::server::{DATA, PASSWORD, Server, USER};
use crate::wire::Wire;

const LIBRARIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/kafka-4.1.1/libs");
/// A small heap, and a compiler that is soon done.
const JAVA: [&str; 4] = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"];
/// What a broker says when it takes requests; its ports are open long before.
const STARTED: &str = "Kafka Server started";

/// A way into the broker: a listener, and what it tells clients to connect to.
#[derive(Debug)]
struct Door {
    name: String,
    port: Port,
    protocol: &'static str,
    advertised: u16,
}

impl Door {
    fn new(name: impl Into<String>, protocol: &'static str) -> Result<Self> {
        let port = Port::take()?;
        Ok(Self { name: name.into(), protocol, advertised: port.number(), port })
    }
}

/// A Kafka, whose clients log in on every second wire.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    inside: Door,
    controller: Door,
    tls: Door,
    /// The listener of each wire: Kafka tells clients of it where the wire is.
    doors: Vec<Door>,
    wires: Vec<Wire>,
}

impl Kafka {
    /// One with so many wires.
    pub fn new(wires: usize) -> Result<Self> {
        let process = Process::new("kafka", "tests/scripts/install-kafka")?;
        let inside = Door::new("INSIDE", "PLAINTEXT")?;
        let (controller, tls) = (Door::new("CONTROLLER", "PLAINTEXT")?, Door::new("TLS", "SASL_SSL")?);
        let mut kafka = Self { process, inside, controller, tls, doors: Vec::new(), wires: Vec::new() };
        for number in 0..wires {
            let protocol = if logs_in(number) { "SASL_PLAINTEXT" } else { "PLAINTEXT" };
            let door = Door::new(format!("WIRE{number}"), protocol)?;
            let wire = Wire::to(door.port.address)?;
            kafka.doors.push(Door { advertised: wire.address().port(), ..door });
            kafka.wires.push(wire);
        }
        Ok(kafka)
    }

    /// Where it listens for clients without a wire: host and port.
    #[must_use]
    pub fn inside(&self) -> String {
        self.inside.port.address.to_string()
    }

    /// The port behind a wire.
    #[must_use]
    pub fn door(&self, wire: usize) -> u16 {
        self.doors[wire].port.number()
    }

    fn properties(&self) -> String {
        let each = |text: &dyn Fn(&Door) -> String| self.all_doors().map(text).collect::<Vec<_>>().join(",");
        let listeners = each(&|door| format!("{}://127.0.0.1:{}", door.name, door.port.number()));
        let protocols = each(&|door| format!("{}:{}", door.name, door.protocol));
        let clients = self.all_doors().filter(|door| door.name != self.controller.name);
        let advertised: Vec<_> = clients.map(|door| format!("{}://127.0.0.1:{}", door.name, door.advertised)).collect();
        let mut text = format!(
            "node.id=1\nprocess.roles=broker,controller\nlog.dirs={DATA}\n\
             listeners={listeners}\nlistener.security.protocol.map={protocols}\nadvertised.listeners={}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=INSIDE\n\
             controller.quorum.voters=1@127.0.0.1:{}\n",
            advertised.join(","),
            self.controller.port.number()
        );
        // A killed broker may come back at once; small, for one machine.
        text.push_str(
            "broker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=200\ninitial.broker.registration.timeout.ms=90000\n\
             num.network.threads=1\nnum.io.threads=4\nbackground.threads=2\nnum.recovery.threads.per.data.dir=1\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             allow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n\
             offsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\ngroup.initial.rebalance.delay.ms=0\n\
             log.index.size.max.bytes=65536\nlog.cleaner.dedupe.buffer.size=4194304\nlog.cleaner.threads=1\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             ssl.keystore.type=PEM\nssl.keystore.location=server.both.pem\n",
        );
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        for door in self.all_doors().filter(|door| door.protocol.starts_with("SASL")) {
            let (name, setting) = (door.name.to_lowercase(), "sasl.jaas.config");
            text.push_str(&format!("listener.name.{name}.scram-sha-512.{setting}={scram}\n"));
            text.push_str(&format!("listener.name.{name}.plain.{setting}={plain} user_{USER}=\"{PASSWORD}\";\n"));
        }
        text
    }

    fn all_doors(&self) -> impl Iterator<Item = &Door> {
        [&self.inside, &self.controller, &self.tls].into_iter().chain(&self.doors)
    }

    /// Puts an empty disk there; to format one takes Java a second, so it is done once for all.
    async fn format(&self) -> Result<()> {
        static FORMATTED: OnceCell<Vec<(String, Vec<u8>)>> = OnceCell::const_new();
        let files = FORMATTED.get_or_try_init(async || {
            let user = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
            let mut format = self.java("kafka.tools.StorageTool", JAVA);
            format.args(["format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", "server.properties", "--add-scram", &user]);
            self.process.tool(&mut format).await?;
            let files = std::fs::read_dir(self.process.file(DATA))?.map(|entry| {
                let entry = entry?;
                let name = entry.file_name().into_string().ok().context("an odd name")?;
                Ok((name, std::fs::read(entry.path())?))
            });
            files.collect::<Result<_>>()
        });
        let files = files.await?;
        std::fs::create_dir_all(self.process.file(DATA))?;
        for (name, content) in files {
            std::fs::write(self.process.file(DATA).join(name), content)?;
        }
        Ok(())
    }

    fn java(&self, class: &str, options: impl IntoIterator<Item = &'static str>) -> Command {
        let mut command = self.process.command("java");
        command.args(options).args(["-cp", &format!("{LIBRARIES}/*"), class]);
        command
    }
}

fn logs_in(wire: usize) -> bool {
    wire % 2 == 1
}

#[async_trait]
impl Server for Kafka {
    fn url(&self, wire: usize) -> String {
        let login = if logs_in(wire) { format!("{USER}:{PASSWORD}@") } else { String::new() };
        format!("kafka://{login}{}", self.wires[wire].address())
    }

    fn inside_url(&self) -> String {
        format!("kafka://{}", self.inside())
    }

    fn named_url(&self, name: &str) -> String {
        format!("{}/{name}", self.inside_url())
    }

    fn tls_url(&self, ca: &str) -> String {
        format!("kafka+ssl://{USER}:{PASSWORD}@{}?ca={ca}", self.tls.port.address)
    }

    fn wires(&self) -> &[Wire] {
        &self.wires
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn ports(&self) -> Vec<u16> {
        [&self.inside, &self.tls].into_iter().chain(&self.doors).map(|door| door.port.number()).collect()
    }

    async fn start(&self) -> Result<()> {
        if !self.process.file(DATA).exists() {
            certificates::put(&self.process).await?;
            std::fs::write(self.process.file("server.properties"), self.properties())?;
            self.format().await?;
        }
        let mut command = self.java("kafka.Kafka", JAVA);
        command.arg("server.properties");
        self.process.run(&command, async || self.process.output().contains(STARTED)).await
    }

    async fn tool(&self, words: &[&str]) -> Result<String> {
        let (class, words) = words.split_first().context("a tool is a class")?;
        let mut command = self.java(class, JAVA);
        self.process.tool(command.args(["--bootstrap-server", &self.inside()]).args(words)).await
    }

    async fn close_connections(&self) -> Result<()> {
        for wire in &self.wires {
            wire.cut();
            wire.mend();
        }
        Ok(())
    }
}
