//! `load stalled`: what clients that never read do to all the others, and what the server does to them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::broadcast::{self, Broadcast, Pace};
use crate::ended::{Ended, How};
use crate::fanout::ms;
use crate::measure::Process;
use crate::protocol::DIGITS;
use crate::subject::{self, Subject};
use crate::swarm::{Ready, Swarm};

/// `SO_RCVBUF` of a stalled client, so that the server notices early.
const RECEIVE_BUFFER: usize = 4096;
const WARM_UP: Duration = Duration::from_secs(1);

/// Fan-out at a fixed rate while some connections never read
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    subject: subject::Options,
}

/// Shape of a crowd with stalled members
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct Shape {
    /// Connections that read
    #[arg(long, default_value_t = 1000)]
    pub(crate) subscribers: usize,
    /// Connections that never read
    #[arg(long, default_value_t = 10)]
    pub(crate) stalled: usize,
    /// Messages per second
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// Bytes per message
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Seconds to measure, first without stalled connections and then with them
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) calm: broadcast::Outcome,
    pub(crate) stalled: broadcast::Outcome,
    pub(crate) watch: Watch,
    /// How each stalled connection was found at the end.
    pub(crate) fates: BTreeMap<String, usize>,
    /// What was published for each stalled connection, in bytes.
    pub(crate) offered: u64,
}

/// What the process shows from outside while the other clients are measured.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) memory_before: u64,
    pub(crate) memory_peak: u64,
    /// When each stalled connection was ended, in order.
    pub(crate) ended: Vec<Duration>,
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
        ensure!(
            self.size >= DIGITS && self.rate > 0.0,
            "a message has at least {DIGITS} bytes, and the rate is above 0"
        );
        let mut broadcast = Broadcast::open(subject, self.subscribers, self.size, None)?;
        let (pace, length) = (Pace::Rate(self.rate), Duration::from_secs(self.seconds));
        let calm = broadcast.measure(pace, WARM_UP, length, &mut || Ok(()))?;
        let mut plan = subject.plan(self.stalled);
        plan.receive_buffer = Some(RECEIVE_BUFFER);
        let mut stuck = Stuck { swarm: Swarm::open(plan)?, ended: vec![false; self.stalled], ready: Vec::new() };
        let mut watch = Watch { memory_before: process.memory()?, ..Watch::default() };
        let start = Instant::now();
        let mut tick = || stuck.look(start, process, &mut watch);
        let stalled = broadcast.measure(pace, Duration::ZERO, length, &mut tick)?;
        tick()?;
        let offered = stalled.published * self.size as u64;
        Ok(Outcome { calm, stalled, watch, fates: stuck.fates(), offered })
    }
}

struct Stuck {
    swarm: Swarm,
    ended: Vec<bool>,
    ready: Vec<Ready>,
}

impl Stuck {
    /// Looks at the sockets without reading, so that nothing makes room in them.
    fn look(&mut self, start: Instant, process: Process, watch: &mut Watch) -> Result<()> {
        self.swarm.wait(Duration::ZERO, &mut self.ready)?;
        for news in self.ready.iter().filter(|news| news.ended) {
            if !std::mem::replace(&mut self.ended[news.index], true) {
                watch.ended.push(start.elapsed());
            }
        }
        watch.memory_peak = watch.memory_peak.max(process.memory()?);
        Ok(())
    }

    /// Reads at last, to learn how each was ended.
    fn fates(&mut self) -> BTreeMap<String, usize> {
        let mut fates = BTreeMap::new();
        for (index, seen) in self.ended.iter().enumerate() {
            let outcome = self.swarm.read(Ready { index, ended: true }, &mut |_, _| Ok(()));
            let how = outcome.err().map(|error| error.downcast::<Ended>().map(|ended| ended.how));
            let fate = match how {
                None => "never ended".to_owned(),
                Some(Err(error)) => format!("{error:#}"),
                Some(Ok(how)) if *seen => format!("ended by {}", spelt(&how)),
                Some(Ok(how)) => format!("still connected, but once it read: {}", spelt(&how)),
            };
            *fates.entry(fate).or_insert(0) += 1;
        }
        fates
    }
}

fn spelt(how: &How) -> String {
    match how {
        How::Closed { .. } => format!("a close frame, {how}"),
        How::WithoutClose => "the end of the stream, without a close frame".to_owned(),
        How::Broken(_) => how.to_string(),
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (calm, stalled, watch) = (&self.calm, &self.stalled, &self.watch);
        writeln!(f, "latency without stalled  {:>8.2} ms   99 % within {:.2} ms", ms(calm.p50), ms(calm.p99))?;
        writeln!(f, "latency with stalled     {:>8.2} ms   99 % within {:.2} ms", ms(stalled.p50), ms(stalled.p99))?;
        writeln!(f, "ratio of the p99         {:>8.2}", stalled.p99.as_secs_f64() / calm.p99.as_secs_f64())?;
        writeln!(f, "offered to each stalled  {:>8.2} MiB", mib(self.offered))?;
        for (fate, count) in &self.fates {
            writeln!(f, "stalled connections      {count:>8}      {fate}")?;
        }
        if let (Some(first), Some(last)) = (watch.ended.first(), watch.ended.last()) {
            writeln!(
                f,
                "ended after              {:>8.1} s    the last after {:.1} s",
                first.as_secs_f64(),
                last.as_secs_f64()
            )?;
        }
        let (before, peak) = (mib(watch.memory_before), mib(watch.memory_peak));
        write!(f, "server RssAnon at most   {peak:>8.1} MiB  {before:.1} MiB before")
    }
}
