//! `load foreign`: what a record costs a node that has no subscriber for it.

use std::fmt;
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use serde_json::json;

use crate::beside::{ANSWER, post, send};
use crate::measure::Process;

/// Messages in one request.
const BATCH: usize = 100;
/// Between two looks at whether the node has read all.
const LOOK: Duration = Duration::from_millis(500);

/// CPU time and memory of one node while another publishes on channels without subscribers
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Where the API of the node that publishes listens
    #[arg(long)]
    api: SocketAddr,
    /// A key of that API, `id.secret`
    #[arg(long)]
    key: String,
    /// Process of the other node, which is measured
    #[arg(long)]
    pid: u32,
    /// Messages
    #[arg(long, default_value_t = 200_000)]
    records: usize,
    /// Bytes per message
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Channels
    #[arg(long, default_value_t = 1000)]
    channels: usize,
    /// Connections that publish
    #[arg(long, default_value_t = 6)]
    connections: usize,
}

#[derive(Debug)]
struct Outcome {
    records: usize,
    rate: f64,
    cpu: Duration,
    /// Bytes of memory after the run and before it.
    memory: [u64; 2],
}

impl Options {
    pub(crate) fn run(&self) -> Result<()> {
        println!("{}", self.measure()?);
        Ok(())
    }

    fn measure(&self) -> Result<Outcome> {
        ensure!(self.connections > 0 && self.channels > 0, "there is nothing to publish on");
        let requests = self.records.div_ceil(BATCH * self.connections);
        let node = Process { pid: self.pid };
        let (cpu, memory, begin) = (node.cpu()?, node.memory()?, Instant::now());
        thread::scope(|scope| {
            let publishers: Vec<_> =
                (0..self.connections).map(|number| scope.spawn(move || self.publish(number, requests))).collect();
            publishers.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a publisher panicked"))?)
        })?;
        let records = requests * BATCH * self.connections;
        let rate = records as f64 / begin.elapsed().as_secs_f64();
        let mut spent = node.cpu()?;
        loop {
            thread::sleep(LOOK);
            let now = node.cpu()?;
            // What an idle node takes in that time is less.
            if now - spent < LOOK / 25 {
                break;
            }
            spent = now;
        }
        Ok(Outcome { records, rate, cpu: spent - cpu, memory: [node.memory()?, memory] })
    }

    fn publish(&self, number: usize, requests: usize) -> Result<()> {
        let mut connection = BufReader::new(TcpStream::connect(self.api).context("no API there")?);
        connection.get_ref().set_nodelay(true)?;
        connection.get_ref().set_read_timeout(Some(ANSWER))?;
        let data = "x".repeat(self.size);
        for request in 0..requests {
            let first = (number * requests + request) * BATCH;
            let one = |message: usize| json!({ "channel": format!("room:{}", message % self.channels), "data": data });
            let body = json!({ "messages": (first..first + BATCH).map(one).collect::<Vec<_>>() }).to_string();
            let answer = send(&mut connection, &post(self.api, &self.key, "/v1/batch", &body))?;
            ensure!(!answer.contains("\"code\""), "the API refused messages: {answer}");
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [after, before] = self.memory;
        let records = self.records as f64;
        writeln!(f, "published              {:>9.0} /s", self.rate)?;
        writeln!(f, "CPU time per record    {:>9.2} µs", self.cpu.as_secs_f64() * 1e6 / records)?;
        write!(f, "memory per record      {:>9.0} B", (after as f64 - before as f64) / records)
    }
}
