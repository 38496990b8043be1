//! What an operator, or RabbitMQ itself, can do to its clients.

use anyhow::{Result, ensure};
use tests::Client;

use crate::load::PUBLISHERS;
use crate::stage::{CHANNELS, Case, Stage, partition};

pub(crate) async fn a_memory_alarm_fails_publishes_by_their_deadline(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    stage.cluster.broker().tool(&["set_vm_memory_high_watermark", "0.0001"]).await?;
    stage.load.more("not stored", PUBLISHERS, |outcomes| outcomes.failed + outcomes.unknown).await?;
    stage.cluster.broker().tool(&["set_vm_memory_high_watermark", "0.9"]).await?;
    stage.back().await?;
    stage.whole().await
}

/// All streams have one epoch, which changes when one of them is made anew: so all subscribers get `lost`.
pub(crate) async fn a_deleted_stream_is_announced_and_made_anew(case: Case) -> Result<()> {
    let mut stage = Stage::set(case).await?;
    stage.cluster.broker().tool(&["delete_queue", &format!("fanfare.{}", partition(CHANNELS[0]))]).await?;
    stage.until_lost(&CHANNELS, "reset", |_| true).await?;
    stage.refill().await?;
    stage.flows().await?;
    ensure!(stage.steady.iter().all(Client::is_open), "native clients stay");
    stage.lawful().await
}

/// RabbitMQ ends every channel as it does when a client has broken a rule; the connections stay.
const CHANNEL_ERROR: &str =
    "[exit(Channel, {amqp_error, precondition_failed, \"an operator\", none}) || Channel <- rabbit_channel:list()].";

pub(crate) async fn channel_errors_lose_nothing(case: Case) -> Result<()> {
    let stage = Stage::set(case).await?;
    for _ in 0..3 {
        stage.cluster.broker().tool(&["eval", CHANNEL_ERROR]).await?;
        stage.back().await?;
    }
    stage.whole().await
}
