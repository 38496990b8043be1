//! Takes records from the log to every worker of the node.
//!
//! Owned by the node; one task. Knows which partitions are being read, and so whether the node is ready.
//! Waits for a worker whose queue is full: the log keeps what is not read, so nothing is lost by it.

use std::sync::Arc;

use broker_adapters::{Break, Position, Tail, TailEvent};
use tokio::sync::mpsc;

use crate::health::Health;
use crate::message::Message;

/// What workers are told, in the order of the log.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// A record.
    Message(Message),
    /// A partition is being read; what follows comes after this position.
    Up(Position),
    /// Records of a partition are missing here.
    Lost(Break),
}

/// Runs until the log is closed or all workers are gone.
pub(crate) async fn run(
    mut tail: Tail,
    partitions: u16,
    health: Arc<Health>,
    workers: Vec<mpsc::Sender<Arc<[Relayed]>>>,
) {
    let mut up = vec![false; usize::from(partitions)];
    while let Some(events) = tail.next().await {
        let mut relayed = Vec::new();
        for event in events {
            match event {
                TailEvent::Records { records, .. } => {
                    relayed.extend(records.into_iter().map(|record| Relayed::Message(Message::new(record))));
                }
                TailEvent::Up { at } => {
                    up[usize::from(at.partition.0)] = true;
                    relayed.push(Relayed::Up(at));
                }
                TailEvent::Lost(lost) => relayed.push(Relayed::Lost(lost)),
                TailEvent::Down { .. } => up.fill(false),
            }
        }
        if !relayed.is_empty() {
            let relayed: Arc<[Relayed]> = relayed.into();
            for worker in &workers {
                if worker.send(Arc::clone(&relayed)).await.is_err() {
                    return;
                }
            }
        }
        health.set_link(up.iter().all(|up| *up));
    }
}
