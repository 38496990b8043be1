//! What HAProxy, with `deploy/haproxy/`, and the nodes tell each other: the client's address, and the node's state.

use anyhow::{Context, Result, ensure};
use real_brokers::{Redis, Server};
use tests::balancer::{Balancer, Plan};
use tests::certificate::Certificate;
use tests::door::Door;
use tests::nginx::Nginx;
use tests::{Client, Ended, Program, agent};

const NODES: [&str; 2] = ["node-1", "node-2"];
/// The node is restarting.
const RESTARTING: u16 = 1012;

/// Two nodes that trust HAProxy, with agents for it to ask, and HAProxy by path.
struct Site {
    nodes: [Program; 2],
    broker: Redis,
    web: Nginx,
    certificate: Certificate,
    balancer: Balancer,
}

impl Site {
    async fn start(more: &[(&str, &str)], change: impl FnOnce(Plan) -> Plan) -> Result<Self> {
        let broker = Redis::new(1)?;
        broker.start().await?;
        let mut environment = vec![("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1")];
        environment.extend(more);
        let [one, two] = NODES.map(|name| node(name, &broker, &environment));
        let nodes = [one.await?, two.await?];
        let (web, certificate) = (Nginx::web().await?, Certificate::make("site").await?);
        let mut plan = Balancer::by("path").web(web.http()).certificate(&certificate)?;
        plan = plan.servers(NODES.into_iter().zip(nodes.iter().map(|node| node.address)));
        let agents = [agent::of(&nodes[0]).await?, agent::of(&nodes[1]).await?];
        plan = plan.agents(NODES.into_iter().zip(agents));
        let mut balancer = change(plan).start()?;
        balancer.sees_up(&NODES).await?;
        Ok(Self { nodes, broker, web, certificate, balancer })
    }

    fn door(&self) -> Result<Door> {
        Ok(self.balancer.https(&self.certificate)?.called("localhost"))
    }

    /// Clients through these doors until each node has one, by node; what one says, all hear.
    async fn talk(&self, doors: &[Door]) -> Result<[Client; 2]> {
        let mut clients: [Option<Client>; 2] = [None, None];
        for door in doors.iter().cycle().take(20) {
            let client = Client::native_at(door).await?;
            client.subscribe("news").await?;
            let place = NODES.iter().position(|name| *name == client.node).context("no node")?;
            clients[place] = Some(client);
            if let [Some(one), Some(two)] = &clients {
                for speaker in [one, two] {
                    let text = format!("{} {}", speaker.node, fastrand::u32(..));
                    speaker.publish("news", &text).await?;
                    one.sees(&text).await?;
                    two.sees(&text).await?;
                }
                break;
            }
        }
        let [one, two] = clients;
        one.zip(two).map(|(one, two)| [one, two]).context("20 connections, and not one on each node")
    }

    /// Closes a client of each node, and checks whom the nodes' logs name.
    async fn log(&self, clients: [Client; 2], peer: &str) -> Result<()> {
        for (node, client) in self.nodes.iter().zip(clients) {
            client.close().await?;
            let line = node.line(&format!("peer={peer}")).await?;
            ensure!(line.contains("connection closed"), "{line}");
        }
        Ok(())
    }
}

async fn node(name: &str, broker: &Redis, environment: &[(&str, &str)]) -> Result<Program> {
    let agent = [("FANFARE__AGENT__LISTEN", "127.0.0.1:0")];
    let environment: Vec<_> = agent.iter().chain(environment).copied().collect();
    let node = Program::start("fanfare", &["--name", name, "--broker", &broker.inside_url()], &environment).await?;
    agent::until(agent::of(&node).await?, "up").await?;
    Ok(node)
}

#[tokio::test]
async fn the_nodes_log_the_clients_true_address_through_tls_and_proxy_v2() -> Result<()> {
    let proxied = [("FANFARE__HTTP__PROXY_PROTOCOL", "true")];
    let change = |plan: Plan| plan.set("SEND_PROXY", "1").set("PROXY_FROM", "127.0.0.1");
    let site = Site::start(&proxied, change).await?;
    let direct = site.door()?.from("127.0.0.5")?;
    let clients = site.talk(&[direct]).await?;
    site.log(clients, "127.0.0.5:").await?;
    let behind = site.door()?.after("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n");
    let clients = site.talk(&[behind]).await?;
    site.log(clients, "203.0.113.9:4711 ").await?;
    let page = site.door()?.from("127.0.0.5")?.page("/").await?;
    ensure!(page.body.starts_with("an ordinary page for 127.0.0.5 https"), "{} has no PROXY header", page.body);
    Ok(())
}

#[tokio::test]
async fn the_nodes_log_the_clients_true_address_from_x_forwarded_for() -> Result<()> {
    let site = Site::start(&[], |plan| plan).await?;
    let clients = site.talk(&[site.door()?.from("127.0.0.5")?]).await?;
    site.log(clients, "127.0.0.5 ").await
}

#[tokio::test]
async fn a_node_that_stops_is_drained_first_and_gets_clients_again_when_it_is_back() -> Result<()> {
    let mut site = Site::start(&[("FANFARE__TIMING__DRAIN_WAIT", "2s")], |plan| plan).await?;
    let [leaving, staying] = site.talk(&[site.door()?]).await?;
    site.nodes[0].signal("TERM").await?;
    site.balancer.sees("gateway,node-1", "status", |status| status.starts_with("DRAIN")).await?;
    ensure!(leaving.is_open(), "a tunnel of a node that is drained stays until the node ends it");
    for _ in 0..6 {
        let client = Client::native_at(&site.door()?).await?;
        ensure!(client.node == "node-2", "{} is being drained", client.node);
    }
    let ended = leaving.ended().await?;
    ensure!(matches!(ended, Ended::Closed(RESTARTING, _)), "{ended:?}");
    site.nodes[0].ended().await?;
    let log = site.balancer.log();
    let (drained, down) =
        (log.find("Server gateway/node-1 enters drain state"), log.find("Server gateway/node-1 is DOWN"));
    ensure!(drained.is_some() && down.is_none_or(|down| drained < Some(down)), "{log}");
    ensure!(staying.is_open());

    let address = site.nodes[0].address.to_string();
    let agent = agent::of(&site.nodes[0]).await?.to_string();
    let again = [("FANFARE__HTTP__LISTEN", address.as_str()), ("FANFARE__AGENT__LISTEN", agent.as_str())];
    site.nodes[0] = node("node-1", &site.broker, &again).await?;
    site.balancer.sees_up(&NODES).await?;
    site.balancer.sees("gateway,node-1", "status", |status| status == "UP").await?;
    site.talk(&[site.door()?]).await?;
    ensure!(staying.is_open());
    ensure!(site.door()?.page("/").await?.status == 200, "{:?}", site.web);
    Ok(())
}

#[tokio::test]
async fn a_node_of_half_the_weight_gets_half_as_many_clients() -> Result<()> {
    const CLIENTS: usize = 30;
    let site = Site::start(&[], |plan| plan.set("WEIGHT_1", "50")).await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::native_at(&site.door()?).await?);
    }
    let of_one = clients.iter().filter(|client| client.node == "node-1").count();
    // A check may be counted for a moment.
    ensure!((CLIENTS / 3 - 2..=CLIENTS / 3 + 2).contains(&of_one), "{of_one} of {CLIENTS}");
    // The agent's word leaves the weight as it is.
    site.balancer.sees("gateway,node-1", "weight", |weight| weight == "50").await
}

#[tokio::test]
async fn a_full_node_gets_no_more_clients() -> Result<()> {
    const MOST: usize = 20;
    let site = Site::start(&[("FANFARE__HTTP__MAX_CONNECTIONS", &MOST.to_string())], |plan| plan).await?;
    let clients = site.talk(&[site.door()?]).await?;
    // Straight to the node, past HAProxy's own count.
    let url = format!("http://{}", site.nodes[0].address);
    let mut crowd = Vec::new();
    while crowd.len() < MOST - 1 {
        // HAProxy's check may have the last place for a moment.
        crowd.extend(Client::raw(&url, "crowd").await.ok());
    }
    site.balancer.sees("gateway,node-1", "weight", |weight| weight == "0").await?;
    for _ in 0..4 {
        let client = Client::native_at(&site.door()?).await?;
        ensure!(client.node == "node-2", "{} is full", client.node);
    }
    drop(crowd);
    site.balancer.sees("gateway,node-1", "weight", |weight| weight != "0").await?;
    ensure!(clients.iter().all(Client::is_open));
    Ok(())
}
