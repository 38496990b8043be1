//! Floods of connections: HAProxy's stick table refuses one address, and other clients are not affected.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::balancer::Balancer;
use tests::door::Door;
use tests::{Broker, Client, Cluster};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// What `deploy/haproxy/base.cfg` lets an address begin in 10 s by default.
const PER_ADDRESS: usize = 1000;
/// Connections of the flood: for two seconds, 2,000 a second.
const FLOOD: usize = 4000;
/// So many of them at a time.
const WAVE: usize = 20;
/// The time between two waves.
const PACE: Duration = Duration::from_millis(10);
/// The time between two of the others, so that they stay far below the limit.
const OTHERS: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_one_address_is_limited_and_others_are_served() -> Result<()> {
    let cluster = Cluster::of(2).shared(Broker::Redis).start().await?;
    let servers = [("node-1", cluster.node_address(1)), ("node-2", cluster.node_address(2))];
    let plan = Balancer::by("port").servers(servers).set("PER_ADDRESS", &PER_ADDRESS.to_string());
    let mut balancer = plan.start()?;
    balancer.sees_up(&["node-1", "node-2"]).await?;
    let door = Door::plain(balancer.gateway());
    let listener = Client::native_at(&door.from("127.0.0.4")?).await?;
    listener.subscribe("news").await?;

    let begin = Instant::now();
    let mut flood = tokio::spawn(flood(door.from("127.0.0.2")?));
    let (other, mut others, mut pace) = (door.from("127.0.0.3")?, Vec::new(), interval(OTHERS));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = async |number| {
        pace.tick().await;
        visit(&other, &listener, number).await
    };
    let (served, refused) = loop {
        tokio::select! {
            ended = &mut flood => break ended??,
            slowest = next(others.len()) => others.push(slowest?),
        }
    };
    let took = begin.elapsed();
    let slowest = others.iter().max().copied().unwrap_or_default();
    println!(
        "{served} served and {refused} refused in {took:.1?}; {} others, the slowest in {slowest:.0?}",
        others.len()
    );
    // The table's window slides.
    let most = PER_ADDRESS + PER_ADDRESS * took.as_millis() as usize / 10_000 + PER_ADDRESS / 10;
    ensure!(served >= PER_ADDRESS && served <= most, "{served} of the flood were served, not {PER_ADDRESS} to {most}");
    ensure!(served + refused == FLOOD);
    ensure!(!others.is_empty(), "no other was served");
    ensure!(slowest < Duration::from_secs(2), "others had to wait for {slowest:?}");
    Ok(())
}

/// Another client: connects, says something and hears it, which the listener also does.
async fn visit(door: &Door, listener: &Client, number: usize) -> Result<Duration> {
    let begin = Instant::now();
    let client = Client::native_at(door).await?;
    client.subscribe("news").await?;
    let text = format!("visit {number} {}", fastrand::u32(..));
    client.publish("news", &text).await?;
    client.sees(&text).await?;
    listener.sees(&text).await?;
    Ok(begin.elapsed())
}

/// Handshakes as fast as the pace allows; says how many were answered and how many were not.
async fn flood(door: Door) -> Result<(usize, usize)> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    for _ in 0..FLOOD / WAVE {
        pace.tick().await;
        for _ in 0..WAVE {
            let door = door.clone();
            under_way.spawn(async move { door.upgrade("/ws").await.is_ok_and(|answer| answer.status == 101) });
        }
    }
    let outcomes = under_way.join_all().await;
    let served = outcomes.iter().filter(|served| **served).count();
    Ok((served, outcomes.len() - served))
}
