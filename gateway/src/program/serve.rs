//! Runs a node until the process is asked to stop or a part of the node fails.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

use super::cli;
use super::ready::reachable;
use super::signals::{Request, Signals};
use super::telemetry::{self, Telemetry};
use crate::app::App;
use crate::config::Config;
use crate::node::Node;

/// How much longer a stop may take than all its phases together.
const OVERDUE: Duration = Duration::from_secs(10);

pub(super) async fn serve(app: App, config: Config) -> anyhow::Result<()> {
    // Dropped last, so that it writes the last lines of the log.
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
        let request = tokio::select! {
            request = signals.next() => request,
            part = node.failed() => break Err(part),
        };
        match request {
            Request::Reload => match node.reload() {
                Ok(true) => tracing::info!("the certificate has been read again"),
                Ok(false) => tracing::info!("there is no certificate to read again"),
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            },
            Request::Stop => break Ok(balancers_notice),
            // Ctrl-C at a terminal: there is no balancer to wait for.
            Request::Interrupt => break Ok(Duration::ZERO),
        }
    };
    match &end {
        Ok(_) => tracing::info!("stopping: asking clients to reconnect to other nodes"),
        Err(part) => tracing::error!("{part}, and the node cannot serve without it: stopping"),
    }
    let now = async {
        let second_signal = async { while signals.next().await == Request::Reload {} };
        // A time-out means that a part of the node hangs: stop at once then too.
        let _ = tokio::time::timeout(longest, second_signal).await;
    };
    let in_order = node.stop(*end.as_ref().unwrap_or(&Duration::ZERO), now).await;
    if let Err(part) = end {
        anyhow::bail!("stopped by a fault: {part}");
    }
    anyhow::ensure!(in_order, "stopped at once: not all connections were closed in order");
    Ok(())
}

/// A command that publishes with a key that was made for this run, to be copied.
fn first_publish(api: SocketAddr, key: &str) -> String {
    format!(
        "    curl http://{api}/v1/publish -H 'Authorization: Bearer {key}' --json '{{\"channel\":\"news\",\"data\":\"hello\"}}'"
    )
}

/// The addresses of the node and of its endpoints.
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
    if let Some(api) = node.api {
        let _ = writeln!(text, "  API on http://{api}/v1");
    }
    if let (Some(api), Some(key)) = (node.api, &node.api_key) {
        let _ = writeln!(text, "{}", first_publish(api, key));
    }
    text
}
