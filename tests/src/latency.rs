//! How long messages take from one socket to all others.
//!
//! Sender and receivers are in this process, so one clock serves both.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::wire::{Frame, Wire};

/// Messages at a steady pace.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// On which channel.
    pub channel: &'static str,
    /// How many.
    pub messages: usize,
    /// The time between two of them.
    pub pace: Duration,
    /// Bytes of each, with a number before them.
    pub size: usize,
}

impl Beat {
    /// Publishes at a node; every one of `others`, raw sockets of the channel anywhere, must get everything, in order.
    /// Gives them back, and the 99th percentile of the delays.
    pub async fn p99(self, node: SocketAddr, others: Vec<Wire>) -> Result<(Vec<Wire>, Duration)> {
        let sent: Arc<[OnceLock<Instant>]> = (0..self.messages).map(|_| OnceLock::new()).collect();
        let mut readers = JoinSet::new();
        for mut wire in others {
            let sent = Arc::clone(&sent);
            readers.spawn(async move {
                let mut delays = Vec::with_capacity(sent.len());
                for (expected, sent) in sent.iter().enumerate() {
                    let message = wire.message().await?;
                    let number: usize = message.split(' ').next().context("a number")?.parse()?;
                    ensure!(number == expected, "{number} came instead of {expected}");
                    delays.push(sent.get().context("it was sent")?.elapsed());
                }
                anyhow::Ok((wire, delays))
            });
        }
        let mut publisher = Wire::open(node, "/ws").await?;
        let mut pace = interval(self.pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for (number, sent) in sent.iter().enumerate() {
            pace.tick().await;
            let text = format!("{number} {}", "x".repeat(self.size));
            let command = json!({"publish": {"channel": self.channel, "data": text}}).to_string();
            let _ = sent.set(Instant::now());
            publisher.exchange(Frame::text(command).bytes()).await?;
        }
        let (mut wires, mut delays) = (Vec::new(), Vec::new());
        while let Some(read) = readers.join_next().await {
            let (wire, these) = read??;
            wires.push(wire);
            delays.extend(these);
        }
        delays.sort_unstable();
        let p99 = delays.get(delays.len() * 99 / 100).context("no client reads")?;
        Ok((wires, *p99))
    }
}
