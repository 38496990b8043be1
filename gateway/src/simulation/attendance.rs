//! Who is subscribed to which channel: the truth, and what nodes and clients see of it.
//!
//! The truth is what clients know of their own subscriptions. Several clients are connections of one user, who is one member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::node::Node;
use super::tokens::user;
use super::world::World;

/// The rules of all worlds: who may see members, and one channel that is only counted.
pub(super) const RULES: &str = r#"
    [[channels]]
    match = "channel-1"
    presence = "counts"
    see_presence = "anyone"
    [[channels]]
    match = "*"
    presence = "members"
    see_presence = "anyone"
"#;

/// Beside what nodes need to know each other: lists are asked for every 10 s, and lives end after at most 3 s.
const SLACK: Duration = Duration::from_secs(20);

/// A member that has been subscribed for so long, beside its linger, is written as joined on all nodes, whatever delayed that.
const STEADY: Duration = Duration::from_secs(15);

/// The pause between two looks.
const GLANCE: Duration = Duration::from_millis(100);

/// Who is subscribed, and what the clients that asked were shown.
#[derive(Default)]
pub(super) struct Attendance {
    /// Since when, by client and channel.
    subscribed: BTreeMap<(usize, String), Instant>,
    shown: BTreeMap<(usize, String), Shown>,
}

/// Who is in a channel. Without names if the channel is counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Shown {
    members: BTreeSet<String>,
    count: u64,
}

fn is_counted(channel: &str) -> bool {
    channel == "channel-1"
}

fn names(list: &Value) -> impl Iterator<Item = String> {
    let name = |member: &Value| member["user"].as_str().map(str::to_owned);
    list.as_array().into_iter().flatten().filter_map(name)
}

impl Attendance {
    /// A client's subscription begins.
    pub(super) fn begin(&mut self, client: usize, channel: &str) {
        self.subscribed.insert((client, channel.to_owned()), Instant::now());
    }

    /// A client's subscription ends.
    pub(super) fn end(&mut self, client: usize, channel: &str) {
        let key = (client, channel.to_owned());
        self.subscribed.remove(&key);
        self.shown.remove(&key);
    }

    /// All subscriptions of a client end.
    pub(super) fn end_all(&mut self, client: usize) {
        self.subscribed.retain(|(of, _), _| *of != client);
        self.shown.retain(|(of, _), _| *of != client);
    }

    /// A client is shown a whole list.
    pub(super) fn list(&mut self, client: usize, channel: &str, list: &Value) {
        let shown = Shown { members: names(&list["members"]).collect(), count: list["count"].as_u64().unwrap_or(0) };
        self.shown.insert((client, channel.to_owned()), shown);
    }

    /// A client is shown a change. Returns the members that have left.
    pub(super) fn change(&mut self, client: usize, channel: &str, change: &Value) -> Vec<String> {
        let left: Vec<_> = names(&change["left"]).collect();
        if let Some(shown) = self.shown.get_mut(&(client, channel.to_owned())) {
            shown.members.extend(names(&change["joined"]));
            shown.members.retain(|member| !left.contains(member));
            shown.count = change["count"].as_u64().unwrap_or(0);
        }
        left
    }

    /// Whether a user has been subscribed to a channel for this long.
    pub(super) fn is_steady(&self, name: &str, channel: &str, long: Duration) -> bool {
        let of = |(client, on): &(usize, String)| on == channel && user(*client) == name;
        self.subscribed.iter().any(|(key, since)| of(key) && since.elapsed() > long)
    }

    fn truth(&self, channel: &str) -> Shown {
        let clients = self.subscribed.keys().filter(|(_, on)| on == channel).map(|(client, _)| *client);
        if is_counted(channel) {
            return Shown { members: BTreeSet::new(), count: clients.count() as u64 };
        }
        let members: BTreeSet<_> = clients.map(user).collect();
        Shown { count: members.len() as u64, members }
    }
}

/// What a node knows.
fn seen(node: &Node, channel: &str) -> Option<(Shown, bool)> {
    let (presence, log) = (node.presence()?, node.log()?);
    let snapshot = presence.snapshot(log.partition_of(channel), channel, None, usize::MAX);
    let members = snapshot.members.iter().map(|(name, _)| name.text().to_owned()).collect();
    Some((Shown { members, count: snapshot.count }, snapshot.partial))
}

impl World {
    /// How a view of a node or a client differs from the truth.
    pub(super) fn wrong_views(&self) -> Option<String> {
        let attendance = self.attendance.borrow();
        for channel in &self.channels {
            let truth = attendance.truth(channel);
            for (number, node) in self.nodes.borrow().iter().enumerate() {
                match node.as_ref().and_then(|node| seen(node, channel)) {
                    Some((shown, false)) if shown == truth => {}
                    shown => return Some(format!("node {number} sees {shown:?} on {channel}, and {truth:?} is there")),
                }
            }
            let mut of = attendance.shown.iter().filter(|((_, on), _)| on == channel);
            if let Some(((client, _), shown)) = of.find(|(_, shown)| **shown != truth) {
                return Some(format!("client {client} was shown {shown:?} on {channel}, and {truth:?} is there"));
            }
        }
        None
    }

    /// How long after the last fault a view may be wrong.
    pub(super) fn longest_wrong(&self) -> Duration {
        self.longest_misled() + self.config.presence.linger + SLACK
    }

    /// Checks that views which are right stay right.
    pub(super) async fn check_views(&self) {
        sleep(self.config.presence.linger + Duration::from_secs(3)).await;
        let begin = Instant::now();
        while let Some(wrong) = self.wrong_views() {
            // A client may have reconnected meanwhile.
            if begin.elapsed() > self.longest_wrong() {
                return self.chronicle.breach(format!("who is there was right, and no longer is: {wrong}"));
            }
            sleep(GLANCE).await;
        }
    }

    /// Takes a change that a client is shown, and checks it.
    pub(super) fn show(&self, client: usize, channel: &str, change: &Value) {
        let left = self.attendance.borrow_mut().change(client, channel, change);
        let long = self.config.presence.linger + STEADY;
        let steady = |name: &&String| self.attendance.borrow().is_steady(name, channel, long);
        if let Some(name) = left.iter().find(steady).filter(|_| self.expected.nobody_gone) {
            self.chronicle.breach(format!("client {client} was shown that {name} has left {channel}, where it is"));
        }
    }
}
