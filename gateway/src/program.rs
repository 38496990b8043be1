//! What every program built on this library does at its command line: serve, check, ready, probe, capacity.
//!
//! The one place that prints: a program that serves says where, under which name and through which broker.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use broker_adapters::HANDLED;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::cli::{self, Command};
use crate::config::{Config, Overrides, load};
use crate::node::{self, Node};
use crate::{capacity, probe};

/// Carries out the process's command line; `address` is where to listen unless something says otherwise.
pub async fn run(app: App, address: &str) -> anyhow::Result<()> {
    match cli::parse(std::env::args_os()).unwrap_or_else(|error| error.exit()) {
        Command::Serve { file, overrides } => serve(app, configured(file, overrides, address)?).await,
        Command::Check { file } => {
            let config = load(file.as_deref(), cli::environment(), Overrides::default())?;
            node::check(&config)?;
            filter(&config)?;
            println!("Configuration file is valid");
            Ok(())
        }
        Command::Ready { file, overrides } => {
            let config = configured(file, overrides, address)?;
            cli::ready(&config)?;
            println!("ready");
            Ok(())
        }
        Command::Probe(options) => look(&options).await,
        Command::Capacity(options) => {
            let report = capacity::report(&options);
            say(&if options.json { serde_json::to_string(&report)? } else { report.to_string() })
        }
    }
}

/// Prints the steps as they are made, or one JSON object.
async fn look(options: &probe::Options) -> anyhow::Result<()> {
    let report = if options.json {
        let report = probe::run(options, &mut |_| {}).await;
        say(&serde_json::to_string(&report)?)?;
        report
    } else {
        say(&format!("{}\n", options.url))?;
        let mut told = Ok(());
        let mut tell = |line: &dyn fmt::Display| {
            if told.is_ok() {
                told = say(line);
            }
        };
        let report = probe::run(options, &mut tell).await;
        told?;
        if report.ok {
            say(&"\nAll is well.")?;
        }
        report
    };
    let wrong = report.wrong();
    anyhow::ensure!(wrong.is_empty(), "wrong: {}", wrong.join(", "));
    Ok(())
}

/// A line, to where somebody may have stopped reading, as `head` does: an error, then, and no panic.
fn say(line: &dyn fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// The configuration, where a program's own address is weaker than all that an operator says.
fn configured(file: Option<PathBuf>, mut overrides: Overrides, address: &str) -> anyhow::Result<Config> {
    let said = file.is_some() || cli::environment().any(|(name, _)| name == "FANFARE__HTTP__LISTEN");
    if !said {
        overrides.listen.get_or_insert_with(|| address.to_owned());
    }
    Ok(load(file.as_deref(), cli::environment(), overrides)?)
}

async fn serve(app: App, config: Config) -> anyhow::Result<()> {
    let filter = filter(&config)?;
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(terminal).with_writer(std::io::stderr).init();
    let name = config.node_name(cli::environment());
    let balancers_notice = config.timing.drain_wait.unwrap_or_default();
    let broker = config.broker.url.to_string();
    let routes = app.routes.clone();
    let scheme = if config.tls.certificate.is_empty() { "" } else { "s" };
    let mut signals = Signals::listen()?;
    let node = Node::start(app, config, name.clone())?;
    println!("{name} listens on http{scheme}://{}, broker {broker}", node.address);
    let reachable = SocketAddr::new(cli::reachable(node.address.ip()), node.address.port());
    for (protocol, path) in routes {
        println!("  {protocol}{scheme}://{reachable}{path}");
    }
    if let Some(agent) = node.agent {
        println!("  agent-check on {agent}");
    }
    let wait = loop {
        match signals.next().await {
            Told::Reload => match node.reload() {
                Ok(true) => tracing::info!("the certificate has been read again"),
                Ok(false) => tracing::info!("there is no certificate to read again"),
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            },
            Told::Stop => break balancers_notice,
            // Whoever sits at a terminal has no balancer.
            Told::Interrupt => break Duration::ZERO,
        }
    };
    tracing::info!("stopping: clients are told to reconnect elsewhere");
    let now = async { while signals.next().await == Told::Reload {} };
    anyhow::ensure!(node.stop(wait, now).await, "stopped at once: not all clients were told in order");
    Ok(())
}

fn filter(config: &Config) -> anyhow::Result<EnvFilter> {
    let level = &config.log.level;
    // What stands later wins, so the operator's word does.
    EnvFilter::try_new(format!("{HANDLED},{level}")).with_context(|| format!("`log.level` = {level:?}"))
}

/// What a process can be told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    Interrupt,
    Reload,
}

/// SIGTERM, SIGINT and SIGHUP, none of which is missed between two looks.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Interrupt,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(level: &str) -> String {
        let mut config = Config::default();
        config.log.level = level.into();
        filter(&config).map_or_else(|error| format!("{error:#}"), |filter| filter.to_string())
    }

    #[test]
    fn what_adapters_handle_is_not_logged_unless_asked_for_by_name() {
        assert_eq!(filtered("info"), "lapin=off,info");
        assert_eq!(filtered("lapin=debug,info"), "lapin=debug,info");
        assert!(
            filtered("gateway=loud").starts_with("`log.level` = \"gateway=loud\": "),
            "{}",
            filtered("gateway=loud")
        );
    }
}
