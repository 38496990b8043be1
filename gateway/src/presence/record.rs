//! The records of presence: their JSON.
//!
//! A record belongs to one life of one node and speaks of channels of the partition that it stands in. Its number counts the
//! records of that life in that partition, so that a reader notices one that is missing and one that comes too late.
//! Fields that a release does not know are ignored.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::name::Name;
use crate::cluster::Life;

/// The channel of these records. Clients cannot name it: their channels have no braces.
pub(crate) const CHANNEL: &str = "{presence}";

/// What others see of a user, as JSON.
pub(crate) type Info = Arc<str>;

/// One record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The life of the node whose members it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) life: Option<Life>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) number: u64,
    /// Its place in a list of all members of that life in this partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) list: Option<Part>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<OnChannel>,
    /// Lives whose members are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended: Vec<Life>,
    /// Whether all nodes shall write their lists in this partition, because one of them lacks some.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ask: bool,
}

/// The place of a record in a list, which is a run of records without another one of that life between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// The first and last one.
    Whole,
    First,
    More,
    Last,
}

/// What a record says of one channel.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct OnChannel {
    pub(crate) channel: String,
    /// Members that are there now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) join: Vec<Member>,
    /// Members that are there no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) leave: Vec<Member>,
    /// The number of subscribers, where members are not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
}

/// A member as a record has it: with `user` or `client`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Member {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<Box<RawValue>>,
}

impl Part {
    /// The place of part `index` of `count`.
    pub(crate) fn of(index: usize, count: usize) -> Self {
        match (index == 0, index + 1 == count) {
            (true, true) => Self::Whole,
            (true, false) => Self::First,
            (false, true) => Self::Last,
            (false, false) => Self::More,
        }
    }

    pub(crate) fn begins(self) -> bool {
        matches!(self, Self::Whole | Self::First)
    }

    pub(crate) fn ends(self) -> bool {
        matches!(self, Self::Whole | Self::Last)
    }
}

impl Member {
    pub(crate) fn new(name: &Name, info: Option<&Info>) -> Self {
        let text = Some(name.text().to_owned());
        let (user, client) = if name.kind() == "user" { (text, None) } else { (None, text) };
        // What tokens say was parsed as JSON before.
        let info = info.and_then(|info| RawValue::from_string(info.to_string()).ok());
        Self { user, client, info }
    }

    /// `None` for a member of a kind that only newer releases know.
    pub(crate) fn name(&self) -> Option<Name> {
        match (&self.user, &self.client) {
            (Some(user), _) => Some(Name::user(user)),
            (None, Some(client)) => Some(Name::client(client)),
            (None, None) => None,
        }
    }

    pub(crate) fn info(&self) -> Option<Info> {
        self.info.as_ref().map(|info| info.get().into())
    }

    /// The bytes of its JSON, roughly.
    fn weight(&self) -> usize {
        let text = self.user.as_ref().or(self.client.as_ref()).map_or(0, String::len);
        text + self.info.as_ref().map_or(0, |info| info.get().len()) + 24
    }
}

impl OnChannel {
    pub(crate) fn new(channel: &str) -> Self {
        Self { channel: channel.to_owned(), ..Self::default() }
    }
}

/// Divides what is to be written among records of at most about `most` bytes each; a member is never divided.
pub(crate) fn divide(channels: Vec<OnChannel>, most: usize) -> Vec<Vec<OnChannel>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for on in channels {
        let OnChannel { channel, join, leave, count } = on;
        let each = join.into_iter().map(|member| (true, member)).chain(leave.into_iter().map(|member| (false, member)));
        let mut here = OnChannel { count, ..OnChannel::new(&channel) };
        bytes += channel.len() + 40;
        for (joins, member) in each {
            if bytes >= most {
                let full = std::mem::replace(&mut here, OnChannel::new(&channel));
                push(&mut parts, full);
                parts.push(Vec::new());
                bytes = channel.len() + 40;
            }
            bytes += member.weight();
            if joins { here.join.push(member) } else { here.leave.push(member) }
        }
        push(&mut parts, here);
    }
    parts
}

fn push(parts: &mut [Vec<OnChannel>], on: OnChannel) {
    let says = !on.join.is_empty() || !on.leave.is_empty() || on.count.is_some();
    if let Some(last) = parts.last_mut().filter(|_| says) {
        last.push(on);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let info: Info = r#"{"age":7}"#.into();
        let on = OnChannel {
            join: vec![Member::new(&Name::user("a\"b"), Some(&info)), Member::new(&Name::client("x"), None)],
            leave: vec![Member::new(&Name::user("bob"), None)],
            count: Some(3),
            ..OnChannel::new("room")
        };
        let life = Some(Life { node: 255, incarnation: 2 });
        let written = Written { life, number: 7, list: Some(Part::First), channels: vec![on], ..Written::default() };
        let json = serde_json::to_string(&written).expect("it is JSON");
        let read: Written = serde_json::from_str(&json).expect("its own JSON");
        assert_eq!(serde_json::to_string(&read).expect("it is JSON"), json);
        let member = &read.channels[0].join[0];
        assert_eq!((member.name(), member.info()), (Some(Name::user("a\"b")), Some(info)));
        let unknown: Written = serde_json::from_str(r#"{"later":1}"#).expect("unknown fields are ignored");
        assert!(unknown.life.is_none() && unknown.channels.is_empty());
    }

    #[test]
    fn records_are_small_and_lose_no_member() {
        let members = (0..1_000).map(|number| Member::new(&Name::user(&format!("user{number}")), None));
        let on = OnChannel { join: members.collect(), ..OnChannel::new("room") };
        let gone = OnChannel { leave: vec![Member::new(&Name::user("bob"), None)], ..OnChannel::new("other") };
        let parts = divide(vec![on, gone], 2_000);
        assert!(parts.len() > 10);
        for part in &parts {
            let json = serde_json::to_string(part).expect("it is JSON");
            assert!(!part.is_empty() && json.len() < 2_500, "{}", json.len());
        }
        let joined = parts.iter().flatten().map(|on| on.join.len()).sum::<usize>();
        let left = parts.iter().flatten().map(|on| on.leave.len()).sum::<usize>();
        assert_eq!((joined, left), (1_000, 1));
        assert_eq!(divide(Vec::new(), 9).len(), 1, "an empty list is one record");
        assert_eq!(
            [(0, 1), (0, 3), (1, 3), (2, 3)].map(|(index, count)| Part::of(index, count)),
            [Part::Whole, Part::First, Part::More, Part::Last]
        );
    }
}
