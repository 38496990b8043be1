//! How an allowed action is carried out: what the channel's rule says besides yes.

use super::pace::Rate;

/// What a rule says about an allowed action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What happens to a subscriber that reads too slowly.
    pub(crate) slow: Slow,
    /// The most messages that a new subscriber may ask for with `last`; `None` means no limit but the protocol's.
    pub(crate) last: Option<u32>,
    /// The most publishes of one connection on channels of this rule.
    pub(crate) rate: Option<RuleRate>,
    /// Whether messages name their publisher.
    pub(crate) tell_publisher: bool,
    /// What others see of a subscriber.
    pub(crate) attendance: Attendance,
}

/// A rule's own rate, and the number of the rule: a connection has a bucket for each such rule that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleRate {
    pub(crate) rule: u32,
    pub(crate) rate: Rate,
}

/// What the cluster knows of a channel's subscribers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attendance {
    /// Nothing.
    #[default]
    Off,
    /// How many there are.
    Counts,
    /// Who they are.
    Members,
}

/// What happens to a subscriber that reads more slowly than messages come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slow {
    /// It is closed with 4410, and resumes.
    #[default]
    Disconnect,
    /// It skips to the newest message, and is notified of the number of messages that it missed.
    Latest,
}
