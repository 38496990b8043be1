//! `load suite`: every measurement on the floor and on the gateway in turn, as one table in Markdown.
//!
//! A fresh server for each measurement, the floor just before the gateway each time, because the machine drifts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::fanout::ms;
use crate::protocol::Protocol;
use crate::server::PORT;
use crate::subject;
use crate::table::{Table, Unit};
use crate::{connect, fanout, idle, stalled};

/// All measurements, floor and gateway in turn, as a table in Markdown
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Options {
    /// The gateway's binary
    #[arg(long, value_name = "PATH_TO_FANFARE")]
    server: PathBuf,
    /// File for the table, besides standard output
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measurements of each kind, of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each fan-out
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds over which idle CPU time is measured
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Only tests whose name contains one of these
    #[arg(long, num_args = 1.., value_name = "PART_OF_NAME")]
    only: Vec<String>,
    /// Core for the servers
    #[arg(long, default_value = "0")]
    server_core: String,
    /// Core for the client
    #[arg(long, default_value = "1")]
    client_core: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Floor,
    Gateway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    InFlight { subscribers: usize, in_flight: u32, protocol: Protocol, wanted: &'static str },
    Rate,
    Idle,
    Connect,
    Stalled,
}

const fn in_flight(subscribers: usize, in_flight: u32, protocol: Protocol, wanted: &'static str) -> Test {
    Test::InFlight { subscribers, in_flight, protocol, wanted }
}

const TESTS: [Test; 9] = [
    in_flight(1_000, 1, Protocol::Raw, "≥ 0.95 × floor"),
    in_flight(1_000, 4, Protocol::Raw, "≥ 3 × floor"),
    in_flight(1_000, 16, Protocol::Raw, "≥ 10 × floor"),
    in_flight(10_000, 1, Protocol::Raw, "≥ 0.95 × floor"),
    in_flight(1_000, 1, Protocol::Native, ""),
    Test::Rate,
    Test::Idle,
    Test::Connect,
    Test::Stalled,
];

impl Test {
    fn name(self) -> String {
        match self {
            Self::InFlight { subscribers, in_flight, protocol, .. } => {
                let protocol = format!("{protocol:?}").to_lowercase();
                format!("{protocol}, {subscribers} subscribers, {in_flight} in flight")
            }
            Self::Rate => "1000 subscribers, 50 messages/s".to_owned(),
            Self::Idle => "10000 idle connections".to_owned(),
            Self::Connect => "5000 handshakes (gateway: native, with a subscription each)".to_owned(),
            Self::Stalled => "1000 subscribers and 10 stalled, 50 messages/s of 4 KiB".to_owned(),
        }
    }

    /// The floor speaks raw only, and it drops stalled clients at once.
    fn sides(self) -> &'static [Side] {
        match self {
            Self::Stalled => &[Side::Gateway],
            _ => &[Side::Floor, Side::Gateway],
        }
    }

    fn protocol(self, side: Side) -> Protocol {
        match (self, side) {
            (Self::InFlight { protocol, .. }, Side::Gateway) => protocol,
            (Self::Connect, Side::Gateway) => Protocol::Native,
            _ => Protocol::Raw,
        }
    }
}

impl Options {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(self.rounds > 0 && self.seconds > 0, "at least one round of one second is needed");
        ensure!(self.server.is_file(), "{}: no such program", self.server.display());
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()));
        let tests: Vec<Test> = TESTS.into_iter().filter(|test| wanted(&test.name())).collect();
        ensure!(!tests.is_empty(), "--only leaves no test");
        let mut table = Table::default();
        for test in tests {
            for round in 1..=self.rounds {
                for side in test.sides() {
                    eprintln!("{}, round {round} of {}: {side:?}", test.name(), self.rounds);
                    if let Err(error) = self.measure(test, *side, &mut table) {
                        eprintln!("{error:#}");
                        table.failed(format!("{}, {side:?}: {}", test.name(), error.root_cause()));
                    }
                }
            }
        }
        let text = format!("{}\n{table}", self.heading()?);
        println!("{text}");
        if let Some(path) = &self.out {
            fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        match table.failures() {
            0 => Ok(()),
            failures => bail!("{failures} measurements failed"),
        }
    }

    fn measure(&self, test: Test, side: Side, table: &mut Table) -> Result<()> {
        let subject = self.subject(test, side)?;
        let floor = side == Side::Floor;
        let name = test.name();
        let mut put = |title: String, unit, wanted, value: f64| table.put(&title, unit, wanted, floor, value);
        match test {
            Test::InFlight { subscribers, in_flight, wanted, .. } => {
                let outcome = subject.run(|it| self.fanout(subscribers, in_flight, None).measure(it))?;
                let rate = outcome.per_cpu_second().context("the server used no CPU time")?;
                put(format!("{name}: deliveries per CPU-second"), Unit::Thousands, wanted, rate);
                put(format!("{name}: p99"), Unit::Milliseconds, "", ms(outcome.p99));
            }
            Test::Rate => {
                let outcome = subject.run(|it| self.fanout(1_000, 1, Some(50.0)).measure(it))?;
                put(format!("{name}: p50"), Unit::Milliseconds, "", ms(outcome.p50));
                put(format!("{name}: p99"), Unit::Milliseconds, "≤ 1.2 × floor", ms(outcome.p99));
            }
            Test::Idle => {
                // The floor does nothing for an idle connection, so its CPU time is not waited for.
                let seconds = if floor { 1 } else { self.idle_seconds };
                let shape =
                    idle::Shape { connections: 10_000, subscribe: false, seconds, secret: None, processes: None };
                let outcome = subject.run(|it| shape.measure(it))?;
                put(format!("{name}: user bytes each"), Unit::Whole, "≤ 1,500", outcome.bytes_per_connection());
                put(format!("{name}: CPU µs each per second"), Unit::Micro, "≤ 0.8", outcome.cpu_microseconds());
                if !outcome.steady {
                    table.note(format!("{name}: the memory of the {side:?} did not become steady"));
                }
            }
            Test::Connect => {
                let shape = connect::Shape { connections: 5_000, subscribe: true };
                let outcome = subject.run(|it| shape.measure(it))?;
                put(format!("{name}: per CPU-second"), Unit::Thousands, "≥ 20k", outcome.per_cpu_second());
            }
            Test::Stalled => {
                let seconds = self.seconds * 2;
                let shape = stalled::Shape { subscribers: 1_000, stalled: 10, rate: 50.0, size: 4096, seconds };
                let outcome = subject.run(|it| shape.measure(it))?;
                let (calm, with) = (ms(outcome.calm.p99), ms(outcome.stalled.p99));
                put(format!("{name}: others' p99"), Unit::Milliseconds, "", with);
                put(format!("{name}: ratio to p99 without stalled"), Unit::Ratio, "≤ 1.2", with / calm);
                let peak = outcome.watch.memory_peak as f64 / f64::from(1 << 20);
                put(format!("{name}: RssAnon at most, MiB"), Unit::Ratio, "", peak);
                for (fate, count) in &outcome.fates {
                    table.note(format!("stalled connections: {count} {fate}"));
                }
            }
        }
        Ok(())
    }

    fn fanout(&self, subscribers: usize, in_flight: u32, rate: Option<f64>) -> fanout::Shape {
        fanout::Shape { subscribers, in_flight, rate, size: 64, seconds: self.seconds, warm_up: 2, processes: None }
    }

    fn subject(&self, test: Test, side: Side) -> Result<subject::Options> {
        let address = format!("127.0.0.1:{PORT}");
        let (program, arguments) = match side {
            Side::Floor => (std::env::current_exe()?, vec!["floor", "--listen", &address]),
            Side::Gateway => (self.server.clone(), vec!["serve", "--listen", &address, "--broker", "memory:"]),
        };
        let program = program.to_str().context("the server's path is not UTF-8")?;
        Ok(subject::Options {
            url: None,
            pid: None,
            protocol: test.protocol(side),
            server_core: self.server_core.clone(),
            client_core: self.client_core.clone(),
            server: std::iter::once(program).chain(arguments).map(str::to_owned).collect(),
        })
    }

    fn heading(&self) -> Result<String> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let (cpu, kernel) = (read("/proc/cpuinfo")?, read("/proc/sys/kernel/osrelease")?);
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let (model, kernel) = (model.map_or("an unnamed CPU", |(_, name)| name), kernel.trim());
        let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
        Ok(format!(
            "{model}, {cores} cores, Linux {kernel}. Server on core {}, client on core {}, 64-byte messages, no TLS; \
             medians of {} with the least and the most, {} s each. User bytes are `RssAnon`; CPU time is user + system.\n",
            self.server_core, self.client_core, self.rounds, self.seconds
        ))
    }
}
