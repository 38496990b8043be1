//! A browser's `EventSource` through HAProxy and nginx: it comes back by itself, and misses nothing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::balancer::Balancer;
use tests::browser::{Browser, Page};
use tests::certificate::Certificate;
use tests::nginx::{Nginx, Site};
use tests::{Broker, Client, Cluster, PATIENCE};

const NODES: usize = 3;
/// Messages before and after each stop and start.
const EACH: usize = 30;

/// A cluster whose nodes stop within a moment.
async fn cluster(nodes: usize, haproxy: bool) -> Result<Cluster> {
    let plan = Cluster::of(nodes).shared(Broker::Redis).set("FANFARE__TIMING__DRAIN_WAIT", "1s");
    let plan = plan.set("FANFARE__TIMING__DRAIN", "1s").set("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1");
    if haproxy { plan.haproxy().start().await } else { plan.start().await }
}

/// Has the page listen to two channels and keep all that comes.
async fn listen(page: &Page) -> Result<()> {
    page.eval(
        "(window.came = [], window.lost = 0, window.opened = 0,
          window.events = new EventSource('/sse?channel=a&channel=b&data=message'),
          events.onopen = () => opened++,
          events.onmessage = (e) => { const { channel, data } = JSON.parse(e.data); came.push([channel, data]); },
          events.addEventListener('lost', () => lost++), true)",
    )
    .await?;
    page.wait_until("opened === 1", PATIENCE).await.map(drop)
}

/// Publishes through a node, and remembers what.
async fn publish(cluster: &Cluster, node: usize, published: &mut Vec<(&'static str, String)>) -> Result<()> {
    let client = Client::native(&format!("http://{}", cluster.node_address(node))).await?;
    for _ in 0..EACH {
        let (channel, text) = (["a", "b"][published.len() % 2], published.len().to_string());
        client.publish(channel, &text).await?;
        published.push((channel, text));
    }
    Ok(())
}

/// Kills each node and stops each node, and starts it again, while messages come.
async fn disturb(cluster: &mut Cluster, nodes: usize, page: &Page) -> Result<()> {
    listen(page).await?;
    let mut published = Vec::new();
    for round in 0..2 * nodes {
        let (victim, other) = (round % nodes + 1, (round + 1) % nodes + 1);
        let name = format!("node-{victim}");
        publish(cluster, other, &mut published).await?;
        if round < nodes {
            cluster.kill_node(&name).await?;
        } else {
            ensure!(cluster.stop_node(&name).await?.success());
        }
        publish(cluster, other, &mut published).await?;
        cluster.start_node(&name).await?;
    }
    publish(cluster, 1, &mut published).await?;
    let all = published.len();
    page.wait_until(&format!("came.length >= {all} || events.readyState === EventSource.CLOSED"), PATIENCE).await?;
    let came = page.eval("came").await?;
    for channel in ["a", "b"] {
        let of: Vec<_> = came.as_array().context("a list")?.iter().filter(|one| one[0] == channel).collect();
        let expected: Vec<Value> =
            published.iter().filter(|(on, _)| *on == channel).map(|(on, text)| json!([on, text])).collect();
        ensure!(of == expected.iter().collect::<Vec<_>>(), "{channel}: {of:?} of {} messages", expected.len());
    }
    ensure!(page.eval("lost").await? == 0, "the page was told of a loss");
    let opened = page.eval("opened").await?;
    ensure!(opened.as_u64().is_some_and(|opened| opened > 1), "it was opened {opened} times");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_source_comes_back_through_haproxy_and_misses_nothing() -> Result<()> {
    let mut cluster = cluster(NODES, true).await?;
    let browser = Browser::start().await?;
    let page = browser.open(&cluster.gateway_url()).await?;
    disturb(&mut cluster, NODES, &page).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_over_http_2() -> Result<()> {
    let mut cluster = cluster(NODES, false).await?;
    let (web, certificate) = (Nginx::web().await?, Certificate::make("sse").await?);
    let names = ["node-1", "node-2", "node-3"];
    let servers = names.into_iter().zip((1..=NODES).map(|number| cluster.node_address(number)));
    let mut balancer = Balancer::by("path").web(web.http()).certificate(&certificate)?.servers(servers).start()?;
    balancer.sees_up(&names).await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("https://localhost:{}/", balancer.https_address().port())).await?;
    disturb(&mut cluster, NODES, &page).await?;
    let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    ensure!(page.eval(protocol).await? == "h2", "the page came over another protocol");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_behind_nginx_which_does_not_hold_events_back() -> Result<()> {
    let mut cluster = cluster(2, false).await?;
    let (web, certificate) = (Nginx::web().await?, Certificate::make("sse-nginx").await?);
    let [one, two] = [1, 2].map(|number| cluster.node_address(number).to_string());
    let site = Site { nodes: [&one, &two], web: &web.http().to_string() };
    let nginx = Nginx::balancer(site, &certificate, None).await?;
    let browser = Browser::start().await?;
    let page = browser.open(&format!("https://localhost:{}/", nginx.https().port())).await?;
    disturb(&mut cluster, 2, &page).await
}
