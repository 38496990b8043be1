//! Measures one log: publishes per second, and the time from publish to tail.
//!
//! `cargo run --release -p broker-adapters --example throughput -- URL [IN_FLIGHT] [MESSAGES]`

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{
    Budget, Log, MessageId, NewRecord, Payload, PublishError, Settings, Tail, TailEvent, Timing, connect,
};
use tokio::time::Instant;

const SETTINGS: Settings = Settings { partitions: 16, retention: 100_000 };

fn log(url: &str) -> Result<Arc<Log>, Box<dyn std::error::Error>> {
    let budget = Budget { messages: 10_000, bytes: 64 << 20 };
    let timing = Timing { heartbeat: Duration::from_secs(2) };
    Ok(Arc::new(Log::start(connect(url, SETTINGS)?, SETTINGS.partitions, timing, budget)))
}

async fn publish(log: &Log, channel: u64) -> Result<(), PublishError> {
    let payload = Payload::Binary(vec![7; 64].into());
    let record = NewRecord { id: MessageId::random(), channel: format!("room-{channel}"), payload };
    log.publish(record, Instant::now() + Duration::from_secs(3)).await.map(|_| ())
}

/// Waits until the tail has shown `count` messages.
async fn receive(tail: &mut Tail, mut count: usize) {
    while count > 0 {
        for event in tail.next().await.unwrap_or_default() {
            if let TailEvent::Records { seen, .. } = event {
                count = count.saturating_sub(seen.iter().filter(|seen| seen.message.is_some()).count());
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("which URL?")?;
    let in_flight: u64 = args.next().map_or(Ok(64), |text| text.parse())?;
    let messages: u64 = args.next().map_or(Ok(500_000), |text| text.parse())?;
    // Memory has one log per value; elsewhere the tail gets connections of its own.
    let publisher = log(&url)?;
    let reader = if url.starts_with("memory") { Arc::clone(&publisher) } else { log(&url)? };
    let mut tail = reader.tail_all(broker_adapters::Resume::Head);
    publish(&publisher, 0).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut times = Vec::new();
    for n in 0..2000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begin = Instant::now();
        let (published, ()) = tokio::join!(publish(&publisher, n), receive(&mut tail, 1));
        published?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    println!("publish to tail, idle: p50 {:?}, p99 {:?}", times[1000], times[1980]);

    let begin = Instant::now();
    let publishers: Vec<_> = (0..in_flight)
        .map(|worker| {
            let log = Arc::clone(&publisher);
            tokio::spawn(async move {
                let mut failed = 0;
                for n in 0..messages / in_flight {
                    failed += u64::from(publish(&log, worker * 1000 + n % 1000).await.is_err());
                }
                failed
            })
        })
        .collect();
    let all = usize::try_from(messages / in_flight * in_flight)?;
    receive(&mut tail, all).await;
    let received = begin.elapsed();
    let mut failed = 0;
    for publisher in publishers {
        failed += publisher.await?;
    }
    let rate = all as f64 / received.as_secs_f64();
    println!("{all} published and received with {in_flight} in flight: {rate:.0}/s, {failed} failed");
    Ok(())
}
