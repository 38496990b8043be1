//! Measures a log next to a raw client of the same library, by turns: publishes per second and the time to the reader.
//!
//! `cargo run --release -p broker-adapters --example throughput -- URL [IN_FLIGHT] [MESSAGES] [ROUNDS]`
//!
//! Both sides send what the log sends for 64 bytes, on 100 channels in 16 partitions, from one thread, and read all
//! of it back over other connections. The raw client keeps no order, counts nothing and notices no loss.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is its purpose")]

mod kafka;
mod rabbitmq;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker_adapters::{Budget, Log, MessageId, NewRecord, Payload, Settings, TailEvent, Timing, connect, partition_of};
use tokio::sync::watch;
use tokio::time::Instant;

const SETTINGS: Settings = Settings { partitions: 16, retention: 100_000 };
/// What an envelope takes for 64 bytes on a channel such as `room-12`.
const ENVELOPE: usize = 64 + 34 + 7;
/// Messages whose time is taken, one at a time.
const IDLE: usize = 1000;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[async_trait]
trait Publish: Send + Sync {
    /// Publishes one message; done when the broker has acknowledged it.
    async fn publish(&self, channel: String) -> Result<(), Error>;
}

fn channel(number: u64) -> String {
    format!("room-{}", number % 100)
}

/// Where the log puts a channel: there are more of them in one partition than in another.
fn partition(channel: &str) -> u16 {
    partition_of(channel, SETTINGS.partitions).0
}

/// One way to a broker, its reader running.
struct Side {
    publisher: Arc<dyn Publish>,
    /// How many messages the reader has had.
    received: watch::Receiver<u64>,
}

struct Measured {
    rate: f64,
    p50: Duration,
    p99: Duration,
}

struct Ours(Arc<Log>);

#[async_trait]
impl Publish for Ours {
    async fn publish(&self, channel: String) -> Result<(), Error> {
        let payload = Payload::Binary(vec![7; 64].into());
        let record = NewRecord::new(MessageId::random(), channel, payload);
        Ok(self.0.publish(record, Instant::now() + Duration::from_secs(3)).await.map(drop)?)
    }
}

fn log(url: &str) -> Result<Arc<Log>, Error> {
    let budget = Budget { messages: 10_000, bytes: 64 << 20 };
    let timing = Timing::new(Duration::from_secs(2));
    Ok(Arc::new(Log::start(connect(url, SETTINGS)?, SETTINGS.partitions, timing, budget)))
}

async fn ours(url: &str) -> Result<Side, Error> {
    // Memory has one log per value; elsewhere the tail gets connections of its own.
    let publisher = log(url)?;
    let reader = if url.starts_with("memory") { Arc::clone(&publisher) } else { log(url)? };
    let mut tail = reader.tail_all(broker_adapters::Resume::Head);
    let (count, received) = watch::channel(0);
    let (up, is_up) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut up, mut partitions) = (Some(up), 0);
        while let Some(events) = tail.next().await {
            for event in events {
                match event {
                    TailEvent::Records { seen, .. } => {
                        let messages = seen.iter().filter(|seen| seen.message.is_some()).count();
                        count.send_modify(|count| *count += messages as u64);
                    }
                    TailEvent::Up { .. } => partitions += 1,
                    TailEvent::Lost(lost) => eprintln!("lost: {}", lost.reason),
                    TailEvent::Down { why } => eprintln!("down: {why}"),
                }
            }
            if partitions >= SETTINGS.partitions {
                up.take().map(|up| up.send(()));
            }
        }
        drop(reader);
    });
    is_up.await?;
    Ok(Side { publisher: Arc::new(Ours(publisher)), received })
}

async fn raw(url: &str) -> Result<Option<Side>, Error> {
    Ok(match url.split(':').next() {
        Some("redis" | "rediss") => Some(redis::side(url).await?),
        Some("kafka") => Some(kafka::side(url).await?),
        Some("amqp" | "amqps" | "rabbitmq") => Some(rabbitmq::side(url).await?),
        _ => None,
    })
}

async fn measure(side: &mut Side, in_flight: u64, messages: u64) -> Result<Measured, Error> {
    let mut times = Vec::with_capacity(IDLE);
    let before = *side.received.borrow();
    for number in 0..IDLE as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begin = Instant::now();
        let arrived = side.received.wait_for(|count| *count > before + number);
        let (published, arrived) = tokio::join!(side.publisher.publish(channel(number)), arrived);
        published?;
        drop(arrived?);
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    let each = messages / in_flight;
    let begin = Instant::now();
    let publishers = (0..in_flight).map(|worker| {
        let publisher = Arc::clone(&side.publisher);
        tokio::spawn(async move {
            for number in 0..each {
                publisher.publish(channel(worker + number)).await?;
            }
            Ok::<_, Error>(())
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await??;
    }
    let all = before + IDLE as u64 + each * in_flight;
    drop(side.received.wait_for(|count| *count >= all).await?);
    let rate = (each * in_flight) as f64 / begin.elapsed().as_secs_f64();
    Ok(Measured { rate, p50: times[IDLE / 2], p99: times[IDLE * 99 / 100] })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(name: &str, rounds: &[Measured]) -> f64 {
    let of = |value: fn(&Measured) -> f64| median(rounds.iter().map(value).collect());
    let rate = of(|round| round.rate);
    let (p50, p99) = (of(|round| round.p50.as_secs_f64() * 1e3), of(|round| round.p99.as_secs_f64() * 1e3));
    println!("{name:<8} {rate:>9.0} published and received a second; idle: p50 {p50:.2} ms, p99 {p99:.2} ms");
    rate
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("which URL?")?;
    let in_flight = args.next().map_or(Ok(64), |text| text.parse())?;
    let messages = args.next().map_or(Ok(200_000), |text| text.parse())?;
    let rounds: usize = args.next().map_or(Ok(3), |text| text.parse())?;
    let (mut ours, mut raw) = (ours(&url).await?, raw(&url).await?);
    let (mut of_ours, mut of_raw) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        of_ours.push(measure(&mut ours, in_flight, messages).await?);
        if let Some(raw) = &mut raw {
            of_raw.push(measure(raw, in_flight, messages).await?);
        }
    }
    println!("{in_flight} in flight, {messages} messages, medians of {} rounds", of_ours.len());
    let rate = print("fanfare", &of_ours);
    if !of_raw.is_empty() {
        println!("ratio of the rates: {:.2}", rate / print("raw", &of_raw));
    }
    Ok(())
}
