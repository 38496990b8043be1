//! `deploy/nginx/`: a real nginx that ends TLS, before two nodes and an ordinary web server.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_brokers::signal;
use tests::certificate::Certificate;
use tests::door::Door;
use tests::names::Names;
use tests::nginx::{Nginx, Site};
use tests::wire::{ACCEPT, Wire};
use tests::{Broker, Client, Cluster, PATIENCE};
use tokio::time::{interval, timeout};

/// More connections than it takes to have one on each node.
const ENOUGH: usize = 20;

#[tokio::test]
async fn behind_nginx_sockets_reach_the_nodes_and_pages_the_web_server() -> Result<()> {
    let mut cluster = Cluster::of(2).shared(Broker::Redis).set("FANFARE__TIMING__DRAIN_WAIT", "off").start().await?;
    let (web, certificate) = (Nginx::web().await?, Certificate::make("site").await?);
    let nodes = [cluster.node_address(1), cluster.node_address(2)];
    let (names, page) = (nodes.map(|node| node.to_string()), web.http().to_string());
    let behind = Site { nodes: [&names[0], &names[1]], web: &page };
    let nginx = Nginx::balancer(behind, &certificate, None).await?;
    let door = Door::secure(nginx.https(), &certificate)?.called("localhost");

    let answer = door.upgrade("/ws").await?;
    ensure!(answer.status == 101 && answer.header("sec-websocket-accept") == Some(ACCEPT), "{}", answer.head);
    let mut clients = BTreeMap::new();
    for _ in 0..ENOUGH {
        let client = Client::native_at(&door).await?;
        client.subscribe("news").await?;
        ensure!(nodes.map(|node| node.to_string()).contains(&client.node), "{}", client.node);
        clients.insert(client.node.clone(), client);
        if clients.len() == 2 {
            break;
        }
    }
    ensure!(clients.len() == 2, "{ENOUGH} connections, all to {:?}", clients.keys());
    for client in clients.values() {
        client.publish("news", &client.node).await?;
        for listener in clients.values() {
            listener.sees(&client.node).await?;
        }
    }

    let forged = [
        "Connection: close",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: forged.example",
    ];
    for path in ["/fanfare.js", "/fanfare-members.js", "/fanfare-share.js", "/fanfare.d.ts"] {
        let answer = door.page(path).await?;
        ensure!(answer.status == 200 && answer.body.contains("export"), "{path}: {}", answer.head);
    }
    for path in ["/", "/fanfare.jsx", "/wsdl", "/rawest", "/metrics", "/ready"] {
        let page = door.ask(path, &forged).await?;
        let expected = format!("an ordinary page for 127.0.0.1 https {}\n", nginx.https().port());
        ensure!(page.status == 200 && page.body == expected, "{path}: {} {}", page.head, page.body);
    }
    let answer = Door::plain(nginx.http()).called("ws.example.com").page("/ws?a=b").await?;
    ensure!(
        answer.status == 308 && answer.header("location") == Some("https://ws.example.com/ws?a=b"),
        "{}",
        answer.head
    );

    // It does not answer the close frame, so that its node is going for a while.
    let slow = Wire::open(nodes[0], "/raw/news").await?;
    signal(cluster.process("node-1")?.pid, "TERM").await?;
    // `/ready` says so first; then each worker refuses sockets.
    let leaving = Door::plain(nodes[0]);
    while leaving.upgrade("/ws").await?.status != 503 {}
    let met = goes_to(&door, nodes[1]).await.with_context(|| nginx.log())?;
    ensure!(
        met.iter().any(|node| node.starts_with(&nodes[0].to_string())),
        "{met:?}: the node that goes was not asked"
    );
    drop(slow);
    cluster.kill_node("node-1").await?;
    goes_to(&door, nodes[1]).await.with_context(|| nginx.log())?;
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_unknown_when_nginx_starts_is_used_as_soon_as_it_is_known() -> Result<()> {
    const WRONG: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 99);
    let cluster = Cluster::of(2).shared(Broker::Redis).start().await?;
    let (web, certificate, names) = (Nginx::web().await?, Certificate::make("site").await?, Names::start().await?);
    let nodes = [cluster.node_address(1), cluster.node_address(2)];
    let [first, second] = nodes.map(|node| node.to_string());
    let named = format!("node-1.test:{}", nodes[0].port());
    let behind = Site { nodes: [&named, &second], web: &format!("web.test:{}", web.http().port()) };
    let nginx = Nginx::balancer(behind, &certificate, Some(&names)).await?;
    let door = Door::secure(nginx.https(), &certificate)?.called("localhost");

    goes_to(&door, nodes[1]).await.with_context(|| nginx.log())?;
    ensure!(door.page("/").await?.status == 502, "the web server has no address yet");
    // An address that a container had before, where no server listens.
    names.set("node-1.test", WRONG);
    goes_to(&door, nodes[1]).await.with_context(|| nginx.log())?;
    for name in ["node-1.test", "web.test"] {
        names.set(name, Ipv4Addr::LOCALHOST);
    }
    let both = async {
        // nginx limits how often one address may come.
        let mut look = interval(Duration::from_millis(50));
        while Client::native_at(&door).await?.node != first || door.page("/").await?.status != 200 {
            look.tick().await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, both).await.with_context(|| nginx.log())?
}

/// Connects some clients, which must all come to this node; says which nodes nginx asked for each. Which it asks first is
/// chance: among so many clients it is the other one, too.
async fn goes_to(door: &Door, node: SocketAddr) -> Result<Vec<String>> {
    let mut asked = Vec::new();
    for _ in 0..ENOUGH {
        let client = Client::native_at(door).await?;
        ensure!(client.node.ends_with(&node.to_string()), "{}", client.node);
        asked.push(client.node.clone());
    }
    Ok(asked)
}
