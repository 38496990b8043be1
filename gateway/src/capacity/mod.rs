//! `fanfare capacity`: computes the resources for a number of connections and compares them with this machine's limits.
//!
//! The costs are measured constants. Reads only `/proc` and `/sys`, and prints nothing.

mod costs;
mod machine;
mod plan;

use std::fmt;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::config::{ByteSize, parse_duration};

pub use costs::Cost;
pub use machine::{Machine, Shortfall};
pub use plan::{Figure, Plan, Unit};

use crate::columns::{grouped, wrapped};

/// The load to plan for.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
pub struct Options {
    /// Open connections on all nodes together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub connections: u64,
    /// Nodes; the cluster must carry all connections if one node is lost.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub nodes: u32,
    /// Messages published per second, on all channels together.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub rate: u64,
    /// Size of a message.
    #[arg(long, value_name = "SIZE", default_value = "256B")]
    pub size: ByteSize,
    /// Subscribers that receive each message.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=100_000_000))]
    pub subscribers: u64,
    /// The balancer ends TLS.
    #[arg(long)]
    pub tls: bool,
    /// Time between the nodes' pings (`timing.ping`).
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = parse_duration)]
    #[serde(serialize_with = "seconds")]
    pub ping: Duration,
    /// Print one JSON object.
    #[arg(long)]
    #[serde(skip)]
    pub json: bool,
}

/// Width of the columns before a formula.
const FORMULA: usize = 41;

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// The answer of `fanfare capacity`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The load to plan for.
    pub wanted: Options,
    /// The resources that it needs.
    #[serde(flatten)]
    pub plan: Plan,
    /// This machine's limits.
    pub machine: Machine,
    /// The limits that are too low.
    pub shortfalls: Vec<Shortfall>,
    /// The measured costs behind the plan.
    pub measured: [Cost; costs::ALL.len()],
}

/// Computes the plan and compares it with this machine's limits.
pub fn report(options: &Options) -> Report {
    let (plan, needs) = plan::plan(options);
    let machine = Machine::read();
    let shortfalls = machine.shortfalls(&needs);
    Report { wanted: options.clone(), plan, machine, shortfalls, measured: costs::ALL }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { connections, nodes, rate, size, subscribers, tls, ping, .. } = &self.wanted;
        let (connections, rate) = (grouped(*connections as f64), grouped(*rate as f64));
        let (tls, ping) = (if *tls { " over TLS" } else { "" }, ping.as_secs_f64());
        let (nodes, subscribers) = (counted(u64::from(*nodes), "node"), counted(*subscribers, "subscriber"));
        writeln!(f, "{connections} connections{tls} on {nodes}, pings every {ping} s")?;
        writeln!(f, "{rate} messages/s of {} B, each to {subscribers}", size.bytes())?;
        for (title, figures) in [
            ("each node (CPU: half busy)", &self.plan.node),
            ("the balancer, HAProxy (CPU: half busy)", &self.plan.balancer),
            ("when a node is lost", &self.plan.loss),
        ] {
            writeln!(f, "\n{title}")?;
            for figure in figures {
                write!(f, "  {:<23} {:>12}   ", figure.name, amount(figure))?;
                wrapped(f, FORMULA, &figure.formula)?;
                writeln!(f)?;
            }
        }
        writeln!(f, "\nmeasured (docs/benchmarks.md), with one message at a time, which is the worst case for CPU")?;
        for cost in &self.measured {
            writeln!(f, "  {:>10} {:<6} {}", grouped_or_small(cost.value), cost.unit, cost.name)?;
        }
        match self.shortfalls.is_empty() {
            true => write!(f, "\nthe limits of this machine are enough, for a node and for the balancer"),
            false => write!(f, "\nthis machine falls short"),
        }?;
        for Shortfall { what, raise } in &self.shortfalls {
            write!(f, "\n  {what}\n      ")?;
            wrapped(f, 6, raise)?;
        }
        Ok(())
    }
}

fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(number as f64), if number == 1 { "" } else { "s" })
}

fn grouped_or_small(number: f64) -> String {
    if number < 100.0 { format!("{number}") } else { grouped(number) }
}

fn amount(figure: &Figure) -> String {
    let value = figure.value;
    let scaled = |unit: &str| match value {
        v if v >= 1e9 => format!("{:.1} G{unit}", v / 1e9),
        v if v >= 1e6 => format!("{:.0} M{unit}", v / 1e6),
        v => format!("{:.0} k{unit}", v / 1e3),
    };
    match figure.unit {
        Unit::Count => grouped(value),
        Unit::Bytes => scaled("B"),
        Unit::BitsPerSecond => scaled("bit/s"),
        Unit::Cores => format!("{value:.2} cores"),
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Seconds => format!("{value:.1} s"),
    }
}

#[cfg(test)]
fn options(line: &str) -> Options {
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }
    let words = ["capacity"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_figure_and_every_constant() {
        let report = report(&options("--connections 100000 --tls"));
        let text = report.to_string();
        let figures = [&report.plan.node, &report.plan.balancer, &report.plan.loss].into_iter().flatten();
        for name in figures.map(|figure| figure.name).chain(report.measured.iter().map(|cost| cost.name)) {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
        for value in ["110,000", "220,200", "33,334", "50,200"] {
            assert!(text.contains(value), "{value} is not in\n{text}");
        }
    }

    #[test]
    fn scripts_get_numbers_with_their_unit() {
        let json =
            serde_json::to_value(report(&options("--connections 15000 --nodes 1 --rate 0"))).expect("plain data");
        let memory = &json["node"][2];
        assert_eq!((&memory["name"], &memory["unit"]), (&"memory, node".into(), &"bytes".into()));
        assert_eq!(memory["value"], 13e6 + 15_000.0 * 1_230.0);
        assert_eq!(json["wanted"]["ping"], 25.0);
    }
}
