//! What becomes of lists when the broker is away, loses the log, or a node reads it for the first time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::tokens::Issuer;
use tests::{Broker, Frame, PATIENCE};
use tokio::time::{sleep, timeout};

use crate::view::{GLANCE, ask, counts, crowd, leave, one_on_each, only_leave, plan, url, user};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

pub(crate) async fn no_member_leaves_while_the_broker_is_away_and_the_lists_are_right_after_it_is_wiped(
    broker: Broker,
) -> Result<()> {
    /// Longer than the lease.
    const AWAY: Duration = Duration::from_secs(6);
    let mut cluster = plan(broker).broker(broker).start().await?;
    let issuer = Issuer::new()?;
    let clients = one_on_each(&cluster, &issuer).await?;
    cluster.broker().kill().await?;
    sleep(AWAY).await;
    // It subscribes while nothing can be written.
    let late = user(&cluster, 2, &issuer, "late").await?;
    late.subscribe("room:1").await?;
    cluster.broker().start().await?;
    for client in &clients {
        counts(client, "room:1", 4).await?;
        only_leave(client, &[])?;
    }
    // And it leaves while nothing can be written.
    cluster.broker().kill().await?;
    late.close().await?;
    cluster.broker().wipe().await?;
    cluster.broker().start().await?;
    for client in &clients {
        counts(client, "room:1", 3).await?;
        leave(client, "room:1", 1).await?;
        only_leave(client, &["late"])?;
    }
    cluster.well();
    Ok(())
}

pub(crate) async fn no_member_leaves_because_the_log_was_deleted_and_the_lists_are_right_again(
    broker: Broker,
) -> Result<()> {
    let mut cluster = plan(broker).broker(broker).start().await?;
    let issuer = Issuer::new()?;
    let clients = one_on_each(&cluster, &issuer).await?;
    let leaver = user(&cluster, 2, &issuer, "leaver").await?;
    leaver.subscribe("room:1").await?;
    for client in &clients {
        counts(client, "room:1", 4).await?;
    }
    let server = cluster.broker();
    match broker {
        Broker::Redis => server.tool(&["FLUSHALL"]).await?,
        Broker::Kafka => server.tool(&[TOPICS, "--delete", "--topic", "fanfare"]).await?,
        // Its streams have one epoch, so this deletes all of them.
        _ => server.tool(&["delete_queue", "fanfare.0"]).await?,
    };
    leaver.close().await?;
    for client in &clients {
        client.meets("the loss", |frame| matches!(frame, Frame::Lost { channel, .. } if channel == "room:1")).await?;
        leave(client, "room:1", 1).await?;
        counts(client, "room:1", 3).await?;
        only_leave(client, &["leaver"])?;
    }
    cluster.well();
    Ok(())
}

/// It is asked from the moment on in which it listens. The log in memory is its own, so there it finds no member.
pub(crate) async fn a_fresh_node_shows_all_members_or_says_that_some_may_be_missing(broker: Broker) -> Result<()> {
    const MEMBERS: usize = 50;
    let mut cluster = plan(broker).start().await?;
    let (issuer, last) = (Issuer::new()?, broker.nodes());
    let mut clients = Vec::new();
    for node in 1..last {
        clients.extend(crowd(&url(&cluster, node), MEMBERS).await?);
    }
    let whole = u64::try_from(clients.len())?;
    if let Some(client) = clients.first() {
        counts(client, "room:1", whole).await?;
    }
    let name = format!("node-{last}");
    cluster.kill_node(&name).await?;
    cluster.launch_node(&name).await?;
    let mut partial = 0;
    let asked = async {
        let client = loop {
            match user(&cluster, last, &issuer, "eve").await {
                Ok(client) => break client,
                Err(_) => sleep(GLANCE).await,
            }
        };
        loop {
            // While it is not ready it may refuse.
            if let Ok(answer) = ask(&client, "room:1").await {
                let is_partial = answer["partial"] == true;
                ensure!(is_partial || answer["count"] == whole, "{whole} members are there, and not {answer}");
                if !is_partial {
                    return Ok(());
                }
                partial += 1;
            }
            sleep(GLANCE).await;
        }
    };
    timeout(PATIENCE, asked).await.context("its answers stay partial")??;
    ensure!(partial > 0, "it was asked too late");
    cluster.well();
    Ok(())
}
