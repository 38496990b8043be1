//! What a token allows its user: verbs on channels that match patterns.
//!
//! Pure. Connections with equal rights share one value.

use serde::{Deserialize, Serialize};

use super::pattern::{Name, Pattern};

/// What a client can do on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verb {
    /// Receive its messages.
    Subscribe,
    /// Publish on it.
    Publish,
    /// See who is subscribed.
    Presence,
    /// Read its older messages.
    History,
}

impl Verb {
    pub(crate) const ALL: [Self; 4] = [Self::Subscribe, Self::Publish, Self::Presence, Self::History];

    /// The verb as configurations and tokens write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::History => "history",
        }
    }
}

/// One entry of a token's list: these verbs on the channels that match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) pattern: Pattern,
    pub(crate) can: Box<[Verb]>,
}

/// All entries of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rights(pub(crate) Box<[Grant]>);

impl Rights {
    /// The entry that allows `verb` on a channel, if there is one.
    pub(crate) fn grant(&self, verb: Verb, channel: &str, user: Option<&str>) -> Option<&Grant> {
        self.entry(verb, &Name::new(channel), user)
    }

    /// As [`grant`](Self::grant), for a name that is already split.
    pub(super) fn entry(&self, verb: Verb, channel: &Name<'_>, user: Option<&str>) -> Option<&Grant> {
        self.0.iter().find(|grant| grant.pattern.matches(channel, user) && grant.can.contains(&verb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_allow_the_verbs_of_any_entry_that_matches() {
        let grant = |pattern: &str, can: &[Verb]| Grant { pattern: pattern.parse().expect(pattern), can: can.into() };
        let rights = Rights(Box::new([
            grant("chat:*", &[Verb::Subscribe, Verb::History]),
            grant("chat:{sub}", &[Verb::Publish]),
        ]));
        for (verb, channel, allowed) in [
            (Verb::Subscribe, "chat:a", true),
            (Verb::History, "chat:a", true),
            (Verb::Publish, "chat:a", false),
            (Verb::Publish, "chat:ann", true),
            (Verb::Presence, "chat:ann", false),
            (Verb::Subscribe, "news", false),
        ] {
            assert_eq!(rights.grant(verb, channel, Some("ann")).is_some(), allowed, "{verb:?} {channel}");
        }
        assert_eq!(Verb::ALL.map(Verb::name), ["subscribe", "publish", "presence", "history"]);
    }
}
