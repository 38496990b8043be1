//! The main job on the cluster that `docker compose up` starts; `tests/compose/run` says where it is.
//!
//! `FANFARE_GATEWAY` and `FANFARE_ECHO` are the two services of its HAProxy, as `HOST:PORT`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tests::{Client, PATIENCE, crowd, http};
use tokio::time::{Instant, sleep};

/// Between two looks at a cluster that is still starting.
const GLANCE: Duration = Duration::from_millis(100);

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const ECHO_SERVERS: [&str; 2] = ["echo-1", "echo-2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_sent_on_any_of_300_sockets_comes_to_all_exactly_once_and_in_one_order() -> Result<()> {
    let (gateway, echo) = (service("FANFARE_GATEWAY")?, service("FANFARE_ECHO")?);
    // A container that was just restarted is in use once HAProxy has found it.
    let raw = all_take_sockets(&NODES, || Client::raw(&gateway, "hello")).await?;
    let echoes = all_take_sockets(&ECHO_SERVERS, || Client::echo(&echo)).await?;
    drop((raw, echoes));
    let spread = crowd::converse(&gateway, &echo).await?;
    let servers: Vec<_> = spread.keys().map(String::as_str).collect();
    assert_eq!(servers, [&ECHO_SERVERS[..], &NODES[..]].concat());
    assert_eq!(spread.values().sum::<usize>(), 300);
    Ok(())
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
