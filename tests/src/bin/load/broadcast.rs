//! One publisher, many receivers: publishes at a pace, checks every receiver, measures the server meanwhile.
//!
//! The publisher is the last of the sockets and itself a receiver. Each message leaves by a `write` of its own, as from
//! any client. Stops by itself: at the end of the time, or when nothing is delivered for 10 s.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::audience::Audience;
use crate::helpers::{self, Helpers};
use crate::measure::Process;
use crate::subject::Subject;
use crate::swarm::{Ready, Swarm};

/// How long a server may deliver nothing of what was published.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a measurement looks up from its sockets.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Messages that are published before it is an error that a receiver has heard none.
const PRIMERS: u32 = 20;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many messages are on their way: the next is published when the publisher has one back.
    InFlight(u32),
    /// Messages per second, whatever comes back; latencies count from the time at which each was due.
    Rate(f64),
}

/// What one measurement gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) published: u64,
    pub(crate) deliveries: u64,
    pub(crate) wall: Duration,
    /// CPU time of the server.
    pub(crate) cpu: Option<Duration>,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Outcome {
    pub(crate) fn per_cpu_second(&self) -> Option<f64> {
        let cpu = self.cpu?.as_secs_f64();
        (cpu > 0.0).then(|| self.deliveries as f64 / cpu)
    }
}

pub(crate) struct Broadcast<'a> {
    subject: &'a Subject,
    swarm: Swarm,
    helpers: Helpers,
    audience: Audience,
    size: usize,
    clock: Instant,
    ready: Vec<Ready>,
    frame: Vec<u8>,
}

impl<'a> Broadcast<'a> {
    /// Opens all sockets and publishes until each of them has heard something.
    pub(crate) fn open(
        subject: &'a Subject,
        subscribers: usize,
        size: usize,
        processes: Option<usize>,
    ) -> Result<Self> {
        let shares = helpers::shares(subscribers, processes)?;
        let helpers = Helpers::start(&subject.target, subject.protocol, &shares[1..], true)?;
        let mut plan = subject.plan(shares[0]);
        plan.size = Some(size);
        let swarm = Swarm::open(plan)?;
        let audience = Audience::new(swarm.connections());
        let clock = Instant::now();
        let mut all = Self { subject, swarm, helpers, audience, size, clock, ready: Vec::new(), frame: Vec::new() };
        all.prime()?;
        Ok(all)
    }

    /// Warms up, then measures for `length`; `tick` is called about every 100 ms while measuring.
    pub(crate) fn measure(
        &mut self,
        pace: Pace,
        warm_up: Duration,
        length: Duration,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Outcome> {
        let process = self.subject.known_process();
        self.go(pace, warm_up, &mut || Ok(()))?;
        self.settle()?;
        self.audience.reset();
        let (elsewhere, published) = (self.elsewhere()?.0, self.audience.published());
        let (cpu, start) = (process.map(Process::cpu).transpose()?, Instant::now());
        self.go(pace, length, tick)?;
        let wall = start.elapsed();
        let spent = process.map(Process::cpu).transpose()?.zip(cpu).map(|(after, before)| after - before);
        let deliveries = self.audience.deliveries() + self.elsewhere()?.0 - elsewhere;
        let published = self.audience.published() - published;
        self.settle()?;
        let latency = self.audience.latency();
        let (p50, p99) = (latency.quantile(0.5), latency.quantile(0.99));
        Ok(Outcome { published, deliveries, wall, cpu: spent, p50, p99 })
    }

    /// Publishes until every receiver has heard something: a server may subscribe a moment after its handshake.
    fn prime(&mut self) -> Result<()> {
        for _ in 0..PRIMERS {
            self.publish(self.now())?;
            let deadline = Instant::now() + PATIENCE / PRIMERS;
            while Instant::now() < deadline {
                self.turn(TICK, Pace::InFlight(0))?;
                if self.audience.slowest().1 > 0 && self.elsewhere()?.1 > 0 {
                    return self.settle();
                }
            }
        }
        let (receiver, _) = self.audience.slowest();
        anyhow::bail!("receiver {receiver} heard none of {PRIMERS} messages: is the channel of the URL a broadcast?")
    }

    fn go(&mut self, pace: Pace, length: Duration, tick: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        let (mut due, mut ticked) = (start, start);
        let mut progress = (self.audience.deliveries(), start);
        loop {
            let now = Instant::now();
            if now >= start + length {
                return Ok(());
            }
            if now - ticked >= TICK {
                ticked = now;
                tick()?;
                let deliveries = self.audience.deliveries();
                if deliveries != progress.0 || self.audience.slowest().1 == self.audience.published() {
                    progress = (deliveries, now);
                }
                let (receiver, heard) = self.audience.slowest();
                ensure!(now - progress.1 < PATIENCE, "nothing for {PATIENCE:?}: receiver {receiver} waits for {heard}");
            }
            let mut wake = TICK.min(start + length - now);
            if let Pace::Rate(rate) = pace {
                while due <= now {
                    self.publish((due - self.clock).as_nanos() as u64)?;
                    due += Duration::from_secs_f64(1.0 / rate);
                }
                wake = wake.min(due - now);
            }
            self.refill(pace)?;
            self.turn(wake, pace)?;
        }
    }

    /// Waits until everything that was published has reached every receiver.
    fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let published = self.audience.published();
            let (receiver, heard) = self.audience.slowest();
            if heard == published && self.elsewhere()?.1 >= published {
                return Ok(());
            }
            let patient = Instant::now() < deadline;
            ensure!(
                patient,
                "receiver {receiver} never heard message {heard}, the last published was {}",
                published - 1
            );
            self.turn(TICK / 10, Pace::InFlight(0))?;
        }
    }

    /// Waits for news and reads them; the publisher goes on as soon as it has its message back.
    fn turn(&mut self, patience: Duration, pace: Pace) -> Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.swarm.wait(patience, &mut ready)?;
        let (audience, clock) = (&mut self.audience, self.clock);
        let publisher = self.swarm.connections() - 1;
        let mut returned = false;
        for news in &ready {
            let mut now = None;
            self.swarm.read(*news, &mut |receiver, number| {
                // One look at the clock for all that came in one read.
                let now = *now.get_or_insert_with(|| clock.elapsed().as_nanos() as u64);
                Ok(audience.hear(receiver, number, now)?)
            })?;
            returned |= news.index == publisher;
        }
        self.ready = ready;
        match returned {
            true => self.refill(pace),
            false => Ok(()),
        }
    }

    fn refill(&mut self, pace: Pace) -> Result<()> {
        if let Pace::InFlight(wanted) = pace {
            let publisher = self.swarm.connections() - 1;
            while self.audience.published() - self.audience.heard(publisher) < u64::from(wanted) {
                self.publish(self.now())?;
            }
        }
        Ok(())
    }

    fn publish(&mut self, time: u64) -> Result<()> {
        let sequence = self.audience.publish(time);
        self.frame.clear();
        self.subject.protocol.append_publish(&mut self.frame, sequence, self.size);
        self.swarm.send(self.swarm.connections() - 1, &self.frame)
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Deliveries in other processes, and how many messages the slowest receiver there has.
    fn elsewhere(&mut self) -> Result<(u64, u64)> {
        Ok(self.helpers.ask()?.unwrap_or((0, u64::MAX)))
    }
}
