//! `[[channels]]`: a list of rules.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::config::{ByteSize, Place, number};
use crate::gate::{Attendance, Pattern, Slow};

/// What clients may do on which channels. For each channel the first rule whose `match` fits decides, and the others do not
/// count. Without any rule, a token that lists channels allows its client those, and all other clients may use all channels.
/// With rules, a channel that no rule matches is refused. The rules are of clients; an app's own routes need none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Pattern of the channels' names. Its segments stand between colons: literal text, `{name}` for any one segment, `{sub}`
    /// for the user's own name, and at the end `*` for all further segments. "*" alone matches every channel.
    pub r#match: Pattern,
    /// Which clients may subscribe: "anyone", "user" (clients whose token names a user), "token" (clients whose token grants
    /// it on this channel), "hook" (your backend is asked, at `hooks.subscribe`) or "nobody". Rights that the hook `connect`
    /// gives count as a token's. If a rule sets one of `subscribe`, `publish` and `history`, the ones that it leaves out
    /// are "token", and so is `see_presence`. If it sets none, all that is allowed without rules is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Who>,
    /// Which clients may publish: as `subscribe`; "hook" asks `hooks.publish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Who>,
    /// Which clients may read older messages: as `subscribe`, but never "hook". A subscription with `since` does not need it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_hook")]
    pub history: Option<Who>,
    /// What the cluster knows of the subscribers: "off", "counts" (how many there are) or "members" (who they are, with events when
    /// one comes or leaves). It must be the same on all nodes. Default: "off".
    #[serde(default)]
    pub presence: Attendance,
    /// Which clients may see that: as `subscribe`, but never "hook". A client need not be subscribed for it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "not_hook")]
    pub see_presence: Option<Who>,
    /// What happens to a subscriber that reads more slowly than messages come: "disconnect" closes it with 4410, and it
    /// resumes without loss; "latest" skips to the newest message, for channels of values that replace each other. Default:
    /// "disconnect".
    #[serde(default)]
    pub slow: Slow,
    /// Maximum size of a message that is published; a larger one is refused (`too_large`). Default, and at most:
    /// `limits.message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<ByteSize>,
    /// Messages per second that one connection may publish on all channels of this rule together, besides
    /// `limits.publishes_per_second`. After a pause, twice as many may come at once. Default: no limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number::some_between::<_, _, 1, 10_000>"
    )]
    pub rate: Option<u32>,
    /// Whether each message says who published it: the user and the client id. Default: false.
    #[serde(default)]
    pub tell_publisher: bool,
    /// The most older messages that a new subscriber gets with `last`; 0 means none. Default: 1000, which is also the
    /// protocol's maximum, for clients that `history` allows to read older messages, and none for others.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number::some_between::<_, _, 0, 1000>"
    )]
    pub last: Option<u32>,
    /// Where the rule stands; not a setting.
    #[serde(skip)]
    pub(crate) place: Option<Place>,
}

/// Which clients a rule allows something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// All clients that may connect.
    Anyone,
    /// Clients with a user.
    User,
    /// Clients whose token grants it on the channel.
    Token,
    /// Clients that the backend allows it, which is asked each time.
    Hook,
    /// No client.
    Nobody,
}

impl Who {
    /// The word as configurations have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::User => "user",
            Self::Token => "token",
            Self::Hook => "hook",
            Self::Nobody => "nobody",
        }
    }
}

/// Refuses "hook" where no backend is asked.
fn not_hook<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Who>, D::Error> {
    const INSTEAD: &str = "expected \"anyone\", \"user\", \"token\" or \"nobody\": no backend is asked about this; say \
                           \"token\", and let the hook `connect` grant it";
    match Who::deserialize(deserializer)? {
        Who::Hook => Err(de::Error::custom(INSTEAD)),
        who => Ok(Some(who)),
    }
}
