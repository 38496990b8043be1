//! A new release under load: three nodes behind HAProxy stop and start one by one, and no client misses a message.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::audience::Audience;
use tests::{Cluster, Ended, Returning};
use tokio::sync::watch;

const SOCKETS: usize = 3000;
const CHANNELS: usize = 100;
/// Between two messages: 200 per second.
const PAUSE: Duration = Duration::from_millis(5);
/// Connections that a node takes per second.
const ACCEPT_RATE: usize = 500;
const SECOND: Duration = Duration::from_secs(1);
/// The node is restarting.
const RESTARTING: u16 = 1012;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_no_message_and_floods_no_node() -> Result<()> {
    let plan = Cluster::of(3).redis().agents().haproxy().set("FANFARE__TIMING__DRAIN_WAIT", "1s");
    let plan = plan
        .set("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1")
        .set("FANFARE__TIMING__DRAIN", "4s")
        .set("FANFARE__HTTP__ACCEPT_RATE", &ACCEPT_RATE.to_string());
    let mut cluster = plan.start().await?;
    let url = cluster.gateway_url();
    let audience = Audience::connect(&url, SOCKETS, CHANNELS).await?;

    let (stop, stopped) = watch::channel(false);
    let begin = Instant::now();
    let restarts = async {
        let restarted = restart_all(&mut cluster).await;
        stop.send_replace(true);
        restarted
    };
    let (published, restarted) = tokio::join!(audience.publish(PAUSE, stopped), restarts);
    let (published, unknown) = published?;
    restarted?;
    println!("{published} messages, {unknown} with no answer, in {:?}", begin.elapsed());
    ensure!(published > 1000, "{published} messages");

    let report = audience.judge(&url).await?;
    println!("{report}");
    report.assert_whole();
    ensure!(report.delivered >= report.acked * (SOCKETS / CHANNELS), "{report}");

    let sockets = &audience.sockets;
    let ends: Vec<_> = sockets.iter().flat_map(Returning::ends).collect();
    println!("{} connections ended", ends.len());
    ensure!(ends.len() >= SOCKETS, "every node had its clients, but only {} left", ends.len());
    let odd = ends.iter().find(|end| !matches!(end, Ended::Closed(RESTARTING, _)));
    ensure!(odd.is_none(), "{odd:?}");
    ensure!(sockets.iter().all(|socket| socket.client().is_ok_and(|client| client.is_open())), "not all are back");

    let arrivals: Vec<_> = sockets.iter().flat_map(Returning::arrivals).filter(|(at, _)| *at >= begin).collect();
    let busiest = busiest_second(&arrivals);
    println!("the most clients that a node took within a second: {busiest:?}");
    // A second's worth may have been saved up when the second begins.
    ensure!(busiest.values().all(|most| *most <= 2 * ACCEPT_RATE), "{busiest:?}");
    cluster.well();
    Ok(())
}

/// Restarts each node, as soon as the one before serves again.
async fn restart_all(cluster: &mut Cluster) -> Result<()> {
    for number in 1..=3 {
        let name = format!("node-{number}");
        let begin = Instant::now();
        let status = cluster.stop_node(&name).await?;
        let took = begin.elapsed();
        ensure!(status.code() == Some(0), "{name}: {status}\n{}", cluster.output(&name)?);
        let drains = format!("Server gateway/{name} enters drain state");
        let log = cluster.balancer().log();
        ensure!(log.contains(&drains), "HAProxy did not hear of {name}:\n{log}");
        cluster.start_node(&name).await?;
        let down = format!("Server gateway/{name} is DOWN, reason");
        let log = cluster.balancer().log();
        let early = log.lines().find(|line| line.contains(&down) && !line.contains(" 0 sessions active"));
        ensure!(early.is_none(), "{name} was down before it drained: {early:?}");
        println!("{name} ended after {took:?} and was back after {:?}", begin.elapsed());
    }
    Ok(())
}

/// The most that came to each node within a second.
fn busiest_second(arrivals: &[(Instant, String)]) -> BTreeMap<&str, usize> {
    let mut by_node: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    arrivals.iter().for_each(|(at, node)| by_node.entry(node).or_default().push(*at));
    let busiest = |mut times: Vec<Instant>| {
        times.sort();
        let within = |begin: &Instant| times.iter().filter(|at| **at >= *begin && **at < *begin + SECOND).count();
        times.iter().map(within).max().unwrap_or_default()
    };
    by_node.into_iter().map(|(node, times)| (node, busiest(times))).collect()
}
