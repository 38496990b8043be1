//! A catch-up of tens of megabytes, at the pace of the client.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tests::wire::{self, Wire};
use tests::{Broker, Client, Cluster};

use super::{publish, subscribe, url};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_missed_50_mb_gets_all_of_it_at_its_own_pace_and_the_node_holds_one_outbox() -> Result<()> {
    const MESSAGES: usize = 1000;
    const SIZE: usize = 50_000;
    let cluster = Cluster::of(1).shared(Broker::Redis).set("FANFARE__WINDOW__BYTES", "4MiB").start().await?;
    let (address, url) = (cluster.node_address(1), url(&cluster, 1));
    let speaker = Client::native(&url).await?;
    let since = subscribe(&speaker, "news").await?;
    speaker.unsubscribe("news").await?;
    let filler = "x".repeat(SIZE);
    let texts: Vec<_> = (0..MESSAGES).map(|number| format!("{number} {filler}")).collect();
    stream::iter(&texts).map(|text| publish(&speaker, "news", text)).buffered(32).try_collect::<()>().await?;
    // What one slow client takes of the node: it reads a little at a time, and others publish meanwhile.
    let before = cluster.process("node-1")?.memory()?;
    let mut slow = Wire::with_room(address, 64 << 10).await?.upgraded("/ws").await?;
    let join = json!({ "subscribe": { "channel": "news", "since": since } }).to_string();
    slow.send(wire::Frame::text(join).bytes()).await?;
    let (mut found, mut most) = (0, 0);
    while found < MESSAGES + 1 {
        while let Some(received) = slow.received()? {
            let text = received.text();
            if text.starts_with("{\"ping\"") || received.opcode != wire::TEXT {
                continue;
            }
            let value: Value = serde_json::from_str(&text)?;
            if value["ok"].is_object() {
                ensure!(value["ok"]["recovered"] == true, "{value}");
                continue;
            }
            let number = value["data"].as_str().and_then(|data| data.split(' ').next()).context("no message")?;
            let expected = if found < MESSAGES { found.to_string() } else { "live".to_owned() };
            ensure!(number == expected, "{number} came instead of {expected}");
            found += 1;
            if found == MESSAGES / 2 {
                publish(&speaker, "news", "live").await?;
            }
            if found % 50 == 0 {
                most = most.max(cluster.process("node-1")?.memory()?);
            }
        }
        if found < MESSAGES + 1 {
            ensure!(slow.bite(64 << 10).await?, "closed after {found} messages");
        }
    }
    let grown = most.saturating_sub(before);
    println!("50 MB given to one client: the node grew by {} KiB at most", grown >> 10);
    // An outbox of 1 MiB; two pages of 1 MiB under way with their frames; what the allocator keeps.
    ensure!(grown < 16 << 20, "the node grew by {grown} bytes");
    Ok(())
}
