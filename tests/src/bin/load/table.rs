//! The suite's results: medians, their spread, and the ratio to the floor, as Markdown. Pure.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Thousands,
    Milliseconds,
    Whole,
    Micro,
    Ratio,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Thousands if value < 9_950.0 => format!("{:.1}k", value / 1000.0),
            Self::Thousands => format!("{:.0}k", value / 1000.0),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::Whole => format!("{value:.0}"),
            Self::Micro => format!("{value:.3}"),
            Self::Ratio => format!("{value:.2}"),
        }
    }

    /// The median, and where there are several values their range.
    fn summary(self, values: &[f64]) -> String {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        match sorted[..] {
            [] => "–".to_owned(),
            [only] => self.show(only),
            [least, .., most] => {
                format!("{} ({}–{})", self.show(median(values).unwrap_or(least)), self.show(least), self.show(most))
            }
        }
    }
}

#[derive(Debug)]
struct Row {
    title: String,
    unit: Unit,
    wanted: &'static str,
    floor: Vec<f64>,
    gateway: Vec<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: BTreeMap<String, usize>,
    failures: BTreeMap<String, usize>,
}

impl Table {
    /// Adds a value to the row of that title, which is opened when new.
    pub(crate) fn put(&mut self, title: &str, unit: Unit, wanted: &'static str, floor: bool, value: f64) {
        let place = self.rows.iter().position(|row| row.title == title).unwrap_or_else(|| {
            let (floor, gateway) = (Vec::new(), Vec::new());
            self.rows.push(Row { title: title.to_owned(), unit, wanted, floor, gateway });
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        match floor {
            true => row.floor.push(value),
            false => row.gateway.push(value),
        }
    }

    /// Adds a remark, which is printed once with the number of times it was made.
    pub(crate) fn note(&mut self, remark: String) {
        *self.notes.entry(remark).or_insert(0) += 1;
    }

    pub(crate) fn failed(&mut self, what: String) {
        *self.failures.entry(what).or_insert(0) += 1;
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures.values().sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| measure | floor | fanfare | ratio to the floor | wanted |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for Row { title, unit, wanted, floor, gateway } in &self.rows {
            let ratio = match (median(floor), median(gateway)) {
                (Some(floor), Some(gateway)) if floor > 0.0 => format!("{:.2}", gateway / floor),
                _ => "–".to_owned(),
            };
            let (floor, gateway) = (unit.summary(floor), unit.summary(gateway));
            writeln!(f, "| {title} | {floor} | {gateway} | {ratio} | {wanted} |")?;
        }
        let remarks = self.notes.iter().map(|remark| ("", remark));
        let failures = self.failures.iter().map(|failure| ("FAILED: ", failure));
        for (index, (kind, (remark, times))) in remarks.chain(failures).enumerate() {
            let blank = if index == 0 { "\n" } else { "" };
            writeln!(f, "{blank}- {kind}{remark} (in {times} runs)")?;
        }
        Ok(())
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_do_not_depend_on_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_table_has_medians_spread_ratio_and_every_failure() {
        let mut table = Table::default();
        for (floor, gateway) in [(200_000.0, 100_000.0), (220_000.0, 330_000.0), (210_000.0, 210_000.0)] {
            table.put("rate", Unit::Thousands, "≥ 1", true, floor);
            table.put("rate", Unit::Thousands, "≥ 1", false, gateway);
        }
        table.put("alone", Unit::Milliseconds, "", false, 1.25);
        table.failed("gap at receiver 1".to_owned());
        table.failed("gap at receiver 1".to_owned());
        let text = table.to_string();
        assert!(text.contains("| rate | 210k (200k–220k) | 210k (100k–330k) | 1.00 | ≥ 1 |"), "{text}");
        assert!(text.contains("| alone | – | 1.25 ms | – |  |"), "{text}");
        assert!(text.contains("- FAILED: gap at receiver 1 (in 2 runs)"), "{text}");
        assert_eq!(table.failures(), 2);
    }
}
