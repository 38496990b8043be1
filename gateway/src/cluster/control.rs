//! The records of the cluster: their JSON.
//!
//! Fields that a release does not know are ignored, so later releases can add others.

use serde::{Deserialize, Serialize};

use super::life::Life;
use crate::gate::Pattern;

/// The channel of these records. Clients cannot name it: their channels have no braces.
pub(crate) const CHANNEL: &str = "{cluster}";

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    /// Tokens that are no longer valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) revoke: Vec<Revocation>,
    /// Whether the nodes shall write again what they know, because one of them may have missed records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ask: bool,
    /// Tickets that were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) made: Vec<Made>,
    /// Tickets that were used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) used: Vec<Used>,
    /// A node that lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Node>,
    /// Lives that have ended. The first record that says so counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone: Vec<Life>,
    /// Connections that end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) disconnect: Vec<Disconnect>,
    /// Subscriptions that end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unsubscribe: Vec<Unsubscribe>,
    /// Clients that move to other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shed: Option<Shed>,
    /// Whether every node shall report at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) report: bool,
}

/// An order to move clients from the fullest nodes to the others, or to stop that. It ends the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shed {
    /// A random number, in hex, by which the reports of nodes name it.
    pub(crate) id: String,
    /// Clients a second, over all nodes; 0 stops the one before.
    pub(crate) pace: u32,
    /// A node that has up to this many percent more than its share keeps them.
    pub(crate) tolerance: u32,
    /// Whether clients move too whose protocol cannot resume.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) everyone: bool,
}

/// How far a node is with a shed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The shed's id.
    pub(crate) id: String,
    pub(crate) state: Stage,
    /// How many clients the node gives up at most, and how many it has given up.
    pub(crate) gives: u64,
    pub(crate) moved: u64,
}

/// The stages of a shed on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// It waits for the reports of the other nodes.
    #[default]
    Waiting,
    /// It gives up clients.
    Moving,
    /// It has given up as many as it could, or its time is over.
    Done,
    /// Another order has ended it.
    Stopped,
    /// The node has begun to drain.
    Draining,
    /// A stage that a later release knows.
    #[serde(other)]
    Unknown,
}

/// Connections that end: those of a user, or one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disconnect {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// Whether the clients shall reconnect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) reconnect: bool,
}

/// Subscriptions of a user that end: to one channel, or to all channels of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unsubscribe {
    pub(crate) user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub(crate) pattern: Option<Pattern>,
}

/// A report of a node: that it lives, and how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) life: Life,
    pub(crate) name: String,
    /// The release that it runs.
    pub(crate) version: String,
    /// The address of its HTTP API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<String>,
    /// How many clients it has, and may have at most.
    pub(crate) connections: u64,
    pub(crate) capacity: u64,
    /// Of its clients, those whose protocol can resume.
    #[serde(default)]
    pub(crate) resumable: u64,
    /// Whether it is about to leave.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) draining: bool,
    /// Whether it has all events in hand that no webhook has delivered yet. `None` if it delivers none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) webhooks: Option<bool>,
    /// The position up to which it had read these records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read: Option<String>,
    /// The last shed that it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shed: Option<Progress>,
}

/// A ticket. The nodes know its hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// What [`ticket_hash`](super::ticket_hash) makes of it, in hex.
    pub(super) ticket: String,
    /// What it proves of its client, in JSON: the claims of a token.
    pub(super) claims: String,
}

/// A use of a ticket. The first in the log counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// The ticket's hash, in hex.
    pub(super) ticket: String,
    /// A random number, in hex, by which the node that redeems the ticket knows its own record.
    pub(super) by: String,
}

/// Tokens that are no longer valid. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocation {
    /// The one token with this id: the hash that [`token_id`](crate::auth::token_id) makes of its `jti`, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// All tokens of this user that were issued until `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// All tokens that were issued until then, of one user or of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<u64>,
    /// When all these tokens have expired, so that this can be forgotten.
    pub(crate) until: u64,
}

/// How much longer than the longest token a revocation is kept, in seconds: clocks differ, and a token has a leeway.
const MARGIN: u64 = 120;

impl Revocation {
    /// Of the one token with this id. `longest` is the longest life of a token, in seconds.
    pub(crate) fn of_token(id: u64, now: u64, longest: u64) -> Self {
        Self { token: Some(format!("{id:016x}")), user: None, before: None, until: kept_until(now, longest) }
    }

    /// Of all tokens that were issued until `before`, of one user or of all.
    pub(crate) fn until(user: Option<String>, before: u64, now: u64, longest: u64) -> Self {
        Self { token: None, user, before: Some(before), until: kept_until(now, longest) }
    }

    /// The token's id, if this is about one token.
    pub(super) fn token(&self) -> Option<u64> {
        u64::from_str_radix(self.token.as_deref()?, 16).ok()
    }
}

fn kept_until(now: u64, longest: u64) -> u64 {
    now.saturating_add(longest).saturating_add(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let revocation = Revocation { token: None, user: Some("a\"b".into()), before: Some(5), until: 9 };
        let control = Control { revoke: vec![revocation], ..Control::default() };
        let json = serde_json::to_string(&control).expect("it is JSON");
        assert_eq!(json, r#"{"revoke":[{"user":"a\"b","before":5,"until":9}]}"#);
        assert_eq!(serde_json::from_str::<Control>(&json).expect("its own JSON"), control);
        assert_eq!(serde_json::from_str::<Control>(r#"{"joined":{}}"#).expect("unknown"), Control::default());
    }
}
