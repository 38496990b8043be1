//! What an operator can do to a Redis.

use anyhow::{Result, ensure};
use tests::Client;

use crate::load::PUBLISHERS;
use crate::stage::{CHANNELS, Case, Stage, partition};

pub(crate) async fn flushall_is_told_to_every_subscriber(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.broker().tool(&["FLUSHALL"]).await?;
    stage.told(&CHANNELS, "reset", |_| true).await?;
    for node in ["node-1", "node-2", "node-3"] {
        let line = stage.cluster.line(node, "records were lost in the broker").await?;
        ensure!(line.contains("WARN") && line.contains("reason=reset"), "{line}");
    }
    stage.refill().await?;
    stage.flows().await?;
    ensure!(stage.steady.iter().all(Client::is_open), "native clients stay");
    stage.lawful().await
}

pub(crate) async fn xtrim_is_told_to_those_who_had_not_read(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    let (here, elsewhere) = (|client: &Client| client.node == "node-1", |client: &Client| client.node != "node-1");
    stage.cut_off("node-1").await?;
    stage.flows_for(elsewhere).await?;
    for channel in CHANNELS {
        let log = format!("fanfare:{{{}}}:log", partition(channel));
        stage.cluster.broker().tool(&["XTRIM", &log, "MAXLEN", "=", "1"]).await?;
    }
    stage.cluster.wire("node-1")?.mend();
    stage.told(&CHANNELS, "trimmed", here).await?;
    stage.unharmed(&CHANNELS, elsewhere)?;
    stage.cluster.balanced().await?;
    stage.refill().await?;
    stage.flows().await?;
    stage.lawful().await
}

/// Without its records a stream goes on where it was: who had read them has lost nothing. Without its epoch it is
/// another.
pub(crate) async fn a_deleted_stream_is_told_to_its_subscribers_only(case: Case) -> Result<()> {
    let [channel, others @ ..] = CHANNELS;
    let mut stage = Stage::set(case).await?;
    let key = |part: &str| format!("fanfare:{{{}}}:{part}", partition(channel));
    stage.cluster.broker().tool(&["DEL", &key("log")]).await?;
    stage.flows().await?;
    stage.cluster.broker().tool(&["DEL", &key("meta")]).await?;
    stage.told(&[channel], "reset", |_| true).await?;
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
