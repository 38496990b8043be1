//! IPv4 and IPv6: a node that listens on every address is reached over both, and starts where the kernel has no IPv6.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Result, ensure};
use real_brokers::Port;
use tests::balancer::Balancer;
use tests::tokens::OPEN;
use tests::without_ipv6::WithoutIpv6;
use tests::{Broker, Cluster, Program, agent, http};

const AGENT_EVERYWHERE: (&str, &str) = ("FANFARE__AGENT__LISTEN", "[::]:0");

#[tokio::test]
async fn a_node_and_its_agent_on_every_address_are_reached_over_both_families() -> Result<()> {
    let node = Program::start("fanfare", &["--listen", "[::]:0"], &[AGENT_EVERYWHERE, OPEN]).await?;
    let agent = agent::of(&node).await?;
    for loopback in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        http::until(SocketAddr::new(loopback, node.address.port()), "/ready", |answer| answer.status == 200).await?;
        agent::until(SocketAddr::new(loopback, agent.port()), "up").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_on_every_address_starts_without_ipv6_and_is_reached_over_ipv4() -> Result<()> {
    let without = WithoutIpv6::new()?;
    let library = without.library().display().to_string();
    let environment = [AGENT_EVERYWHERE, OPEN, ("LD_PRELOAD", library.as_str())];
    let node = Program::start("fanfare", &["--listen", "[::]:0"], &environment).await?;
    ensure!(node.address.ip() == Ipv4Addr::UNSPECIFIED, "it should say where it listens: {}", node.address);
    let agent = agent::of(&node).await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.address.port()));
    http::until(address, "/ready", |answer| answer.status == 200).await?;
    agent::until(SocketAddr::from((Ipv4Addr::LOCALHOST, agent.port())), "up").await?;
    let one = Program::start("fanfare", &["--listen", "[::1]:0"], &environment[2..]).await;
    ensure!(one.is_err(), "a listener on one IPv6 address takes no IPv4 connection");
    Ok(())
}

#[tokio::test]
async fn haproxy_takes_clients_over_both_families_and_names_each_by_its_own_address() -> Result<()> {
    let cluster = Cluster::of(1).shared(Broker::Redis).start().await?;
    let port = Port::take()?;
    // The form of the defaults, on the loopback.
    let both = format!("127.0.0.1:{0},::1:{0}", port.number());
    let plan = Balancer::by("port").servers([("node-1", cluster.node_address(1))]).set("GATEWAY_BIND", &both);
    let mut balancer = plan.start()?;
    balancer.sees_up(&["node-1"]).await?;
    for (client, loopback) in [("127.0.0.1:", Ipv4Addr::LOCALHOST.into()), ("::1:", Ipv6Addr::LOCALHOST.into())] {
        let page = http::get(SocketAddr::new(loopback, port.number()), "/").await?;
        ensure!(page.status == 200, "{loopback}: {}", page.head);
        balancer.logs(&format!("\n{client}"), 1).await?;
    }
    Ok(())
}

#[test]
fn what_haproxy_opens_to_clients_by_default_is_open_over_both_families() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/haproxy");
    let mut binds = 0;
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("by-")) {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines().filter(|line| line.trim().starts_with("bind ")) {
            let default = line.split(['-', '}']).nth(1).unwrap_or_default();
            let both = default.split_once(',').is_some_and(|(four, six)| {
                four.strip_prefix("*:").is_some_and(|port| six.strip_prefix(":::") == Some(port))
            });
            ensure!(both && line.contains("}\" v6only"), "{}: {line}", path.display());
            binds += 1;
        }
    }
    ensure!(binds == 10, "{binds} binds");
    Ok(())
}
