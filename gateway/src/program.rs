//! What every program built on this library does at its command line: serve, check, ready, probe, capacity.
//!
//! The one place that prints: a program that serves says where, under which name and through which broker.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use broker_adapters::HANDLED;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::cli::{self, Command, Name};
use crate::config::{Config, Overrides, load};
use crate::node::{self, Node};
use crate::telemetry::{self, Telemetry};
use crate::{capacity, probe};

/// How much longer than everything in order takes a stop may last.
const OVERDUE: Duration = Duration::from_secs(10);

/// Carries out the process's command line; `address` is where to listen unless something says otherwise. Prints why it
/// fails.
pub async fn run(app: App, address: &str) -> ExitCode {
    match carry_out(app, address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::complain(&format!("{error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The same, without a word about a failure.
pub(crate) async fn carry_out(app: App, address: &str) -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let name = Name::new(app.program, &arguments);
    match cli::parse(&name, arguments).unwrap_or_else(|error| error.exit()) {
        Command::Serve { file, overrides } => serve(app, configured(file, overrides, address)?).await,
        Command::Check { file } => {
            let config = load(file.as_deref(), cli::environment(), Overrides::default())?;
            node::check(&config)?;
            filter(&config)?;
            say(&"Configuration file is valid")
        }
        Command::Ready { file, overrides } => {
            let config = configured(file, overrides, address)?;
            cli::ready(&config)?;
            say(&"ready")
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

/// Prints a line. A reader that has had enough, as `head` has, is no failure.
fn say(line: &dyn fmt::Display) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot print to stdout"),
        _ => Ok(()),
    }
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
    // Dropped last: it writes what the end has to say.
    let telemetry = Telemetry::start(filter(&config)?).context("cannot start the log")?;
    let name = config.node_name(cli::environment());
    let balancers_notice = config.timing.drain_wait.unwrap_or_default();
    let longest = balancers_notice + config.timing.drain + config.broker.publish_timeout + OVERDUE;
    let (broker, routes) = (config.broker.url.to_string(), app.routes.clone());
    let scheme = if config.tls.certificate.is_empty() { "" } else { "s" };
    let mut signals = Signals::listen()?;
    let node = Node::start_with_log(app, config, name.clone(), telemetry.dropped())?;
    telemetry::print(&banner(&name, &broker, scheme, &routes, &node));
    let end = loop {
        let told = tokio::select! {
            told = signals.next() => told,
            part = node.failed() => break Err(part),
        };
        match told {
            Told::Reload => match node.reload() {
                Ok(true) => tracing::info!("the certificate has been read again"),
                Ok(false) => tracing::info!("there is no certificate to read again"),
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            },
            Told::Stop => break Ok(balancers_notice),
            // Whoever sits at a terminal has no balancer.
            Told::Interrupt => break Ok(Duration::ZERO),
        }
    };
    match &end {
        Ok(_) => tracing::info!("stopping: clients are told to reconnect elsewhere"),
        Err(part) => tracing::error!("{part}, and the node cannot serve without it: stopping"),
    }
    let now = async {
        let impatient = async { while signals.next().await == Told::Reload {} };
        // An error means that a part of the node does not end.
        let _ = tokio::time::timeout(longest, impatient).await;
    };
    let in_order = node.stop(*end.as_ref().unwrap_or(&Duration::ZERO), now).await;
    if let Err(part) = end {
        anyhow::bail!("stopped by a fault: {part}");
    }
    anyhow::ensure!(in_order, "stopped at once: not all clients were told in order");
    Ok(())
}

/// Where the node listens and what is there.
fn banner(name: &str, broker: &str, scheme: &str, routes: &[(&str, String)], node: &Node) -> String {
    let mut text = format!("{name} listens on http{scheme}://{}, broker {broker}\n", node.address);
    let reachable = SocketAddr::new(cli::reachable(node.address.ip()), node.address.port());
    // Writing to a string cannot fail.
    for (protocol, path) in routes {
        let _ = writeln!(text, "  {protocol}{scheme}://{reachable}{path}");
    }
    if let Some(agent) = node.agent {
        let _ = writeln!(text, "  agent-check on {agent}");
    }
    text
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
