//! A client's address: proxies are believed in trusted networks only, and each address has its share of connections.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tests::tokens::OPEN;
use tests::tunnel::Tunnel;
use tests::wire::{self, Frame, Head, Wire};
use tests::{PATIENCE, Program, agent, http};
use tokio::time::{interval, timeout};

/// The only trusted proxy: others of this machine's addresses are strangers.
const PROXY: &str = "127.0.0.2";
const STRANGER: &str = "127.0.0.3";

/// The pause of a client that was turned away.
const AGAIN: Duration = Duration::from_millis(100);

/// A header of version 2, with the addresses that follow its command and family.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("it is short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, rest].concat()
}

/// 203.0.113.9:8080 to 10.0.0.1:80.
const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x1F, 0x90, 0, 80];
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 8080 80\r\n";

/// A node whose clients come through the proxy.
async fn behind_proxy(trusted: &str) -> Result<Program> {
    let environment = [
        ("FANFARE__HTTP__PROXY_PROTOCOL", "true"),
        ("FANFARE__HTTP__TRUSTED_PROXIES", trusted),
        ("FANFARE__HTTP__HEAD_TIME", "500ms"),
        ("FANFARE__AGENT__LISTEN", "127.0.0.1:0"),
    ];
    let node = Program::start("fanfare", &[], &environment).await?;
    agent::until(agent::of(&node).await?, "up").await?;
    Ok(node)
}

/// A node that believes the headers of the proxy.
async fn believing(more: &[(&str, &str)]) -> Result<Program> {
    let environment: Vec<_> = [("FANFARE__HTTP__TRUSTED_PROXIES", PROXY)].iter().chain(more).copied().collect();
    wire::serve("fanfare", &environment).await
}

/// Closes, and checks under which address the node has logged the connection.
async fn logged_as(node: &Program, mut wire: Wire, client: &str) -> Result<()> {
    let before = node.output().matches("connection closed").count();
    wire.send(Frame::close(1000, "").bytes()).await?;
    ensure!(wire.end().await?.code == Some(1000));
    // Without this the node would wait for our side of the end.
    drop(wire);
    let line = node.nth_line("connection closed", before).await?;
    ensure!(line.contains(&format!("peer={client} ")), "{client} is not in {line}");
    Ok(())
}

#[tokio::test]
async fn the_proxy_header_names_the_client_and_what_follows_is_whole() -> Result<()> {
    let node = behind_proxy(PROXY).await?;
    let v6 = [&[0x20, 1, 0x0D, 0xB8][..], &[0; 11], &[9], &[0; 16], &[0x1F, 0x90, 0, 80]].concat();
    let local = b"PROXY UNKNOWN and whatever else\r\n".to_vec();
    for (header, client) in [
        (V1.to_vec(), "203.0.113.9:8080"),
        (b"PROXY TCP6 2001:db8::9 ::1 8080 80\r\n".to_vec(), "[2001:db8::9]:8080"),
        (v2(0x21, 0x11, &V4), "203.0.113.9:8080"),
        (v2(0x21, 0x11, &[&V4[..], &[0x04; 700]].concat()), "203.0.113.9:8080"),
        (v2(0x21, 0x31, &[b'/'; 216]), ""),
        (v2(0x21, 0x21, &v6), "[2001:db8::9]:8080"),
        (v2(0x20, 0x00, &[]), ""),
        (v2(0x20, 0x11, &V4), ""),
        (local, ""),
    ] {
        let text = Frame::text("at once").bytes();
        let all = [&header[..], &Head::upgrade("/raw/news").bytes(), &text].concat();
        // In one segment, in single bytes around the header's end, and with a pause behind it.
        for pieces in
            [vec![all.len()], [vec![1; header.len() + 4], vec![all.len()]].concat(), vec![header.len(), all.len()]]
        {
            let mut wire = Wire::from(PROXY, node.address).await?;
            let own = wire.local().to_string();
            let mut rest = &all[..];
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                wire.send(now).await?;
                tokio::task::yield_now().await;
                rest = later;
            }
            ensure!(wire.response().await?.status == 101);
            ensure!(wire.message().await? == "at once");
            logged_as(&node, wire, if client.is_empty() { &own } else { client }).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_with_a_forbidden_proxy_header_or_without_a_required_one_is_closed_without_an_answer() -> Result<()>
{
    let node = behind_proxy(PROXY).await?;
    let request = Head::upgrade("/ws").bytes();
    let good = [V1, &request].concat();
    for (source, bytes) in [
        (STRANGER, &good[..]),
        (STRANGER, &request),
        (PROXY, &request),
        (PROXY, b"PROXY TCP4 203.0.113.9 10.0.0.1 8080\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (PROXY, &[&v2(0x21, 0x11, &V4[..8])[..], &request].concat()),
        (PROXY, &[&v2(0x22, 0x11, &V4)[..], &request].concat()),
        (PROXY, b"PROXY TCP4 "),
        (PROXY, b""),
    ] {
        let mut wire = Wire::from(source, node.address).await?;
        // It may be closed before all is sent.
        let _ = wire.send(bytes).await;
        ensure!(
            wire.next_response().await?.is_none(),
            "{source} has an answer to {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    let mut slow = Wire::from(PROXY, node.address).await?;
    let _ = slow.trickle(V1, 1, Duration::from_millis(50)).await;
    ensure!(slow.next_response().await?.is_none(), "a header that dribbles in is late");

    let mut wire = Wire::from(PROXY, node.address).await?;
    wire.send([V1, &Head::get("/metrics").bytes()].concat()).await?;
    let page = wire.response().await?.body;
    ensure!(page.contains("fanfare_connections_refused_total{reason=\"proxy_header\"} 9"), "{page}");
    let output = node.output();
    let warned = output.lines().filter(|line| line.contains("WARN") && line.contains("turned away")).count();
    ensure!(warned == 1 && node.output().contains("`http.trusted_proxies`"), "{}", node.output());
    Ok(())
}

#[tokio::test]
async fn haproxy_says_who_the_client_is_in_both_versions() -> Result<()> {
    let node = behind_proxy("127.0.0.1").await?;
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"] {
        let tunnel = Tunnel::start(node.address, options).await?;
        let wire = Wire::from(STRANGER, tunnel.address()).await?.upgraded("/raw/news").await?;
        let own = wire.local().to_string();
        logged_as(&node, wire, &own).await.context(options)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_client_behind_a_trusted_proxy_is_its_right_most_stranger_and_no_forger_is_believed() -> Result<()> {
    let node = believing(&[]).await?;
    for (source, lines, client) in [
        (STRANGER, &["203.0.113.9"][..], None),
        (STRANGER, &["127.0.0.2"], None),
        (PROXY, &[], None),
        (PROXY, &["203.0.113.9"], Some("203.0.113.9")),
        (PROXY, &["198.51.100.1, 203.0.113.9"], Some("203.0.113.9")),
        (PROXY, &["198.51.100.1", "203.0.113.9, 127.0.0.2"], Some("203.0.113.9")),
        (PROXY, &["[2001:db8::9]:4711"], Some("[2001:db8::9]:4711")),
        (PROXY, &["203.0.113.9, nonsense"], None),
        (PROXY, &["203.0.113.9 peer=198.51.100.1"], None),
    ] {
        let mut wire = Wire::from(source, node.address).await?;
        let own = wire.local().to_string();
        let head = lines.iter().fold(Head::upgrade("/ws"), |head, line| head.with("X-Forwarded-For", line));
        wire.send(head.bytes()).await?;
        ensure!(wire.response().await?.status == 101);
        logged_as(&node, wire, client.unwrap_or(&own)).await.with_context(|| format!("{lines:?} from {source}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_and_more_get_429_with_what_to_change() -> Result<()> {
    let node = believing(&[("FANFARE__LIMITS__CONNECTIONS_PER_ADDRESS", "3")]).await?;
    let refused = async |source: &str, forwarded: Option<&str>| -> Result<bool> {
        let mut wire = Wire::from(source, node.address).await?;
        let head = forwarded.iter().fold(Head::upgrade("/ws"), |head, line| head.with("X-Forwarded-For", line));
        wire.send(head.bytes()).await?;
        let response = wire.response().await?;
        if response.status == 429 {
            let seconds: u32 = response.header("retry-after").context("Retry-After")?.parse()?;
            ensure!((1..=60).contains(&seconds) && response.header("connection") == Some("close"), "{response:?}");
            let address = if source == PROXY { "203.0.113.9" } else { source };
            let text = format!(
                "{address} has 3 connections, which is limits.connections_per_address: close some, or retry later; if it is a \
                 balancer, the node needs http.trusted_proxies = [\"{address}\"]; see docs/errors.md#429\n"
            );
            ensure!(response.body == text, "{}", response.body);
            ensure!(wire.next_response().await?.is_none(), "it is closed");
        }
        Ok(response.status == 429)
    };
    let open = async |source: &str, forwarded: &str| -> Result<Wire> {
        let mut wire = Wire::from(source, node.address).await?;
        wire.send(Head::upgrade("/ws").with("X-Forwarded-For", forwarded).bytes()).await?;
        ensure!(wire.response().await?.status == 101);
        Ok(wire)
    };
    // What strangers say of themselves changes nothing.
    let mut direct = Vec::new();
    for number in 0..3 {
        direct.push(open(STRANGER, &format!("203.0.113.{number}")).await?);
    }
    ensure!(refused(STRANGER, Some("203.0.113.77")).await?);
    ensure!(!refused("127.0.0.4", None).await?, "another address is served");
    let mut check = Wire::from(STRANGER, node.address).await?;
    check.send(Head::get("/ready").bytes()).await?;
    ensure!(check.response().await?.status == 200, "a health check is served");
    drop(check);

    let mut forwarded = Vec::new();
    for _ in 0..3 {
        forwarded.push(open(PROXY, "203.0.113.9").await?);
    }
    ensure!(refused(PROXY, Some("198.51.100.1, 203.0.113.9")).await?);
    ensure!(!refused(PROXY, Some("203.0.113.10")).await?, "another client of the same proxy is served");

    // A client that leaves makes room.
    let direct = direct.pop().context("three")?;
    let own = direct.local().to_string();
    for (mut wire, client) in [(direct, own.as_str()), (forwarded.pop().context("three")?, "203.0.113.9")] {
        wire.send(Frame::close(1000, "").bytes()).await?;
        wire.end().await?;
        node.line(&format!("peer={client} ")).await?;
    }
    // The line in the log comes a moment before the room.
    let mut again = interval(AGAIN);
    let mut turned_away = 2;
    for (source, forwarded) in [(PROXY, Some("203.0.113.9")), (STRANGER, None)] {
        let begin = Instant::now();
        while refused(source, forwarded).await? {
            ensure!(begin.elapsed() < PATIENCE, "there is no room for {source}");
            turned_away += 1;
            again.tick().await;
        }
    }
    let page = wire::get(node.address, "/metrics").await?.body;
    let counted = format!("fanfare_connections_refused_total{{reason=\"address\"}} {turned_away}\n");
    ensure!(page.contains(&counted), "{page}");
    Ok(())
}

#[tokio::test]
async fn clients_that_all_come_back_at_once_are_accepted_at_a_rate_and_the_rest_get_retry_after() -> Result<()> {
    const CLIENTS: usize = 300;
    const RATE: usize = 100;
    let node = wire::serve("fanfare", &[("FANFARE__HTTP__ACCEPT_RATE", &RATE.to_string())]).await?;
    let (begin, refused) = (Instant::now(), Cell::new(0));
    let client = async || {
        let mut again = interval(AGAIN);
        loop {
            again.tick().await;
            let mut wire = Wire::connect(node.address).await?;
            // It may be turned away before all is sent.
            let _ = wire.send(Head::upgrade("/ws").bytes()).await;
            let response = wire.response().await?;
            if response.status == 101 {
                return anyhow::Ok(wire);
            }
            ensure!(response.status == 503 && response.header("retry-after").is_some(), "{response:?}");
            refused.set(refused.get() + 1);
        }
    };
    let open = timeout(PATIENCE, try_join_all((0..CLIENTS).map(|_| client()))).await??;
    let (took, refused) = (begin.elapsed(), refused.get());
    println!("{} clients within {took:?}, after {refused} refusals", open.len());
    // The first hundred may come at once.
    let least = Duration::from_secs(((CLIENTS - RATE) / RATE) as u64);
    ensure!(took >= least && refused > 0, "{CLIENTS} clients within {took:?}, after {refused} refusals");
    let page = http::until(node.address, "/metrics", |answer| answer.status == 200).await?.body;
    let counted =
        page.lines().find_map(|line| line.strip_prefix("fanfare_connections_refused_total{reason=\"rate\"} "));
    ensure!(counted.context("no count")?.parse::<usize>()? >= refused, "{page}");
    Ok(())
}

#[tokio::test]
async fn a_trusted_proxy_s_health_checks_are_answered_however_many_clients_it_brings() -> Result<()> {
    const CLIENTS: usize = 300;
    let node = believing(&[("FANFARE__HTTP__ACCEPT_RATE", "10")]).await?;
    let ask = async |head: Head| {
        let mut wire = Wire::from(PROXY, node.address).await?;
        wire.send(head.bytes()).await?;
        anyhow::Ok(wire.response().await?)
    };
    let upgrades = try_join_all((0..CLIENTS).map(|_| ask(Head::upgrade("/ws"))));
    let checks = try_join_all((0..CLIENTS).map(|_| ask(Head::get("/ready"))));
    let (upgrades, checks) = tokio::try_join!(upgrades, checks)?;
    ensure!(checks.iter().all(|answer| answer.status == 200), "{checks:?}");
    let (taken, refused): (Vec<_>, Vec<_>) = upgrades.iter().partition(|answer| answer.status == 101);
    ensure!(!taken.is_empty() && refused.len() > CLIENTS / 2, "{} were taken", taken.len());
    ensure!(refused.iter().all(|answer| answer.status == 503 && answer.header("retry-after").is_some()), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_page_that_anyone_could_have_changed_does_not_reach_a_socket_over_tls() -> Result<()> {
    let node = believing(&[]).await?;
    for (source, scheme, origin, status) in [
        (PROXY, Some("https"), "https://localhost", 101),
        (PROXY, Some("https"), "http://localhost", 403),
        (PROXY, Some("http"), "http://localhost", 101),
        (PROXY, Some("http"), "https://localhost", 101), // behind another that ended TLS
        (PROXY, None, "http://localhost", 101),
        (STRANGER, Some("https"), "http://localhost", 101),
    ] {
        let mut wire = Wire::from(source, node.address).await?;
        let head = Head::upgrade("/ws").with("Origin", origin);
        wire.send(scheme.iter().fold(head, |head, scheme| head.with("X-Forwarded-Proto", scheme)).bytes()).await?;
        assert_eq!(wire.response().await?.status, status, "{origin} over {scheme:?} from {source}");
    }
    Ok(())
}

#[tokio::test]
async fn an_ipv4_client_of_a_listener_for_both_families_is_called_by_its_ipv4_address() -> Result<()> {
    let node = Program::start("fanfare", &["--listen", "[::]:0"], &[OPEN]).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], node.address.port()));
    wire::ready(address).await?;
    let wire = Wire::open(address, "/ws").await?;
    let own = wire.local().to_string();
    logged_as(&node, wire, &own).await
}
