//! The rule of rights: after a reader's right to a lane was withdrawn, no message comes until it is given again.
//!
//! What a reader misses meanwhile is not lost, unless a recovery promised it.

use std::time::Duration;

use crate::history::Met;

/// The messages that came later than a withdrawal allows, and why each is wrong.
pub(crate) fn late(met: &[Met]) -> Vec<(&str, String)> {
    let mut limit: Option<Duration> = None;
    let mut late = Vec::new();
    for met in met {
        match (met, limit) {
            // The first of several withdrawals counts.
            (Met::Withdrawn { by }, _) => limit = Some(limit.map_or(*by, |limit| limit.min(*by))),
            (Met::Given, _) => limit = None,
            (Met::Timed(payload, at), Some(by)) if *at > by => {
                late.push((payload.as_str(), format!("{:?} later than the withdrawal of the right allows", *at - by)));
            }
            (Met::Message(payload), Some(_)) => {
                late.push((payload.as_str(), "at an unknown time after the right was withdrawn".to_owned()));
            }
            _ => {}
        }
    }
    late
}

/// Whether a message that belongs between two places of a view may be missing because the reader had no right to it.
pub(crate) fn excuses(met: &[Met], from: usize, to: usize) -> bool {
    let change = |met: &Met| match met {
        Met::Withdrawn { .. } => Some(true),
        Met::Given => Some(false),
        _ => None,
    };
    let mut without = met[..from].iter().rev().find_map(change).unwrap_or(false);
    let mut excused = without;
    for met in met.get(from..to).unwrap_or_default() {
        without = change(met).unwrap_or(without);
        // A recovery promises what was missed without the right, too.
        excused = without || (excused && *met != Met::Recovered);
    }
    excused
}
