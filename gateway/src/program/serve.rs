//! Runs a node until the process is asked to stop or a part of the node fails.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use super::cli;
use super::ready::reachable;
use super::signals::{Signals, Told};
use super::telemetry::{self, Telemetry};
use crate::app::App;
use crate::config::Config;
use crate::node::Node;

/// How much longer than everything in order takes a stop may last.
const OVERDUE: Duration = Duration::from_secs(10);

pub(super) async fn serve(app: App, config: Config) -> anyhow::Result<()> {
    // Dropped last: it writes what the end has to say.
    let telemetry = Telemetry::start(telemetry::filter(&config.log.level)?).context("cannot start the log")?;
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
    let reachable = SocketAddr::new(reachable(node.address.ip()), node.address.port());
    // Writing to a string cannot fail.
    for (protocol, path) in routes {
        let _ = writeln!(text, "  {protocol}{scheme}://{reachable}{path}");
    }
    if let Some(agent) = node.agent {
        let _ = writeln!(text, "  agent-check on {agent}");
    }
    text
}
