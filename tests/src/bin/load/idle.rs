//! `load idle`: what a connection costs that says nothing.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::helpers::{self, Helpers};
use crate::measure::{Kernel, Process};
use crate::subject::{self, Subject};
use crate::swarm::{PER_PROCESS, Ready, Swarm};

const SAMPLE: Duration = Duration::from_millis(250);
/// Memory is steady when so many samples in a row differ by less than `STEADY_SHARE` of the whole.
const STEADY_SAMPLES: usize = 12;
const STEADY_SHARE: f64 = 0.002;
const STEADY_PATIENCE: Duration = Duration::from_secs(30);

/// Memory and CPU time of idle connections
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    subject: subject::Options,
}

/// Shape of a silent crowd
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct Shape {
    /// Connections to open
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Subscribe them, where the protocol asks for it
    #[arg(long)]
    pub(crate) subscribe: bool,
    /// Seconds over which CPU time is measured: several of the server's ping intervals
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// The node's secret: each connection has a token of a user of its own
    #[arg(long)]
    pub(crate) secret: Option<String>,
    /// Client processes [default: as many as the limit of open files asks for]
    #[arg(long)]
    pub(crate) processes: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    connections: usize,
    before: u64,
    after: u64,
    pub(crate) steady: bool,
    kernel_buffers: i64,
    kernel_slab: i64,
    cpu: Duration,
    wall: Duration,
    pings: u64,
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
        let shares = helpers::shares(self.connections, self.processes)?;
        ensure!(
            self.secret.is_none() || shares.len() == 1,
            "connections with tokens are of one process: up to {PER_PROCESS}"
        );
        let (before, kernel) = (process.memory()?, Kernel::now()?);
        let mut plan = subject.plan(shares[0]);
        plan.subscribe = self.subscribe;
        plan.secret = self.secret.clone();
        let helpers = Helpers::start(&subject.target, subject.protocol, &shares[1..], self.subscribe)?;
        let mut crowd = Crowd { swarm: Swarm::open(plan)?, ready: Vec::new() };
        let steady = crowd.steady(process)?;
        let (after, kernel_after) = (process.memory()?, Kernel::now()?);
        let (cpu, start, pings) = (process.cpu()?, Instant::now(), crowd.swarm.pings());
        crowd.rest(Duration::from_secs(self.seconds))?;
        let (cpu, wall) = (process.cpu()? - cpu, start.elapsed());
        drop(helpers);
        Ok(Outcome {
            connections: self.connections,
            before,
            after,
            steady,
            kernel_buffers: kernel_after.buffers.cast_signed() - kernel.buffers.cast_signed(),
            kernel_slab: kernel_after.slab.cast_signed() - kernel.slab.cast_signed(),
            cpu,
            wall,
            pings: crowd.swarm.pings() - pings,
        })
    }
}

struct Crowd {
    swarm: Swarm,
    ready: Vec<Ready>,
}

impl Crowd {
    /// Does nothing but to answer the server's pings.
    fn rest(&mut self, length: Duration) -> Result<()> {
        let end = Instant::now() + length;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.swarm.wait(left, &mut self.ready)?;
            for news in &self.ready {
                self.swarm.read(*news, &mut |_, _| Ok(()))?;
            }
        }
        Ok(())
    }

    /// Waits until the server's memory is steady; `false` when it never was.
    fn steady(&mut self, process: Process) -> Result<bool> {
        let mut samples = VecDeque::from([process.memory()?]);
        let deadline = Instant::now() + STEADY_PATIENCE;
        while Instant::now() < deadline {
            self.rest(SAMPLE)?;
            samples.push_back(process.memory()?);
            if samples.len() > STEADY_SAMPLES {
                samples.pop_front();
                let (least, most) = samples.iter().fold((u64::MAX, 0), |(a, b), now| (a.min(*now), b.max(*now)));
                if (most - least) as f64 <= most as f64 * STEADY_SHARE {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Outcome {
    pub(crate) fn bytes_per_connection(&self) -> f64 {
        (self.after as f64 - self.before as f64) / self.connections as f64
    }

    /// Microseconds of CPU time per connection and second.
    pub(crate) fn cpu_microseconds(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.connections as f64 / self.wall.as_secs_f64()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |bytes: i64| bytes as f64 / self.connections as f64;
        let steady = if self.steady { "steady" } else { "NOT STEADY" };
        let (before, after, wall) = (self.before / 1024, self.after / 1024, self.wall.as_secs_f64());
        writeln!(f, "connections               {:>8}", self.connections)?;
        let bytes = self.bytes_per_connection();
        writeln!(
            f,
            "user bytes/connection     {bytes:>8.0}   RssAnon {before} KiB before, {after} KiB after, {steady}"
        )?;
        let (buffers, slab) = (each(self.kernel_buffers), each(self.kernel_slab));
        writeln!(
            f,
            "kernel bytes/connection   {:>8.0}   buffers {buffers:.0}, slabs {slab:.0}: both ends",
            buffers + slab
        )?;
        let cpu = self.cpu_microseconds();
        write!(f, "CPU µs/connection/second  {cpu:>8.3}   over {wall:.0} s, {} pings answered", self.pings)
    }
}
