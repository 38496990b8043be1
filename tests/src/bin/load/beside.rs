//! `load beside`: what publishes by the HTTP API do to the latency of sockets.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::broadcast::{self, Broadcast, Pace};
use crate::fanout::ms;
use crate::protocol::DIGITS;
use crate::subject::{self, Subject};

const WARM_UP: Duration = Duration::from_secs(1);
/// How long the API may take to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Fan-out at a fixed rate, without and with publishes by the HTTP API on another channel
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    subject: subject::Options,
}

/// Shape of the two loads
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct Shape {
    /// Connections that hear every message
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Messages per second for them
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Bytes per message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Where the server's API listens
    #[arg(long)]
    api: SocketAddr,
    /// A key of the API, `id.secret`
    #[arg(long)]
    key: String,
    /// Publishes per second by the API
    #[arg(long, default_value_t = 1000.0)]
    publishes: f64,
    /// Connections that publish by the API
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Seconds of each of the measurements, which alternate
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Pairs of measurements
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Debug)]
struct Outcome {
    /// Without and with publishes, of each round.
    rounds: Vec<[broadcast::Outcome; 2]>,
    published: u64,
    seconds: f64,
}

impl Options {
    pub(crate) fn run(&self) -> Result<()> {
        println!("{}", self.subject.run(|subject| self.shape.measure(subject))?);
        Ok(())
    }
}

impl Shape {
    fn measure(&self, subject: &Subject) -> Result<Outcome> {
        ensure!(self.size >= DIGITS && self.rate > 0.0, "a message has at least {DIGITS} bytes, a rate is above 0");
        ensure!(self.publishes > 0.0 && self.connections > 0 && self.rounds > 0, "nothing is to be measured");
        let mut broadcast = Broadcast::open(subject, self.subscribers, self.size, None)?;
        let (pace, length) = (Pace::Rate(self.rate), Duration::from_secs(self.seconds));
        let mut outcome = Outcome { rounds: Vec::new(), published: 0, seconds: 0.0 };
        for _ in 0..self.rounds {
            let calm = broadcast.measure(pace, WARM_UP, length, &mut || Ok(()))?;
            let begin = Instant::now();
            let publishers = self.publishers()?;
            let beside = broadcast.measure(pace, WARM_UP, length, &mut || Ok(()))?;
            outcome.published += publishers.stop()?;
            outcome.seconds += begin.elapsed().as_secs_f64();
            outcome.rounds.push([calm, beside]);
        }
        Ok(outcome)
    }

    fn publishers(&self) -> Result<Publishers> {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let body = r#"{"channel":"beside","data":"0123456789012345678901234567890123456789"}"#;
        let (api, key) = (self.api, &self.key);
        let request = post(api, key, "/v1/publish", body);
        let every = Duration::from_secs_f64(self.connections as f64 / self.publishes);
        let start = |_| {
            let mut connection = BufReader::new(TcpStream::connect(api).context("no API there")?);
            connection.get_ref().set_nodelay(true)?;
            connection.get_ref().set_read_timeout(Some(ANSWER))?;
            let (stop, count, request) = (Arc::clone(&stop), Arc::clone(&count), request.clone());
            Ok(std::thread::spawn(move || {
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += every;
                    send(&mut connection, &request)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }))
        };
        let threads = (0..self.connections).map(start).collect::<Result<_>>()?;
        Ok(Publishers { stop, count, threads })
    }
}

/// Publishers at work, each a thread with a connection.
struct Publishers {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Publishers {
    /// Stops them. Returns the number of messages that they published.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a publisher panicked"))??;
        }
        Ok(self.count.load(Ordering::Relaxed))
    }
}

/// A request to the API.
pub(crate) fn post(api: SocketAddr, key: &str, path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends one request, and reads the body of the answer, which must be 200.
pub(crate) fn send(connection: &mut BufReader<TcpStream>, request: &str) -> Result<String> {
    connection.get_mut().write_all(request.as_bytes())?;
    let (mut line, mut length) = (String::new(), 0);
    connection.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200 "), "the API refused: {}", line.trim());
    while line != "\r\n" {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the API closed the connection");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p99 = |outcome: &broadcast::Outcome| outcome.p99.as_secs_f64();
        let mut ratios = Vec::new();
        for [calm, beside] in &self.rounds {
            ratios.push(p99(beside) / p99(calm));
            writeln!(
                f,
                "99 % within           {:>9.2} ms   beside publishes by the API {:.2} ms   ratio {:.2}",
                ms(calm.p99),
                ms(beside.p99),
                p99(beside) / p99(calm)
            )?;
        }
        ratios.sort_by(f64::total_cmp);
        writeln!(f, "median of the ratios  {:>9.2}", ratios[ratios.len() / 2])?;
        write!(f, "published by the API  {:>9.0} /s", self.published as f64 / self.seconds)
    }
}
