//! A whole cluster on this machine: nodes, echo servers, their broker, and HAProxy before them, each a real process.
//!
//! `Cluster::of(3).echo(2).broker(Broker::Redis).haproxy().start()`. Every program keeps its port while it is down, so that it can come
//! back where HAProxy looks for it. Dropping the cluster kills all of it; what the programs said last is printed, and so
//! shown when the test has failed.

use std::net::SocketAddr;
use std::process::ExitStatus;

use anyhow::{Context, Result};
use real_brokers::{Port, Server, Wire};

use crate::api::{self, Api};
use crate::balancer::Balancer;
use crate::broker::{Broker, Log};
use crate::conditions::Conditions;
use crate::http;
use crate::measure::Process;
use crate::program::Program;

/// Lines of each program that are shown when a test fails.
const LAST_LINES: usize = 40;

/// A cluster to be.
#[derive(Debug)]
pub struct Plan {
    nodes: usize,
    echo: usize,
    broker: Broker,
    shared: bool,
    balanced: bool,
    agents: bool,
    apis: bool,
    environment: Vec<(String, String)>,
    conditions: Conditions,
}

impl Plan {
    /// With so many echo servers.
    #[must_use]
    pub fn echo(self, echo: usize) -> Self {
        Self { echo, ..self }
    }

    /// On a broker of this kind that no other cluster uses.
    #[must_use]
    pub fn broker(self, broker: Broker) -> Self {
        Self { broker, shared: false, ..self }
    }

    /// On the broker of this kind that all clusters of this program share which do it no harm.
    #[must_use]
    pub fn shared(self, broker: Broker) -> Self {
        Self { broker, shared: true, ..self }
    }

    /// On a Redis.
    #[must_use]
    pub fn redis(self) -> Self {
        self.broker(Broker::Redis)
    }

    /// Behind HAProxy.
    #[must_use]
    pub fn haproxy(self) -> Self {
        Self { balanced: true, ..self }
    }

    /// With an agent for each node, which HAProxy can ask.
    #[must_use]
    pub fn agents(self) -> Self {
        Self { agents: true, ..self }
    }

    /// With the HTTP API on every node, which takes [`BACKEND`](crate::api::BACKEND).
    #[must_use]
    pub fn apis(self) -> Self {
        let (variable, keys) = api::backend();
        Self { apis: true, ..self }.set(variable, &keys)
    }

    /// With a variable in the environment of every node and echo server.
    #[must_use]
    pub fn set(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// With nodes and echo servers under these conditions.
    #[must_use]
    pub fn under(self, conditions: Conditions) -> Self {
        Self { conditions, ..self }
    }

    /// Starts everything, and waits until all nodes are ready and HAProxy knows it.
    pub async fn start(self) -> Result<Cluster> {
        let log = Log::on(self.broker, self.shared, self.nodes + self.echo).await?;
        let nodes =
            (1..=self.nodes).map(|number| Member::new("fanfare", format!("node-{number}"), self.agents, self.apis));
        let echo = (1..=self.echo).map(|number| Member::new("echo-server", format!("echo-{number}"), false, false));
        let members = nodes.chain(echo).collect::<Result<_>>()?;
        let (environment, conditions) = (self.environment, self.conditions);
        let mut cluster = Cluster { members, log, balancer: None, environment, conditions, well: false };
        for index in 0..cluster.members.len() {
            cluster.run(index).await?;
        }
        for member in &cluster.members {
            member.is_ready().await?;
        }
        if self.balanced {
            let servers = cluster.members.iter().map(|member| (member.name.as_str(), member.port.address));
            let agents = cluster
                .members
                .iter()
                .filter_map(|member| Some((member.name.as_str(), member.agent.as_ref()?.address)));
            cluster.balancer = Some(Balancer::by("port").servers(servers).agents(agents).start()?);
            cluster.balanced().await?;
        }
        Ok(cluster)
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    log: Log,
    balancer: Option<Balancer>,
    environment: Vec<(String, String)>,
    conditions: Conditions,
    /// Whether the programs' output is not needed.
    well: bool,
}

/// A node or an echo server, which may be down.
#[derive(Debug)]
struct Member {
    binary: &'static str,
    name: String,
    port: Port,
    agent: Option<Port>,
    api: Option<Port>,
    program: Option<Program>,
    /// What it printed in earlier lives.
    before: String,
}

impl Member {
    fn new(binary: &'static str, name: String, asked: bool, api: bool) -> Result<Self> {
        let (agent, api) = (asked.then(Port::take).transpose()?, api.then(Port::take).transpose()?);
        Ok(Self { binary, name, port: Port::take()?, agent, api, program: None, before: String::new() })
    }

    fn running(&mut self) -> Result<&mut Program> {
        self.program.as_mut().with_context(|| format!("{} does not run", self.name))
    }

    async fn is_ready(&self) -> Result<()> {
        let ready = http::until(self.port.address, "/ready", |answer| answer.status == 200).await;
        ready.map(drop).with_context(|| format!("{} is not ready:\n{}", self.name, self.output()))
    }

    async fn ended(&mut self) -> Result<ExitStatus> {
        let status = self.running()?.ended().await?;
        self.before = self.output();
        self.program = None;
        Ok(status)
    }

    fn output(&self) -> String {
        let now = self.program.as_ref().map(Program::output).unwrap_or_default();
        [self.before.as_str(), now.as_str()].join("\n").trim().to_owned()
    }
}

impl Cluster {
    /// A cluster with so many nodes, called `node-1` and so on.
    #[must_use]
    pub fn of(nodes: usize) -> Plan {
        Plan {
            nodes,
            echo: 0,
            broker: Broker::Memory,
            shared: false,
            balanced: false,
            agents: false,
            apis: false,
            environment: Vec::new(),
            conditions: Conditions::default(),
        }
    }

    /// Where HAProxy takes clients of the gateway: `http://` and no slash at the end.
    #[must_use]
    pub fn gateway_url(&self) -> String {
        format!("http://{}", self.balancer().gateway())
    }

    /// Where HAProxy takes clients of the echo servers: `http://` and no slash at the end.
    #[must_use]
    pub fn echo_url(&self) -> String {
        format!("http://{}", self.balancer().echo())
    }

    /// Where a node listens; the first is 1.
    #[must_use]
    pub fn node_address(&self, number: usize) -> SocketAddr {
        self.address(&format!("node-{number}"))
    }

    /// Where an echo server listens; the first is 1.
    #[must_use]
    pub fn echo_address(&self, number: usize) -> SocketAddr {
        self.address(&format!("echo-{number}"))
    }

    /// The HTTP API of a node, with [`BACKEND`](crate::api::BACKEND); the first is 1.
    pub fn api(&self, number: usize) -> Result<Api> {
        let port = self.members[self.index(&format!("node-{number}"))?].api.as_ref();
        let address = port.context("the plan said apis()")?.address;
        Ok(Api { address, key: api::BACKEND.to_owned() })
    }

    /// HAProxy.
    ///
    /// # Panics
    /// Without [`Plan::haproxy`].
    #[must_use]
    pub fn balancer(&self) -> &Balancer {
        self.balancer.as_ref().expect("the plan said haproxy()")
    }

    /// HAProxy, to reload it.
    ///
    /// # Panics
    /// Without [`Plan::haproxy`].
    pub fn balancer_mut(&mut self) -> &mut Balancer {
        self.balancer.as_mut().expect("the plan said haproxy()")
    }

    /// The broker's server.
    ///
    /// # Panics
    /// With a log in memory.
    #[must_use]
    pub fn broker(&self) -> &dyn Server {
        self.log.server().expect("the plan said broker()")
    }

    /// The broker's URL, as the first node has it.
    #[must_use]
    pub fn broker_url(&self) -> String {
        self.log.url(0)
    }

    /// The wire between a node or an echo server and the broker, if that is not shared.
    pub fn wire(&self, name: &str) -> Result<&Wire> {
        let index = self.index(name)?;
        self.broker().wires().get(index).context("the plan said broker(), not shared()")
    }

    /// The process of a node or an echo server, to measure it.
    pub fn process(&self, name: &str) -> Result<Process> {
        let program = self.members[self.index(name)?].program.as_ref();
        program.with_context(|| format!("{name} does not run"))?.process()
    }

    /// All went well: what the programs said is not shown when the cluster is dropped.
    pub fn well(&mut self) {
        self.well = true;
    }

    /// What a node or an echo server printed, in all its lives.
    pub fn output(&self, name: &str) -> Result<String> {
        Ok(self.members[self.index(name)?].output())
    }

    /// Waits for a line with this text from a node or an echo server that runs.
    pub async fn line(&mut self, name: &str, text: &str) -> Result<String> {
        let index = self.index(name)?;
        self.members[index].running()?.line(text).await
    }

    /// Kills a node (SIGKILL).
    pub async fn kill_node(&mut self, name: &str) -> Result<()> {
        let index = self.index(name)?;
        self.members[index].running()?.signal("KILL").await?;
        self.members[index].ended().await.map(drop)
    }

    /// Stops a node in its tracks (SIGSTOP): its sockets stay open.
    pub async fn freeze_node(&mut self, name: &str) -> Result<()> {
        let index = self.index(name)?;
        self.members[index].running()?.signal("STOP").await
    }

    /// Lets it go on (SIGCONT).
    pub async fn thaw_node(&mut self, name: &str) -> Result<()> {
        let index = self.index(name)?;
        self.members[index].running()?.signal("CONT").await
    }

    /// Tells a node to stop (SIGTERM), and gives its exit status.
    pub async fn stop_node(&mut self, name: &str) -> Result<ExitStatus> {
        let index = self.index(name)?;
        self.members[index].running()?.signal("TERM").await?;
        self.members[index].ended().await
    }

    /// Waits for the end of a node that was told to stop.
    pub async fn stopped(&mut self, name: &str) -> Result<ExitStatus> {
        let index = self.index(name)?;
        self.members[index].ended().await
    }

    /// Starts a node again where it was, and waits until it is ready and HAProxy knows it.
    pub async fn start_node(&mut self, name: &str) -> Result<()> {
        self.launch_node(name).await?;
        self.members[self.index(name)?].is_ready().await?;
        self.balanced().await
    }

    /// Starts a node again where it was, and does not wait until it is ready.
    pub async fn launch_node(&mut self, name: &str) -> Result<()> {
        let index = self.index(name)?;
        self.run(index).await
    }

    /// As [`kill_node`](Self::kill_node).
    pub async fn kill_echo(&mut self, name: &str) -> Result<()> {
        self.kill_node(name).await
    }

    /// As [`start_node`](Self::start_node).
    pub async fn start_echo(&mut self, name: &str) -> Result<()> {
        self.start_node(name).await
    }

    /// Waits until HAProxy, if there is one, sees as up exactly what runs.
    pub async fn balanced(&mut self) -> Result<()> {
        let running = self.members.iter().filter(|member| member.program.is_some());
        let names: Vec<_> = running.map(|member| member.name.as_str()).collect();
        match &mut self.balancer {
            Some(balancer) => balancer.sees_up(&names).await,
            None => Ok(()),
        }
    }

    async fn run(&mut self, index: usize) -> Result<()> {
        let broker = self.log.url(index);
        let mut environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let member = &mut self.members[index];
        let listen = member.port.address.to_string();
        let agent = member.agent.as_ref().map(|agent| agent.address.to_string());
        environment.extend(agent.as_deref().map(|agent| ("FANFARE__AGENT__LISTEN", agent)));
        let api = member.api.as_ref().map(|api| api.address.to_string());
        environment.extend(api.as_deref().map(|api| ("FANFARE__API__LISTEN", api)));
        let arguments = ["--listen", &listen, "--broker", &broker, "--name", &member.name];
        member.program = Some(Program::start_under(self.conditions, member.binary, &arguments, &environment).await?);
        Ok(())
    }

    fn index(&self, name: &str) -> Result<usize> {
        let found = self.members.iter().position(|member| member.name == name);
        found.with_context(|| format!("the cluster has no {name}"))
    }

    fn address(&self, name: &str) -> SocketAddr {
        let index = self.index(name).expect("a test knows its cluster");
        self.members[index].port.address
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.well {
            return;
        }
        let last = |name: &str, output: &str| {
            let lines: Vec<_> = output.lines().collect();
            println!("--- {name}\n{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        };
        for member in &self.members {
            last(&member.name, &member.output());
        }
        if let Some(balancer) = &self.balancer {
            last("haproxy", &balancer.log());
        }
        if let Some(broker) = self.log.server() {
            last("broker", &broker.process().output());
        }
    }
}
