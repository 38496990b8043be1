//! `load fanout`: how many deliveries a CPU-second of the server buys.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::broadcast::{Broadcast, Outcome, Pace};
use crate::protocol::DIGITS;
use crate::subject::{self, Subject};

/// The longest message: it has to fit the client's buffer with room to spare.
const LONGEST: usize = 128 * 1024;

/// Shape of a fan-out
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct Shape {
    /// Connections that hear every message; the last of them publishes
    #[arg(long, default_value_t = 1000)]
    pub(crate) subscribers: usize,
    /// Messages on their way at a time
    #[arg(long, default_value_t = 1, conflicts_with = "rate")]
    pub(crate) in_flight: u32,
    /// Messages per second, instead of a number in flight
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Bytes per message
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Seconds to measure
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Seconds before that
    #[arg(long, default_value_t = 2)]
    pub(crate) warm_up: u64,
    /// Client processes [default: as many as the limit of open files asks for]
    #[arg(long)]
    pub(crate) processes: Option<usize>,
}

/// Fan-out from one publisher to many subscribers
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    subject: subject::Options,
}

impl Options {
    pub(crate) fn run(&self) -> Result<()> {
        let outcome = self.subject.run(|subject| self.shape.measure(subject))?;
        println!("{outcome}");
        Ok(())
    }
}

impl Shape {
    pub(crate) fn measure(&self, subject: &Subject) -> Result<Outcome> {
        self.check()?;
        let mut broadcast = Broadcast::open(subject, self.subscribers, self.size, self.processes)?;
        let (warm_up, length) = (Duration::from_secs(self.warm_up), Duration::from_secs(self.seconds));
        broadcast.measure(self.pace(), warm_up, length, &mut || Ok(()))
    }

    pub(crate) fn pace(&self) -> Pace {
        self.rate.map_or(Pace::InFlight(self.in_flight), Pace::Rate)
    }

    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.subscribers > 0 && self.seconds > 0, "at least one subscriber and one second are needed");
        ensure!((1..=4096).contains(&self.in_flight), "1 to 4096 messages can be in flight");
        ensure!(self.rate.is_none_or(|rate| (0.1..=100_000.0).contains(&rate)), "a rate is 0.1 to 100000 per second");
        ensure!((DIGITS..=LONGEST).contains(&self.size), "a message has {DIGITS} to {LONGEST} bytes");
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = self.wall.as_secs_f64();
        writeln!(f, "published             {:>12}", self.published)?;
        writeln!(f, "deliveries            {:>12}   in {wall:.2} s, each in order, none missing", self.deliveries)?;
        writeln!(f, "deliveries/s          {:>12.0}", self.deliveries as f64 / wall)?;
        match (self.cpu, self.per_cpu_second()) {
            (Some(cpu), Some(rate)) => {
                let share = 100.0 * cpu.as_secs_f64() / wall;
                writeln!(f, "server CPU            {:>10.2} s   {share:.0} % of a core", cpu.as_secs_f64())?;
                writeln!(f, "deliveries/CPU-second {rate:>12.0}")?;
            }
            _ => writeln!(f, "server CPU                 unknown   (give --pid)")?,
        }
        write!(f, "latency               {:>9.2} ms   median; 99 % within {:.2} ms", ms(self.p50), ms(self.p99))
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
