//! `load connect`: how many handshakes, with a subscription each, a CPU-second of the server buys.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::subject::{self, Subject};
use crate::swarm::Swarm;

/// Handshakes, and with native subscriptions, per CPU-second
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    subject: subject::Options,
}

/// Shape of a storm of connections
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct Shape {
    /// Connections to open
    #[arg(long, default_value_t = 5000)]
    pub(crate) connections: usize,
    /// Subscribe too, where the protocol asks for it
    #[arg(long)]
    pub(crate) subscribe: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    connections: usize,
    wall: Duration,
    cpu: Duration,
}

impl Options {
    pub(crate) fn run(&self) -> Result<()> {
        println!("{}", self.subject.run(|subject| self.shape.measure(subject))?);
        Ok(())
    }
}

impl Shape {
    pub(crate) fn measure(&self, subject: &Subject) -> Result<Outcome> {
        let process = subject.process()?;
        let mut plan = subject.plan(self.connections);
        plan.subscribe = self.subscribe;
        let (before, start) = (process.cpu()?, Instant::now());
        let swarm = Swarm::open(plan)?;
        let (wall, cpu) = (start.elapsed(), process.cpu()? - before);
        Ok(Outcome { connections: swarm.connections(), wall, cpu })
    }
}

impl Outcome {
    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.connections as f64 / self.cpu.as_secs_f64().max(0.01)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = self.wall.as_secs_f64();
        writeln!(f, "connections            {:>10}   in {wall:.2} s", self.connections)?;
        writeln!(f, "connections/s          {:>10.0}", self.connections as f64 / wall)?;
        writeln!(f, "server CPU             {:>8.2} s", self.cpu.as_secs_f64())?;
        write!(f, "connections/CPU-second {:>10.0}", self.per_cpu_second())
    }
}
