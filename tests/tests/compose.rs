//! The main job on the cluster that `docker compose up` starts; `tests/compose/run` says where it is.
//!
//! `FANFARE_GATEWAY` and `FANFARE_ECHO` are the two services of its HAProxy, and `FANFARE_STATS` its statistics, as
//! `HOST:PORT`. One test at a time: the last restarts containers, with the same `docker compose` as the one that started
//! them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tests::client::{Client, Ended, Frame};
use tests::crowd::{self, Spread};
use tests::door::Door;
use tests::history::{Outcome, Run};
use tests::{PATIENCE, http};
use tokio::process::Command;
use tokio::time::{Instant, interval, sleep, timeout};

/// Between two looks at a cluster that is still starting.
const GLANCE: Duration = Duration::from_millis(100);

/// Between two publishes while a container restarts.
const PACE: Duration = Duration::from_millis(20);

/// The longest that a container may take to stop and start, and its cluster to find together again.
const RESTART: Duration = Duration::from_secs(90);

/// The code of a node that goes away for good.
const RESTARTING: u16 = 1012;

const CHANNEL: &str = "through-restarts";
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const ECHO_SERVERS: [&str; 2] = ["echo-1", "echo-2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_sent_on_any_of_300_sockets_comes_to_all_exactly_once_and_in_one_order() -> Result<()> {
    everyone_talks().await
}

#[tokio::test]
async fn the_echo_page_has_what_a_person_needs_to_talk() -> Result<()> {
    let echo = service("FANFARE_ECHO")?;
    let page = http::get(echo.trim_start_matches("http://"), "/ws").await?;
    assert_eq!(page.status, 200);
    for id in ["message", "sendBtn", "output"] {
        assert!(page.body.contains(&format!("id=\"{id}\"")), "no #{id} in {}", page.body);
    }
    Ok(())
}

#[tokio::test]
async fn only_this_machine_reaches_the_ports_unless_others_are_let_in() -> Result<()> {
    for variable in ["FANFARE_GATEWAY", "FANFARE_ECHO", "FANFARE_STATS"] {
        let url = service(variable)?;
        ensure!(url.starts_with("http://127.0.0.1:"), "{variable}: {url}");
    }
    let opened = compose(&["config", "--format", "json"], &[("BIND_ADDRESS", "0.0.0.0")]).await?;
    let opened: Value = serde_json::from_slice(&opened)?;
    let ports = opened["services"]["haproxy"]["ports"].as_array().context("no ports")?;
    let open: Vec<_> = ports.iter().filter(|port| port["host_ip"] == "0.0.0.0").map(|port| &port["target"]).collect();
    ensure!(open == [8080, 3000], "{opened}");
    Ok(())
}

#[tokio::test]
async fn what_is_built_here_is_built_once_and_never_pulled() -> Result<()> {
    let config: Value = serde_json::from_slice(&compose(&["config", "--format", "json"], &[]).await?)?;
    let services = config["services"].as_object().context("no services")?;
    let here = services.values().filter(|service| service["image"].as_str().is_some_and(|of| of.ends_with(":local")));
    let here: Vec<_> = here.collect();
    ensure!(here.len() == NODES.len() + ECHO_SERVERS.len(), "{config}");
    ensure!(here.iter().all(|service| service["pull_policy"] == "never"), "{config}");
    ensure!(here.iter().filter(|service| !service["build"].is_null()).count() == 2, "{config}");
    Ok(())
}

#[tokio::test]
async fn the_statistics_show_servers_that_are_there_and_no_others() -> Result<()> {
    let address = service("FANFARE_STATS")?.trim_start_matches("http://").parse()?;
    let password = std::env::var("STATS_PASSWORD").context("STATS_PASSWORD is not set: run tests/compose/run")?;
    let authorization = BASE64_STANDARD.encode(format!("fanfare:{password}"));
    let authorization = format!("Authorization: Basic {authorization}");
    let table = Door::plain(address).ask("/;csv", &["Connection: close", &authorization]).await?;
    ensure!(table.status == 200, "{}", table.head);
    let rows = table.body.lines().skip(1).map(|row| row.split(',').collect::<Vec<_>>());
    let rows: Vec<_> = rows.filter(|row| row.len() > 17).collect();
    let backends: BTreeSet<_> = rows.iter().filter(|row| row[1] == "BACKEND").map(|row| row[0]).collect();
    ensure!(backends == BTreeSet::from(["gateway", "gateway-degraded", "echo", "echo-degraded"]), "{backends:?}");
    let down: Vec<_> = rows.iter().filter(|row| row[17] != "OPEN" && !row[17].starts_with("UP")).collect();
    ensure!(down.is_empty(), "{down:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_restart_of_the_broker_or_of_a_node_loses_nothing() -> Result<()> {
    let gateway = service("FANFARE_GATEWAY")?;
    let clients = all_take_sockets(&NODES, || Client::native(&gateway)).await?;
    for client in &clients {
        client.subscribe(CHANNEL).await?;
    }
    let run = Run::on(CHANNEL);
    let (leaving, staying): (Vec<_>, Vec<_>) = clients.iter().partition(|client| client.node == "node-1");
    let publisher = staying[0];

    let last = publish_through("the broker's", &run, publisher, restart("broker", &["--timeout", "2"])).await?;
    for client in &clients {
        client.sees(&last).await?;
    }
    let last = publish_through("node-1's", &run, publisher, restart("node-1", &[])).await?;
    let mut back = Vec::new();
    for client in &leaving {
        let ended = client.ended().await?;
        assert!(matches!(&ended, Ended::Closed(RESTARTING, _)), "{ended:?}");
        back.push(resumed(&gateway, &last_position(client)?).await?);
    }
    for client in staying.iter().copied().chain(&back) {
        client.sees(&last).await?;
    }
    run.judge(staying.iter().copied(), []).assert_whole();
    run.judge(clients.iter(), &back).assert_lawful();
    for (before, after) in leaving.iter().zip(&back) {
        assert_eq!([texts(before), texts(after)].concat(), texts(publisher), "before and after make the whole");
    }
    everyone_talks().await
}

/// 300 sockets on all servers, as soon as HAProxy has found all of them.
async fn everyone_talks() -> Result<()> {
    let (gateway, echo) = (service("FANFARE_GATEWAY")?, service("FANFARE_ECHO")?);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let raw = all_take_sockets(&NODES, || Client::raw(&gateway, "hello")).await?;
        let echoes = all_take_sockets(&ECHO_SERVERS, || Client::echo(&echo)).await?;
        drop((raw, echoes));
        let spread: Spread = crowd::converse(&gateway, &echo).await?;
        ensure!(spread.values().sum::<usize>() == 300, "{spread:?}");
        if spread.keys().map(String::as_str).eq([&ECHO_SERVERS[..], &NODES[..]].concat()) {
            return Ok(());
        }
        // A check that began while a container was away fails a second later, and takes out for a moment what is back.
        ensure!(Instant::now() < deadline, "not all servers take part: {spread:?}");
    }
}

/// Publishes until something is done and publishing works; gives the last message.
async fn publish_through(
    whose: &str,
    run: &Run,
    publisher: &Client,
    something: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<String> {
    let something = tokio::spawn(something);
    let mut pace = interval(PACE);
    let publishing = async {
        for number in 0.. {
            pace.tick().await;
            let done = something.is_finished();
            let message = format!("{whose} restart, {number}");
            if run.publish(publisher, &message).await? == Outcome::Acknowledged && done {
                return Ok(message);
            }
        }
        bail!("more than there are numbers")
    };
    let last = timeout(RESTART, publishing).await.with_context(|| format!("{whose} restart takes too long"))??;
    something.await??;
    Ok(last)
}

/// A client that has missed nothing since a position.
async fn resumed(gateway: &str, since: &str) -> Result<Client> {
    let deadline = Instant::now() + PATIENCE;
    let client = Client::native(gateway).await?;
    loop {
        let reply = client.ask(json!({ "subscribe": { "channel": CHANNEL, "since": since } })).await?;
        // A node that was restarted within a second may get clients before it has reached the broker.
        if reply["error"]["code"] == "unavailable" && Instant::now() < deadline {
            sleep(GLANCE).await;
            continue;
        }
        ensure!(reply["ok"]["recovered"] == true, "not resumed: {reply}");
        return Ok(client);
    }
}

/// Restarts a container, which has its own time to stop unless another is set.
async fn restart(service: &'static str, options: &'static [&str]) -> Result<()> {
    compose(&[&["restart", service], options].concat(), &[]).await.map(drop)
}

/// What `docker compose` prints.
async fn compose(words: &[&str], environment: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut docker = Command::new("docker");
    docker.current_dir("..").arg("compose").args(words).envs(environment.iter().copied());
    let output = docker.output().await?;
    ensure!(output.status.success(), "docker compose {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn texts(client: &Client) -> Vec<String> {
    let text = |frame| if let Frame::Message { data, .. } = frame { Some(data) } else { None };
    client.frames().into_iter().filter_map(text).collect()
}

fn last_position(client: &Client) -> Result<String> {
    let at = |frame| if let Frame::Message { at, .. } = frame { at } else { None };
    client.frames().into_iter().filter_map(at).next_back().context("no message yet")
}

fn service(variable: &str) -> Result<String> {
    let address = std::env::var(variable).with_context(|| format!("{variable} is not set: run tests/compose/run"))?;
    Ok(format!("http://{address}"))
}

/// Connects until there is a socket on each server; gives them all.
async fn all_take_sockets<F: Future<Output = Result<Client>>>(
    servers: &[&str],
    connect: impl Fn() -> F,
) -> Result<Vec<Client>> {
    let deadline = Instant::now() + PATIENCE;
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let seen: BTreeSet<_> = clients.iter().map(|client| client.node.as_str()).collect();
        if servers.iter().all(|server| seen.contains(server)) {
            return Ok(clients);
        }
        if Instant::now() > deadline {
            bail!("sockets come only to {seen:?}, not to all of {servers:?}");
        }
        // An error means that the balancer has no server yet.
        clients.extend(connect().await.ok());
        sleep(GLANCE).await;
    }
}
