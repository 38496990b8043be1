//! A scale-out under load: a third node joins two full ones behind HAProxy, and `fanfare shed` moves clients to it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::audience::Audience;
use tests::{Cluster, Ended, Returning};
use tokio::sync::watch;

use super::{MOVED, command, node, printed};

const SOCKETS: usize = 6000;
const CHANNELS: usize = 200;
/// Between two messages: 100 per second, each for 30 sockets.
const PAUSE: Duration = Duration::from_millis(10);
/// What moves to the third node, and how fast.
const MOVES: usize = 2000;
const PACE: usize = 200;
/// How many clients the workers may be ahead of the pace: one for each worker of the two full nodes.
const AHEAD: usize = 16;
/// A part of a node's share.
const PERCENT: f64 = 5.0;
/// How much longer than planned it may take on a busy machine.
const LATE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_scale_out_clients_move_to_the_new_node_at_the_given_pace_and_miss_nothing() -> Result<()> {
    let plan = Cluster::of(3).redis().agents().apis().haproxy().set("FANFARE__TIMING__DRAIN_WAIT", "off");
    let mut cluster = plan.set("FANFARE__HTTP__TRUSTED_PROXIES", "127.0.0.1").start().await?;
    ensure!(cluster.stop_node("node-3").await?.success());
    cluster.balanced().await?;
    let url = cluster.gateway_url();
    let audience = Audience::connect(&url, SOCKETS, CHANNELS).await?;
    cluster.start_node("node-3").await?;
    let before = counts(&cluster).await?;
    println!("before: {before:?}");
    ensure!(before[2] == 0, "{before:?}");

    let (stop, stopped) = watch::channel(false);
    let begin = Instant::now();
    let shed = async {
        let output = command(&cluster, &["--pace", &PACE.to_string()]).await;
        stop.send_replace(true);
        output
    };
    let (published, output) = tokio::join!(audience.publish(PAUSE, stopped), shed);
    let ((published, unanswered), output) = (published?, output?);
    let output = printed(&output)?;
    println!("{output}{published} messages, {unanswered} with no answer, in {:?}", begin.elapsed());
    ensure!(output.contains("clients move, in about 10 s") && output.contains("clients have moved."), "{output}");

    let report = audience.judge(&url).await?;
    println!("{report}");
    report.assert_whole();
    ensure!(report.delivered >= report.acked * (SOCKETS / CHANNELS), "{report}");

    let after = counts(&cluster).await?;
    println!("after: {after:?}");
    let (least, most) = (after.iter().min().context("three")?, after.iter().max().context("three")?);
    ensure!(*most as f64 <= *least as f64 * (1.0 + PERCENT / 100.0), "{after:?}");
    ensure!(audience.sockets.iter().all(|socket| socket.connections() <= 2), "a client was moved twice");
    moved_with_a_hint(&audience.sockets)?;
    kept_the_pace(&audience.sockets, begin)?;
    cluster.well();
    Ok(())
}

/// How many clients each node has.
async fn counts(cluster: &Cluster) -> Result<[u64; 3]> {
    let mut counts = [0; 3];
    for (number, count) in (1..).zip(&mut counts) {
        let node = node(&cluster.api(number)?, &format!("node-{number}")).await?.context("it knows itself")?;
        *count = node["connections"].as_u64().context("a number")?;
    }
    Ok(counts)
}

/// Checks that each client that was closed got the code, after a hint.
fn moved_with_a_hint(sockets: &[Returning]) -> Result<()> {
    let ends: Vec<_> = sockets.iter().flat_map(Returning::ends).collect();
    let odd = ends.iter().find(|end| !matches!(end, Ended::Closed(MOVED, _)));
    ensure!(odd.is_none(), "{odd:?}");
    ensure!(ends.len().abs_diff(MOVES) <= MOVES / 20, "{} were moved", ends.len());
    for socket in sockets.iter().filter(|socket| socket.connections() > 1) {
        ensure!(socket.first()?.hint()? < 1000, "a client is asked to wait for a moment");
    }
    Ok(())
}

/// Checks that no client came back sooner than the pace allows, and the last one not much later.
fn kept_the_pace(sockets: &[Returning], begin: Instant) -> Result<()> {
    let mut arrivals: Vec<_> = sockets.iter().flat_map(Returning::arrivals).filter(|(at, _)| *at > begin).collect();
    arrivals.sort();
    let since = |place: usize| arrivals[place].0 - begin;
    let second = arrivals.windows(PACE + 1).map(|some| some[PACE].0 - some[0].0).min();
    println!(
        "{} came back from {:?} to {:?}, {PACE} of them within {second:?}",
        arrivals.len(),
        since(0),
        since(arrivals.len() - 1)
    );
    for place in AHEAD..arrivals.len() {
        let earliest = Duration::from_secs_f64((place - AHEAD) as f64 / PACE as f64);
        ensure!(since(place) >= earliest, "client {place} came after {:?}, and not after {earliest:?}", since(place));
    }
    let planned = Duration::from_secs((arrivals.len() / PACE) as u64);
    ensure!(since(arrivals.len() - 1) < planned + LATE, "{:?}", since(arrivals.len() - 1));
    let elsewhere = arrivals.iter().filter(|(_, node)| node != "node-3").count();
    ensure!(elsewhere <= MOVES / 20, "{elsewhere} went to a full node");
    Ok(())
}
