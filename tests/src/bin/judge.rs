//! Judges a history that another program wrote, such as a test in JavaScript: `judge [--whole] FILE`.
//!
//! Each line of the file is JSON. Publishes stand in the order in which they began and ended, in `publish` and `ended`; a
//! publish that never ends counts as unknown. A `reader` has one line for each lane, with the payloads that it got, in order;
//! `null` is a notice that messages may be missing. Prints the numbers and each breach, and fails if there is one; with
//! `--whole`, also if a reader got such a notice.

#![allow(clippy::print_stdout, reason = "the verdict is what it prints")]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use law::{History, Met, Outcome, PublishId, Report};
use serde_json::Value;

/// Judges a history.
#[derive(Parser)]
struct Words {
    /// Fail if a reader was notified of a loss, too.
    #[arg(long)]
    whole: bool,
    /// The history.
    file: PathBuf,
}

fn main() -> Result<()> {
    let words = Words::parse();
    let file = File::open(&words.file).with_context(|| format!("cannot open {}", words.file.display()))?;
    let mut lanes = Lanes::default();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = serde_json::from_str(&line?)?;
        lanes.read(&line).with_context(|| format!("line {}: {line}", number + 1))?;
    }
    let report = lanes.report()?;
    println!("{report}");
    ensure!(report.breaches.is_empty(), "the law is broken");
    ensure!(!words.whole || report.lost_marked == 0, "messages are lost where nothing may be");
    Ok(())
}

/// The lanes by name, and the publishes that have not ended by payload.
#[derive(Default)]
struct Lanes {
    lanes: BTreeMap<String, Lane>,
    open: HashMap<String, (String, PublishId)>,
}

/// One lane: its publishes, and what each reader met there.
#[derive(Default)]
struct Lane {
    history: History,
    views: Vec<Vec<Met>>,
}

impl Lanes {
    fn read(&mut self, line: &Value) -> Result<()> {
        let text = |name: &str| line[name].as_str().with_context(|| format!("no text `{name}`"));
        if line.get("publish").is_some() {
            let (payload, lane) = (text("publish")?, text("lane")?);
            let id = self.lanes.entry(lane.to_owned()).or_default().history.publish(lane, payload);
            let before = self.open.insert(payload.to_owned(), (lane.to_owned(), id));
            ensure!(before.is_none(), "it was published already");
        } else if line.get("ended").is_some() {
            let (lane, id) = self.open.remove(text("ended")?).context("no such publish is open")?;
            let outcome = match text("outcome")? {
                "acknowledged" => Outcome::Acknowledged,
                "failed" => Outcome::Failed,
                "unknown" => Outcome::Unknown,
                other => bail!("`{other}` is no outcome"),
            };
            self.lanes.entry(lane).or_default().history.ended(id, outcome);
        } else {
            text("reader")?;
            let met = line["met"].as_array().context("no list `met`")?.iter().map(met);
            let view = met.collect::<Result<_>>()?;
            self.lanes.entry(text("lane")?.to_owned()).or_default().views.push(view);
        }
        Ok(())
    }

    fn report(self) -> Result<Report> {
        let readers = self.lanes.values().map(|lane| lane.views.len()).max().unwrap_or_default();
        let mut sum = Report::default();
        for (name, Lane { history, views }) in self.lanes {
            ensure!(views.len() == readers && readers > 0, "lane {name} has {} of {readers} readers", views.len());
            sum += history.report_of(&name, views);
        }
        ensure!(sum.acked > 0, "nothing was acknowledged");
        Ok(sum)
    }
}

fn met(value: &Value) -> Result<Met> {
    match value {
        Value::Null => Ok(Met::Mark),
        Value::String(payload) => Ok(Met::Message(payload.clone())),
        other => bail!("a reader cannot have met {other}"),
    }
}
