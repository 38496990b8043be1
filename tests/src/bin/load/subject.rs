//! The server under test: one that runs already, or one that is started for the run.

use anyhow::{Context, Result};
use clap::Args;

use crate::measure::Process;
use crate::protocol::Protocol;
use crate::server::{self, Server};
use crate::swarm::Plan;
use crate::target::Target;

/// Which server, and how to speak to it
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct Options {
    /// WebSocket of the server, on this machine [default: ws://127.0.0.1:{port}/raw/bench, or /ws for native]
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Process of a server that runs already, to be measured
    #[arg(long, conflicts_with = "server")]
    pub(crate) pid: Option<u32>,
    /// How messages look
    #[arg(long, value_enum, default_value = "raw")]
    pub(crate) protocol: Protocol,
    /// Core for a server that is started here
    #[arg(long, default_value = "0")]
    pub(crate) server_core: String,
    /// Core for the client
    #[arg(long, default_value = "1")]
    pub(crate) client_core: String,
    /// Command that starts the server; has to come last. {port} stands for a free port, here and in --url
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "CMD", required_unless_present = "url")]
    pub(crate) server: Vec<String>,
}

pub(crate) struct Subject {
    pub(crate) target: Target,
    pub(crate) protocol: Protocol,
    process: Option<Process>,
    server: Option<Server>,
}

impl Options {
    /// Starts the server if asked to, runs the measurement, and ends the server.
    ///
    /// # Errors
    /// Those of the server's start and of the measurement.
    pub(crate) fn run<T>(&self, measurement: impl FnOnce(&Subject) -> Result<T>) -> Result<T> {
        server::move_to(&self.client_core)?;
        let mut subject = self.start()?;
        let outcome = measurement(&subject);
        outcome.map_err(|error| match &mut subject.server {
            Some(server) => server.blame(error),
            None => error,
        })
    }

    fn start(&self) -> Result<Subject> {
        let port = server::free_port()?.to_string();
        let default = || format!("ws://127.0.0.1:{}{}", server::PORT, self.protocol.path());
        let url = self.url.clone().unwrap_or_else(default).replace(server::PORT, &port);
        let target: Target = url.parse()?;
        let command: Vec<String> = self.server.iter().map(|word| word.replace(server::PORT, &port)).collect();
        let server = match command.is_empty() {
            true => None,
            false => Some(Server::start(&command, &self.server_core, target.address)?),
        };
        let process = self.pid.or(server.as_ref().map(Server::pid)).map(|pid| Process { pid });
        Ok(Subject { target, protocol: self.protocol, process, server })
    }
}

impl Subject {
    /// The server's process, where a measurement makes no sense without it.
    pub(crate) fn process(&self) -> Result<Process> {
        self.process.context("the server's process is needed: --pid PID or --server CMD")
    }

    /// The server's process, where it is known.
    pub(crate) fn known_process(&self) -> Option<Process> {
        self.process
    }

    pub(crate) fn plan(&self, connections: usize) -> Plan {
        Plan {
            target: self.target.clone(),
            protocol: self.protocol,
            connections,
            subscribe: true,
            size: None,
            receive_buffer: None,
            secret: None,
        }
    }
}
