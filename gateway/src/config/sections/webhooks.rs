//! `[webhooks]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, Pattern, WebhookSecret, WebhookUrl, duration, optional};

/// Your backend is notified of who comes and goes, by POST. docs/webhooks.md has the requests. Only channels whose rules say `presence`
/// have events. The nodes follow no redirects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// URL that gets the events: https, or http on this machine; empty means that nothing is sent.
    #[serde(with = "optional")]
    pub endpoint: Option<WebhookUrl>,
    /// One or two secrets that sign each request, such as `fanfare genkey webhook` prints. With two, each request has two signatures, so
    /// that you can replace one without a pause.
    pub secrets: Vec<WebhookSecret>,
    /// Which events are sent: "occupied" (a channel has its first subscriber), "vacated" (it has none any more), "joined" and "left" (of
    /// a member, on channels with `presence = "members"`).
    pub events: Vec<WebhookEvent>,
    /// Patterns of the channels whose events are sent, as in `[[channels]]`.
    pub channels: Vec<Pattern>,
    /// How long the nodes try to deliver an event. Then it is given up: counted, and written to the program's log.
    #[serde(with = "duration")]
    pub retry: Duration,
    /// Memory of each node for events that wait. When it is used up, the oldest are given up. An event takes about 300 bytes.
    pub backlog: ByteSize,
    /// Whether `endpoint` may lead to a private network, then also over http.
    pub allow_private: bool,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            endpoint: None,
            secrets: Vec::new(),
            events: WebhookEvent::ALL.to_vec(),
            channels: vec!["*".parse().expect("a pattern for all")],
            retry: Duration::from_secs(3600),
            backlog: ByteSize::mib(32),
            allow_private: false,
        }
    }
}

/// What a backend can be notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum WebhookEvent {
    /// A channel has its first subscriber.
    Occupied,
    /// It has none any more.
    Vacated,
    /// A member has come.
    Joined,
    /// It has gone.
    Left,
}

impl WebhookEvent {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Occupied, Self::Vacated, Self::Joined, Self::Left];

    /// The word as configurations and events have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Occupied => "occupied",
            Self::Vacated => "vacated",
            Self::Joined => "joined",
            Self::Left => "left",
        }
    }
}

impl TryFrom<String> for WebhookEvent {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let expected = "expected \"occupied\", \"vacated\", \"joined\" or \"left\"";
        Self::ALL.into_iter().find(|event| event.name() == text).ok_or(expected)
    }
}
