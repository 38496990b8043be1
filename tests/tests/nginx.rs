//! `deploy/nginx/`: a real nginx that ends TLS, before two nodes and an ordinary web server.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tests::certificate::Certificate;
use tests::door::Door;
use tests::nginx::Nginx;
use tests::wire::ACCEPT;
use tests::{Broker, Client, Cluster};

/// More connections than it takes to have one on each node.
const ENOUGH: usize = 20;

#[tokio::test]
async fn behind_nginx_sockets_reach_the_nodes_and_pages_the_web_server() -> Result<()> {
    let mut cluster = Cluster::of(2).shared(Broker::Redis).start().await?;
    let (web, certificate) = (Nginx::web().await?, Certificate::make("site").await?);
    let nodes = [cluster.node_address(1), cluster.node_address(2)];
    let nginx = Nginx::balancer(nodes, web.http(), &certificate).await?;
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

    let forged = ["Connection: close", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: http"];
    for path in ["/", "/wsdl", "/rawest", "/metrics", "/ready"] {
        let page = door.ask(path, &forged).await?;
        let expected = format!("an ordinary page for 127.0.0.1 https {}\n", nginx.https().port());
        ensure!(page.status == 200 && page.body == expected, "{path}: {} {}", page.head, page.body);
    }
    let told = Door::plain(nginx.http()).called("ws.example.com").page("/ws?a=b").await?;
    ensure!(told.status == 308 && told.header("location") == Some("https://ws.example.com/ws?a=b"), "{}", told.head);

    cluster.kill_node("node-1").await?;
    for _ in 0..4 {
        let client = Client::native_at(&door).await?;
        // Those that nginx tried first stand before it.
        ensure!(client.node.ends_with(&nodes[1].to_string()), "{}", client.node);
    }
    Ok(())
}
