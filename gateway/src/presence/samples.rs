//! For tests: records of a node, and wrong ways to read records.

use std::ops::Range;

use super::name::Name;
use super::record::{Member, OnChannel, Written};
use crate::cluster::Life;

/// What a reader makes of a record before it folds it. The right one changes nothing.
pub(crate) type Fault = fn(&mut Written);

/// Each must be found.
pub(crate) const FAULTS: [(&str, Fault); 5] = [
    ("ignores ended lives", |written| written.ended.clear()),
    ("ignores the ends of lists", |written| written.list = written.list.filter(|part| !part.ends())),
    ("ignores leaves", |written| written.channels.iter_mut().for_each(|on| on.leave.clear())),
    ("forgets the lives", |written| written.life = written.life.map(|life| Life { incarnation: 1, ..life })),
    ("counts lists twice", |written| {
        if written.list.is_some() {
            written.channels.iter_mut().for_each(|on| on.count = on.count.map(|count| 2 * count));
        }
    }),
];

/// Some of many users.
pub(crate) fn members(range: Range<u32>) -> Vec<Member> {
    range.map(|number| Member::new(&Name::user(&format!("user{number:06}")), None)).collect()
}

/// They join `room`, as the record of this number of a node's first life.
pub(crate) fn join(number: u64, range: Range<u32>) -> Written {
    let life = Some(Life { node: 1, incarnation: 1 });
    let channels = vec![OnChannel { join: members(range), ..OnChannel::new("room") }];
    Written { life, number, channels, ..Written::default() }
}
