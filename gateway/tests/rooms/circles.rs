//! Circles of files that lead through more than one room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::tree::Use;

/// Uses, each from where the last one leads to; the last leads to where the first comes from.
pub(crate) type Circle = Vec<Use>;

/// The module at the crate's root that a file belongs to: `worker/hub.rs` and `worker.rs` are in the room `worker`.
pub(crate) fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The rooms that a circle leads through.
pub(crate) fn rooms(circle: &[Use]) -> BTreeSet<&str> {
    circle.iter().map(|link| room(&link.from)).collect()
}

/// One of the shortest circles for each set of rooms that a circle joins, the shortest first. Empty if no circle
/// leads through two rooms.
pub(crate) fn circles(uses: &[Use]) -> Vec<Circle> {
    let mut found: BTreeMap<Vec<String>, Circle> = BTreeMap::new();
    for link in uses.iter().filter(|link| room(&link.from) != room(&link.to)) {
        let Some(back) = shortest(uses, &link.to, &link.from) else { continue };
        let circle: Circle = [vec![link.clone()], back].concat();
        let key = rooms(&circle).into_iter().map(str::to_owned).collect();
        let known = found.entry(key).or_insert_with(|| circle.clone());
        if circle.len() < known.len() {
            *known = circle;
        }
    }
    let mut circles: Vec<_> = found.into_values().collect();
    circles.sort_by_key(Vec::len);
    circles
}

/// The fewest uses that lead from one file to the other.
fn shortest(uses: &[Use], from: &str, to: &str) -> Option<Circle> {
    let mut came_by: BTreeMap<&str, &Use> = BTreeMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(file) = next.pop_front() {
        if file == to {
            let mut way = Vec::new();
            let mut at = to;
            while at != from {
                let link = came_by[at];
                way.insert(0, link.clone());
                at = &link.from;
            }
            return Some(way);
        }
        for link in uses.iter().filter(|link| link.from == file && link.to != from) {
            came_by.entry(&link.to).or_insert_with(|| {
                next.push_back(&link.to);
                link
            });
        }
    }
    None
}
