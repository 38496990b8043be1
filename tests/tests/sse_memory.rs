//! What an idle stream costs, beside a WebSocket.

#![allow(clippy::print_stdout, reason = "tests print what they measured")]

use anyhow::{Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tests::events::Events;
use tests::wire::{self, Wire};

/// Bytes of user memory for each of so many idle connections.
async fn cost<T>(count: usize, connect: impl AsyncFn(std::net::SocketAddr, usize) -> Result<T>) -> Result<f64> {
    let node = wire::serve("fanfare", &[("FANFARE__NODE__WORKERS", "1")]).await?;
    let process = node.process()?;
    // What the first connections make the node allocate is not theirs.
    let warm: Vec<T> = stream::iter(0..100).map(|n| connect(node.address, n)).buffered(16).try_collect().await?;
    let before = process.memory()?;
    let open: Vec<T> = stream::iter(0..count).map(|n| connect(node.address, n)).buffered(16).try_collect().await?;
    let grown = process.memory()?.saturating_sub(before);
    drop((warm, open));
    Ok(grown as f64 / count as f64)
}

/// Compares so many; `most` is the memory of a stream by that of a WebSocket.
async fn compare(count: usize, most: f64) -> Result<()> {
    let socket = cost(count, async |address, n| Wire::open(address, &format!("/raw/room-{}", n % 100)).await).await?;
    let mut ratios = Vec::new();
    for (name, path) in [("one channel", "/sse/"), ("as messages", "/sse?data=message&channel=")] {
        let stream = cost(count, async |address, n| {
            let mut events = Events::open(address, &format!("{path}room-{}", n % 100), &[]).await?;
            events.placed().await?;
            anyhow::Ok(events)
        });
        let stream = stream.await?;
        println!("{count} idle: {stream:.0} bytes a stream ({name}), {socket:.0} a WebSocket: {:.2}", stream / socket);
        ratios.push(stream / socket);
    }
    ensure!(ratios[0] <= most, "{ratios:?}");
    Ok(())
}

#[tokio::test]
async fn an_idle_stream_costs_little_more_than_a_websocket() -> Result<()> {
    // Among so few, the heap's own slack is a part of each.
    compare(800, 1.5).await
}

#[tokio::test]
#[ignore = "needs 11,000 descriptors"]
async fn ten_thousand_idle_streams_cost_little_more_than_as_many_websockets() -> Result<()> {
    compare(10_000, 1.2).await
}
