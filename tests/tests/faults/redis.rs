//! What an operator can do to a Redis.

use std::time::Duration;

use anyhow::{Result, ensure};
use real_brokers::{Redis, Server};
use tests::{Client, PATIENCE};
use tokio::time::{Instant, sleep};

use crate::load::PUBLISHERS;
use crate::stage::{BACK, CHANNELS, Case, Stage, partition};

pub(crate) async fn flushall_is_announced_to_every_subscriber(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.broker().tool(&["FLUSHALL"]).await?;
    stage.until_lost(&CHANNELS, "reset", |_| true).await?;
    for node in ["node-1", "node-2", "node-3"] {
        let line = stage.cluster.line(node, "records were lost in the broker").await?;
        ensure!(line.contains("WARN") && line.contains("reason=reset"), "{line}");
    }
    stage.refill().await?;
    stage.flows().await?;
    ensure!(stage.steady.iter().all(Client::is_open), "native clients stay");
    stage.lawful().await
}

pub(crate) async fn xtrim_is_announced_to_clients_that_had_not_read(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    let (here, elsewhere) = (|client: &Client| client.node == "node-1", |client: &Client| client.node != "node-1");
    stage.cut_off("node-1").await?;
    stage.flows_for(elsewhere).await?;
    for channel in CHANNELS {
        let log = format!("fanfare:{{{}}}:log", partition(channel));
        // Fewer than node 1 has missed, and more than a busy machine keeps the others from reading.
        stage.cluster.broker().tool(&["XTRIM", &log, "MAXLEN", "=", "10"]).await?;
    }
    stage.cluster.wire("node-1")?.mend();
    stage.until_lost(&CHANNELS, "trimmed", here).await?;
    stage.unharmed(&CHANNELS, elsewhere)?;
    stage.cluster.balanced().await?;
    stage.refill().await?;
    stage.flows().await?;
    stage.lawful().await
}

/// Without its records a stream goes on where it was: clients that had read them have lost nothing. Without its epoch it is
/// another.
pub(crate) async fn a_deleted_stream_is_announced_to_its_subscribers_only(case: Case) -> Result<()> {
    let [channel, others @ ..] = CHANNELS;
    let mut stage = Stage::set(case).await?;
    let key = |part: &str| format!("fanfare:{{{}}}:{part}", partition(channel));
    stage.cluster.broker().tool(&["DEL", &key("log")]).await?;
    stage.flows().await?;
    stage.cluster.broker().tool(&["DEL", &key("meta")]).await?;
    stage.until_lost(&[channel], "reset", |_| true).await?;
    stage.unharmed(&others, |_| true)?;
    stage.refill().await?;
    stage.flows().await?;
    stage.lawful().await
}

pub(crate) async fn a_full_redis_fails_publishes_and_goes_on(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    stage.cluster.broker().tool(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    stage.load.more("failed", PUBLISHERS, |outcomes| outcomes.failed).await?;
    stage.cluster.broker().tool(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    stage.back().await?;
    ensure!(stage.load.outcomes().unknown == 0, "a full Redis has surely stored nothing");
    stage.whole().await
}

pub(crate) async fn a_failover_with_connections_open_loses_nothing(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    let (primary, replica) = (stage.cluster.broker(), replica_of(&stage).await?);
    primary.tool(&["FAILOVER"]).await?;
    until_role(&replica, "master").await?;
    lead_to(&stage, &replica)?;
    stage.back().await?;
    stage.whole().await
}

/// The two never meet: records that only the old primary had are lost, and subscribers get `lost`.
pub(crate) async fn redis_demoted_with_connections_open_is_left_by_every_node(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    let (primary, replica) = (stage.cluster.broker(), replica_of(&stage).await?);
    let promoted = Instant::now();
    replica.tool(&["REPLICAOF", "NO", "ONE"]).await?;
    lead_to(&stage, &replica)?;
    primary.tool(&["REPLICAOF", "127.0.0.1", &replica.port().number().to_string()]).await?;
    stage.load.more("acknowledged by the new primary", 3 * PUBLISHERS, |outcomes| outcomes.acked).await?;
    let took = promoted.elapsed();
    println!("{case}: publishing is back {took:.1?} after the promotion");
    ensure!(took <= BACK, "publishing is back only {took:?} after the promotion");
    stage.back().await?;
    stage.lawful().await
}

/// The old primary goes on, with all connections open. It then stores what it was sent while it stood still, and no node may
/// go on reading there.
pub(crate) async fn a_replica_promoted_while_its_primary_stalls_is_followed(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    let replica = replica_of(&stage).await?;
    stage.cluster.broker().freeze().await?;
    replica.tool(&["REPLICAOF", "NO", "ONE"]).await?;
    lead_to(&stage, &replica)?;
    sleep(Duration::from_secs(2)).await;
    // A node that a busy machine keeps from noticing the stall stays with the old primary, and cannot know of the new one.
    for node in ["node-1", "node-2", "node-3"] {
        stage.cluster.line(node, "broker link down").await?;
    }
    stage.cluster.broker().thaw().await?;
    stage.back().await?;
    stage.lawful().await
}

/// As `DEBUG RELOAD NOSAVE` and `SWAPDB` do: no connection ends, and the log grows past what was read.
pub(crate) async fn a_log_set_back_by_a_second_while_it_is_read_is_announced(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    let save = "for _, key in ipairs(redis.call('KEYS', 'fanfare:*')) do \
                redis.call('SET', 'saved:' .. key, redis.call('DUMP', key)) end";
    let restore = "for _, key in ipairs(redis.call('KEYS', 'saved:*')) do \
                   redis.call('RESTORE', string.sub(key, 7), 0, redis.call('GET', key), 'REPLACE') end";
    stage.cluster.broker().tool(&["EVAL", save, "0"]).await?;
    sleep(Duration::from_secs(1)).await;
    stage.cluster.broker().tool(&["EVAL", restore, "0"]).await?;
    stage.until_lost(&CHANNELS, "reset", |_| true).await?;
    stage.refill().await?;
    stage.flows().await?;
    stage.lawful().await
}

/// A second Redis, which has all that the first one has.
async fn replica_of(stage: &Stage) -> Result<Redis> {
    let (primary, replica) = (stage.cluster.broker(), Redis::new(0)?);
    replica.start().await?;
    replica.tool(&["REPLICAOF", "127.0.0.1", &primary.ports()[0].to_string()]).await?;
    until_role(&replica, "slave").await?;
    Ok(replica)
}

/// Waits until a Redis is the primary, or a replica that keeps up with one.
async fn until_role(redis: &Redis, role: &str) -> Result<()> {
    let (role, begin) = (format!("role:{role}"), Instant::now());
    loop {
        let said = redis.tool(&["INFO", "replication"]).await?;
        if said.contains(&role) && (role == "role:master" || said.contains("master_link_status:up")) {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "it does not say {role}: {said}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The name leads to another Redis: new connections go there, open ones stay.
fn lead_to(stage: &Stage, redis: &Redis) -> Result<()> {
    for node in ["node-1", "node-2", "node-3"] {
        stage.cluster.wire(node)?.lead_to(redis.port().address);
    }
    Ok(())
}
