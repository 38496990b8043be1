//! Three nodes and two echo servers behind a real HAProxy, on each broker: what clients see of it, on good days and bad.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::client::{Client, Ended};
use tests::{Broker, Cluster, crowd, http};
use tokio::net::TcpStream;

/// The code of a node that goes away for good.
const RESTARTING: u16 = 1012;

/// What the field's guides have their readers send to a new deployment (RFC 6455 §1.3).
const PROBE: &str = "Host: fanfare.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq: {
    a_message_sent_on_any_of_300_sockets_comes_to_all_exactly_once_and_in_one_order,
    the_raw_upgrade_probe_gets_the_accept_value_and_the_name_of_its_node,
    a_stopping_node_sends_its_clients_away_and_ends_well,
    when_a_node_is_killed_its_clients_find_another_and_all_others_go_on,
    sockets_outlive_a_reload_of_the_balancer,
    a_first_start_on_an_empty_broker_is_nothing_to_warn_of,
} }

// Each node has a log of its own, so there is one of each.
tests::on_brokers! { memory Memory: { a_message_sent_on_any_of_300_sockets_comes_to_all_exactly_once_and_in_one_order } }

async fn a_message_sent_on_any_of_300_sockets_comes_to_all_exactly_once_and_in_one_order(broker: Broker) -> Result<()> {
    let (nodes, echo) = if broker == Broker::Memory { (1, 1) } else { (3, 2) };
    let cluster = Cluster::of(nodes).echo(echo).shared(broker).haproxy().start().await?;
    let spread = crowd::converse(&cluster.gateway_url(), &cluster.echo_url()).await?;
    assert_eq!(spread.values().sum::<usize>(), 300);
    let nodes = (1..=nodes).map(|number| (format!("node-{number}"), 240 / nodes));
    for (name, fair) in nodes.chain((1..=echo).map(|number| (format!("echo-{number}"), 60 / echo))) {
        let count = spread.get(&name).copied().unwrap_or_default();
        assert!(count.abs_diff(fair) <= fair / 4, "{name} should have about {fair} of {spread:?}");
    }
    Ok(())
}

async fn the_raw_upgrade_probe_gets_the_accept_value_and_the_name_of_its_node(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(3).echo(2).shared(broker).haproxy().start().await?;
    let (gateway, echo) = (cluster.balancer().gateway(), cluster.balancer().echo());
    for (address, path, prefix, servers) in
        [(gateway, "/ws", "node-", 3), (gateway, "/raw/news", "node-", 3), (echo, "/ws/echo", "echo-", 2)]
    {
        let mut seen = BTreeSet::new();
        let mut open = Vec::new();
        for _ in 0..servers {
            let mut stream = TcpStream::connect(address).await?;
            let answer = http::ask(&mut stream, &format!("GET {path} HTTP/1.1\r\n{PROBE}")).await?;
            assert_eq!(answer.head.lines().next(), Some("HTTP/1.1 101 Switching Protocols"));
            assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert_eq!(answer.header("upgrade"), Some("websocket"));
            assert_eq!(answer.header("sec-websocket-protocol"), None, "none was asked for");
            assert_eq!(answer.body, "", "nothing follows until someone speaks");
            let node = answer.header("x-backend").context("no x-backend")?.to_owned();
            assert!(node.starts_with(prefix), "{node}");
            seen.insert(node);
            open.push(stream);
        }
        assert_eq!(seen.len(), servers, "{path} is spread over {seen:?}");
    }
    Ok(())
}

async fn a_stopping_node_sends_its_clients_away_and_ends_well(broker: Broker) -> Result<()> {
    let mut cluster = Cluster::of(2).shared(broker).haproxy().start().await?;
    let leaving = on_node(&cluster, 1, 10).await?;
    let staying = on_node(&cluster, 2, 10).await?;
    let begin = Instant::now();
    let status = cluster.stop_node("node-1").await?;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(begin.elapsed() < Duration::from_secs(10), "longer than timing.drain: {:?}", begin.elapsed());
    for client in &leaving {
        let Ended::Closed(code, why) = client.ended().await? else { panic!("no close frame for a client") };
        assert_eq!(code, RESTARTING, "{why}");
    }
    for client in &staying {
        client.publish("news", &format!("from {:p}", client)).await?;
    }
    for client in &staying {
        client.messages(staying.len()).await?;
    }
    cluster.start_node("node-1").await?;
    Ok(())
}

#[tokio::test]
async fn a_draining_node_says_that_it_is_not_ready() -> Result<()> {
    let plan = Cluster::of(1).set("FANFARE__NODE__WORKERS", "1").set("FANFARE__TIMING__DRAIN", "1s");
    let mut cluster = plan.set("FANFARE__TIMING__DRAIN_WAIT", "off").start().await?;
    let address = cluster.node_address(1);
    // The node gives a client that does not answer its close frame the time of the drain, and two seconds.
    let mut stubborn = TcpStream::connect(address).await?;
    assert_eq!(http::ask(&mut stubborn, &format!("GET /raw/news HTTP/1.1\r\n{PROBE}")).await?.status, 101);
    let mut kept = TcpStream::connect(address).await?;
    let ready = "GET /ready HTTP/1.1\r\nHost: fanfare\r\n\r\n";
    assert_eq!(http::ask(&mut kept, ready).await?.status, 200);

    let drained = async {
        let status = cluster.stop_node("node-1").await?;
        assert_eq!(status.code(), Some(0), "{status}");
        anyhow::Ok(())
    };
    let answers = async {
        let mut close = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut stubborn, &mut close).await?;
        assert_eq!(close[0], 0x88, "a close frame");
        assert_eq!(close[2..], RESTARTING.to_be_bytes());
        let answer = http::ask(&mut kept, ready).await?;
        assert_eq!((answer.status, answer.body.as_str()), (503, "not ready: this node is draining\n"));
        anyhow::Ok(())
    };
    tokio::try_join!(drained, answers).map(drop)
}

async fn when_a_node_is_killed_its_clients_find_another_and_all_others_go_on(broker: Broker) -> Result<()> {
    let mut cluster = Cluster::of(3).shared(broker).haproxy().start().await?;
    let run = tests::history::Run::on("news");
    let url = cluster.gateway_url();
    let mut clients = Vec::new();
    for number in 0..30 {
        clients.push(subscribed(&url, number).await?);
    }
    let publisher = Client::native(&format!("http://{}", cluster.node_address(2))).await?;
    for number in 0..50 {
        run.publish(&publisher, &format!("before {number}")).await?;
    }
    cluster.kill_node("node-1").await?;
    for number in 0..50 {
        run.publish(&publisher, &format!("after {number}")).await?;
    }
    let (dead, alive): (Vec<_>, Vec<_>) = clients.iter().partition(|client| client.node == "node-1");
    assert_eq!((dead.len(), alive.len()), (10, 20));
    let mut back = Vec::new();
    for (number, client) in dead.iter().enumerate() {
        assert_eq!(client.ended().await?, Ended::Broken);
        back.push(subscribed(&url, number).await?);
    }
    assert!(back.iter().all(|client| ["node-2", "node-3"].contains(&client.node.as_str())));
    for client in &back {
        let own = format!("from {:p}, back again", client);
        let run = &run;
        // A socket of the raw protocol or of the native: what it says comes to all.
        run.publish(client, &own).await?;
    }
    for client in &alive {
        client.messages(100 + back.len()).await?;
    }
    for client in &back {
        client.messages(back.len()).await?;
    }
    run.judge(clients.iter(), back.iter()).assert_lawful();
    run.judge(alive.iter().copied(), []).assert_whole();

    cluster.start_node("node-1").await?;
    let mut nodes = BTreeSet::new();
    for number in 0..30 {
        let client = subscribed(&url, number).await?;
        nodes.insert(client.node.clone());
        back.push(client);
    }
    assert!(nodes.contains("node-1"), "the node that came back gets clients again");
    Ok(())
}

async fn sockets_outlive_a_reload_of_the_balancer(broker: Broker) -> Result<()> {
    let mut cluster = Cluster::of(2).shared(broker).haproxy().start().await?;
    let url = cluster.gateway_url();
    let before = subscribed(&url, 0).await?;
    cluster.balancer_mut().reload().await?;
    cluster.balanced().await?;
    let after = subscribed(&url, 1).await?;
    before.publish("news", "over the old process").await?;
    after.publish("news", "over the new one").await?;
    for client in [&before, &after] {
        client.sees("over the old process").await?;
        client.sees("over the new one").await?;
    }
    Ok(())
}

async fn a_first_start_on_an_empty_broker_is_nothing_to_warn_of(broker: Broker) -> Result<()> {
    let cluster = Cluster::of(1).shared(broker).start().await?;
    let output = cluster.output("node-1")?;
    // What it says of this machine's limit of open files concerns no broker.
    let mut of_the_broker = output.lines().filter(|line| !line.contains("the limit of open files"));
    assert!(!of_the_broker.any(|line| line.contains("WARN") || line.contains("ERROR")), "{output}");
    Ok(())
}

/// A client of the channel `news`: native and raw by turns.
async fn subscribed(url: &str, number: usize) -> Result<Client> {
    if !number.is_multiple_of(2) {
        return Client::raw(url, "news").await;
    }
    let client = Client::native(url).await?;
    client.subscribe("news").await?;
    Ok(client)
}

/// Clients of the channel `news` that are connected to a node itself.
async fn on_node(cluster: &Cluster, node: usize, count: usize) -> Result<Vec<Client>> {
    let url = format!("http://{}", cluster.node_address(node));
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(subscribed(&url, number).await?);
    }
    Ok(clients)
}
