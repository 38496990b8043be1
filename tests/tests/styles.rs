//! Every style of `deploy/haproxy/`: two nodes and an ordinary web server behind one HAProxy that ends TLS.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tests::balancer::{Balancer, Plan};
use tests::browser::Browser;
use tests::certificate::Certificate;
use tests::door::Door;
use tests::nginx::Nginx;
use tests::wire::ACCEPT;
use tests::{Broker, Client, Cluster, PATIENCE, http};
use tokio::process::Command;
use tokio::time::timeout;

/// What the web server answers to whatever comes to it.
const PAGE: &str = "an ordinary page for ";
const NODES: [&str; 2] = ["node-1", "node-2"];
/// More connections than it takes to have one on each node.
const ENOUGH: usize = 20;

/// What stands behind HAProxy, and HAProxy.
struct Site {
    _nodes: Cluster,
    _web: Nginx,
    certificate: Certificate,
    balancer: Balancer,
}

impl Site {
    async fn by(style: &'static str, change: impl FnOnce(Plan) -> Plan) -> Result<Self> {
        let nodes = Cluster::of(2).shared(Broker::Redis);
        // Else they would not know the names that clients come by, as they come to them without TLS.
        let nodes = nodes.set("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1").start().await?;
        let (web, certificate) = (Nginx::web().await?, Certificate::make("site").await?);
        let servers = NODES.into_iter().zip([nodes.node_address(1), nodes.node_address(2)]);
        let plan = Balancer::by(style).servers(servers).web(web.http()).certificate(&certificate)?;
        let mut balancer = change(plan).start()?;
        balancer.sees_up(&NODES).await?;
        Ok(Self { _nodes: nodes, _web: web, certificate, balancer })
    }

    fn door(&self, host: &str) -> Result<Door> {
        Ok(self.balancer.https(&self.certificate)?.called(host))
    }

    /// What holds for every style; sockets are to be had under `host`.
    async fn serves_sockets(&self, host: &str) -> Result<()> {
        let door = self.door(host)?;
        let answer = door.upgrade("/ws").await?;
        ensure!(answer.status == 101 && answer.header("sec-websocket-accept") == Some(ACCEPT), "{}", answer.head);
        ensure!(answer.header("x-backend").is_some_and(|node| NODES.contains(&node)), "{}", answer.head);
        converse(&door).await?;
        for answer in [
            self.balancer.http().called(host).page("/ws?a=b").await?,
            self.balancer.http().called(host).upgrade("/ws?a=b").await?,
        ] {
            ensure!(answer.status == 308, "{}", answer.head);
            ensure!(answer.header("location") == Some(&format!("https://{host}/ws?a=b")), "{}", answer.head);
        }
        Ok(())
    }

    /// The JavaScript client, from a node.
    async fn serves_the_client(&self, host: &str) -> Result<()> {
        for path in ["/fanfare.js", "/fanfare-members.js", "/fanfare-share.js", "/fanfare.d.ts"] {
            let answer = self.door(host)?.page(path).await?;
            ensure!(answer.status == 200 && answer.body.contains("export"), "{path}: {}", answer.head);
        }
        Ok(())
    }

    /// A page and an upgrade, or one of them, that are not for the nodes.
    async fn serves_pages(&self, host: &str, paths: &[&str], upgrades: &[&str]) -> Result<()> {
        let door = self.door(host)?;
        let forged = [
            "Connection: close",
            "X-Forwarded-For: 203.0.113.9",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: forged.example",
        ];
        let expected = format!("{PAGE}127.0.0.1 https {}\n", self.balancer.https_address().port());
        for path in paths {
            let answer = door.ask(path, &forged).await?;
            ensure!(answer.status == 200 && answer.body == expected, "{door:?}{path}: {} {}", answer.head, answer.body);
        }
        for path in upgrades {
            let answer = door.upgrade(path).await?;
            ensure!(answer.status == 200 && answer.body == expected, "{door:?}{path}: {} {}", answer.head, answer.body);
        }
        Ok(())
    }
}

/// A client on each node; what one says, both hear.
async fn converse(door: &Door) -> Result<()> {
    let mut clients = BTreeMap::new();
    for _ in 0..ENOUGH {
        let client = Client::native_at(door).await?;
        client.subscribe("news").await?;
        clients.insert(client.node.clone(), client);
        if clients.len() == NODES.len() {
            break;
        }
    }
    ensure!(clients.keys().eq(NODES), "{ENOUGH} connections, and nodes {:?}", clients.keys());
    for (node, client) in &clients {
        let text = format!("{node} {}", fastrand::u32(..));
        client.publish("news", &text).await?;
        for listener in clients.values() {
            listener.sees(&text).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn by_path_sockets_go_to_the_nodes_and_everything_else_to_the_web_server() -> Result<()> {
    let site = Site::by("path", |plan| plan).await?;
    site.serves_sockets("localhost").await?;
    let raw = site.door("localhost")?.upgrade("/raw/news").await?;
    ensure!(raw.status == 101, "{}", raw.head);
    site.serves_the_client("localhost").await?;
    site.serves_pages("localhost", &["/", "/wsdl", "/raw", "/metrics", "/ready"], &["/", "/chat"]).await
}

#[tokio::test]
async fn by_host_a_sub_domain_is_the_nodes_and_other_hosts_are_the_web_servers() -> Result<()> {
    let site = Site::by("host", |plan| plan.set("SOCKET_HOST", "ws.example.com")).await?;
    site.serves_sockets("ws.example.com").await?;
    site.serves_sockets("EU.ws.example.com:8443").await?;
    let door = site.door("ws.example.com")?;
    let page = door.page("/").await?;
    ensure!(page.status == 200 && page.body.contains("<title>"), "the page of a node: {}", page.body);
    site.serves_the_client("ws.example.com").await?;
    for path in ["/metrics", "/ready", "/live", "/anything"] {
        ensure!(door.page(path).await?.status == 404, "{path}");
    }
    site.serves_pages("example.com", &["/", "/ws", "/metrics"], &["/ws"]).await?;
    site.serves_pages("aws.example.com", &["/"], &["/ws"]).await
}

#[tokio::test]
async fn a_browser_opens_the_page_and_its_socket_over_one_connection_of_http_2() -> Result<()> {
    let site = Site::by("host", |plan| plan.set("SOCKET_HOST", "localhost")).await?;
    let browser = Browser::start().await?;
    let page =
        browser.open(&format!("https://localhost:{}/?channel=news", site.balancer.https_address().port())).await?;
    page.wait_until("document.querySelector('#channels [data-channel=news][data-state=open]')", PATIENCE).await?;
    let client = Client::native_at(&site.door("localhost")?).await?;
    client.publish("news", "to the browser").await?;
    page.wait_until("document.querySelector('.message').textContent.includes('to the browser')", PATIENCE).await?;
    let log = site.balancer.log();
    println!("{log}");
    ensure!(log.lines().any(|line| line.contains("/ws HTTP/2.0")), "the socket came over HTTP/1.1: {log}");
    Ok(())
}

#[tokio::test]
async fn sockets_that_come_over_one_connection_of_http_2_are_limited_by_address_too() -> Result<()> {
    let site = Site::by("host", |plan| plan.set("SOCKET_HOST", "localhost").set("PER_ADDRESS", "20")).await?;
    let browser = Browser::start().await?;
    let page =
        browser.open(&format!("https://localhost:{}/?channel=news", site.balancer.https_address().port())).await?;
    page.wait_until("document.querySelector('#channels [data-channel=news][data-state=open]')", PATIENCE).await?;
    let opened = "Promise.all(Array.from({ length: 22 }, () => new Promise(done => {
        const socket = new WebSocket(`wss://${location.host}/ws`);
        socket.onopen = () => done(1);
        socket.onerror = () => done(0);
    }))).then(all => all.reduce((sum, one) => sum + one))";
    ensure!(page.eval(opened).await? == 19, "with the page's own they are 20: {}", site.balancer.log());
    let log = site.balancer.log();
    ensure!(log.lines().filter(|line| line.contains(" 429 ") && line.contains("/ws HTTP/2.0")).count() == 3, "{log}");
    let answer = site.door("localhost")?.from("127.0.0.2")?.upgrade("/ws").await?;
    ensure!(answer.status == 101, "other clients are not affected: {}", answer.head);
    Ok(())
}

#[tokio::test]
async fn by_upgrade_who_asks_for_a_socket_gets_a_node_and_who_does_not_a_page() -> Result<()> {
    let site = Site::by("upgrade", |plan| plan).await?;
    site.serves_sockets("localhost").await?;
    let operators = site.door("localhost")?.upgrade("/metrics").await?;
    ensure!(operators.status == 404, "{}", operators.head);
    let other = site.door("localhost")?.ask("/ws", &["Connection: Upgrade, close", "Upgrade: h2c"]).await?;
    ensure!(other.body.starts_with(PAGE), "{}", other.head);
    site.serves_pages("localhost", &["/", "/ws", "/metrics"], &[]).await
}

#[tokio::test]
async fn by_upgrade_and_host_it_takes_both_to_get_a_node() -> Result<()> {
    let site = Site::by("upgrade-and-host", |plan| plan.set("SOCKET_HOST", "ws.example.com")).await?;
    site.serves_sockets("ws.example.com").await?;
    site.serves_pages("ws.example.com", &["/", "/ws"], &[]).await?;
    site.serves_pages("example.com", &["/", "/ws"], &["/ws"]).await
}

#[tokio::test]
async fn what_a_tcp_balancer_in_front_says_of_a_client_is_believed_and_a_strangers_word_is_not() -> Result<()> {
    let site =
        Site::by("path", |plan| plan.set("PROXY_FROM", "127.0.0.1 192.0.2.0/24").set("PER_ADDRESS", "5")).await?;
    let door = site.door("localhost")?;
    let behind = |client: &str| door.after(&format!("PROXY TCP4 {client} 192.0.2.1 4000 443\r\n"));
    for number in 1..=6 {
        let page = behind("203.0.113.9").page("/").await;
        match number {
            ..=5 => ensure!(page?.body == format!("{PAGE}203.0.113.9 https 443\n"), "{number}"),
            _ => ensure!(page.is_err(), "the address has begun as many connections as it may"),
        }
    }
    let other = behind("203.0.113.10").page("/").await?;
    ensure!(other.body == format!("{PAGE}203.0.113.10 https 443\n"), "{}", other.body);
    let socket = behind("203.0.113.11").upgrade("/ws").await?;
    ensure!(socket.status == 101, "{}", socket.head);
    ensure!(door.page("/").await.is_err(), "the balancer in front must send a header");
    let stranger = door.from("127.0.0.2")?;
    let page = stranger.page("/").await?;
    ensure!(page.body.starts_with(&format!("{PAGE}127.0.0.2 https ")), "{}", page.body);
    let forged = stranger.after("PROXY TCP4 203.0.113.9 192.0.2.1 4000 443\r\n").page("/").await;
    ensure!(forged.is_err(), "a stranger's header is no TLS: {forged:?}");
    Ok(())
}

#[tokio::test]
async fn tls_is_1_2_or_1_3_with_forward_secrecy() -> Result<()> {
    let site = Site::by("path", |plan| plan).await?;
    for (options, expected) in [
        (&["-tls1_3"][..], Some("TLSv1.3")),
        (&["-tls1_2"], Some("TLSv1.2")),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], None),
        (&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], None),
        (&["-alpn", "h2"], Some("ALPN protocol: h2")),
        (&["-alpn", "http/1.1"], Some("ALPN protocol: http/1.1")),
    ] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &site.balancer.https_address().to_string()]).args(options);
        openssl.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, openssl.output()).await.context("openssl does not end")??;
        let said = String::from_utf8_lossy(&output.stdout);
        match expected {
            Some(expected) => ensure!(said.contains(expected) && said.contains("BEGIN CERT"), "{options:?}: {said}"),
            None => ensure!(!said.contains("BEGIN CERT"), "{options:?}: {said}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_statistics_want_their_password_and_without_one_there_are_none() -> Result<()> {
    let site = Site::by("path", |plan| plan).await?;
    let statistics = site.balancer.statistics();
    ensure!(http::get(statistics, "/").await?.status == 401);
    ensure!(http::get(statistics, "/;csv").await?.status == 401);
    ensure!(http::get(statistics, "/up").await?.status == 200, "whether a node lives is no secret");
    ensure!(site.balancer.table().await?.contains("gateway,node-1,"));
    let open = Balancer::by("path").certificate(&site.certificate)?.set("STATS_PASSWORD", "").start()?;
    http::until(open.statistics(), "/up", |answer| answer.status == 503).await?;
    ensure!(http::get(open.statistics(), "/").await?.status == 503);
    Ok(())
}

#[tokio::test]
async fn a_reload_takes_a_new_certificate_and_leaves_tunnels_alone_and_a_bad_one_changes_nothing() -> Result<()> {
    let mut site = Site::by("path", Plan::master).await?;
    let old = Client::native_at(&site.door("localhost")?).await?;
    old.subscribe("news").await?;

    let (first, next) = (Certificate::make("first").await?, Certificate::make("next").await?);
    first.become_a(&site.certificate)?;
    site.certificate.become_a(&next)?;
    site.certificate.both()?;
    site.balancer.reload().await?;
    site.balancer.logs("Loading success", 2).await?;
    site.balancer.sees_up(&NODES).await?;
    let new = Client::native_at(&site.door("localhost")?).await?;
    ensure!(site.balancer.https(&first)?.called("localhost").page("/").await.is_err(), "the old certificate is gone");
    old.publish("news", "from the old process").await?;
    new.subscribe("news").await?;
    new.publish("news", "from the new one").await?;
    old.sees("from the new one").await?;

    let both = site.certificate.both()?;
    std::fs::write(&both, "no certificate")?;
    site.balancer.reload().await?;
    site.balancer.logs("Loading failure", 1).await?;
    let newest = Client::native_at(&site.door("localhost")?).await?;
    newest.publish("news", "and still").await?;
    for client in [&old, &new] {
        client.sees("and still").await?;
    }
    site.balancer.stop().await?;
    for client in [&old, &new, &newest] {
        client.ended().await?;
    }
    Ok(())
}
