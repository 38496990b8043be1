//! What a record of the cluster orders the workers of all nodes to do with their connections.
//!
//! Pure. An order acts on the connections that each worker has when it comes to the record's place in the log.

use super::control::{Control, Disconnect, Unsubscribe};
use crate::gate::{Name, Pattern};

/// The orders of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Tokens were revoked: their connections end.
    pub(crate) revokes: bool,
    pub(crate) disconnect: Vec<Disconnect>,
    pub(crate) unsubscribe: Vec<Unsubscribe>,
}

impl Orders {
    /// The orders of a record. A node that has yet to read the log to its end has no connections that an old record is about.
    pub(super) fn of(control: Control, is_new: bool) -> Option<Self> {
        let revokes = !control.revoke.is_empty();
        let (disconnect, unsubscribe) =
            if is_new { (control.disconnect, control.unsubscribe) } else { Default::default() };
        let orders = Self { revokes, disconnect, unsubscribe };
        (orders != Self::default()).then_some(orders)
    }
}

impl Unsubscribe {
    /// Whether a subscription of the user to this channel ends.
    pub(crate) fn names(&self, channel: &str) -> bool {
        let is_matched = |pattern: &Pattern| pattern.matches(&Name::new(channel), Some(&self.user));
        self.channel.as_deref() == Some(channel) || self.pattern.as_ref().is_some_and(is_matched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Revocation;

    #[test]
    fn a_record_of_before_this_node_read_the_log_revokes_and_orders_nothing_else() {
        let ann = || Disconnect { user: Some("ann".into()), ..Disconnect::default() };
        let bob = || Unsubscribe { user: "bob".into(), channel: Some("a".into()), pattern: None };
        let revocation = || Revocation { token: None, user: None, before: Some(1), until: 2 };
        let control =
            |revoke| Control { revoke, disconnect: vec![ann()], unsubscribe: vec![bob()], ..Control::default() };
        let all = Orders { revokes: true, disconnect: vec![ann()], unsubscribe: vec![bob()] };
        assert_eq!(Orders::of(control(vec![revocation()]), true), Some(all));
        let revokes = Orders { revokes: true, ..Orders::default() };
        assert_eq!(Orders::of(control(vec![revocation()]), false), Some(revokes));
        assert_eq!(Orders::of(control(Vec::new()), false), None);
        assert_eq!(Orders::of(Control::default(), true), None);
    }

    #[test]
    fn a_subscription_ends_by_its_channel_or_by_a_pattern() {
        let unsubscribe = |channel: Option<&str>, pattern: Option<&str>| Unsubscribe {
            user: "ann".into(),
            channel: channel.map(str::to_owned),
            pattern: pattern.map(|pattern| pattern.parse().expect("a pattern")),
        };
        for (of, channel, expected) in [
            (unsubscribe(Some("chat:1"), None), "chat:1", true),
            (unsubscribe(Some("chat:1"), None), "chat:12", false),
            (unsubscribe(None, Some("chat:*")), "chat:12", true),
            (unsubscribe(None, Some("chat:*")), "chat", false),
            (unsubscribe(None, Some("user:{sub}")), "user:ann", true),
            (unsubscribe(None, Some("user:{sub}")), "user:bob", false),
            (unsubscribe(None, Some("*")), "/ws/echo", true),
        ] {
            assert_eq!(of.names(channel), expected, "{of:?} {channel}");
        }
    }
}
