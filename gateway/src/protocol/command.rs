//! The commands of clients, in any protocol, and their failures.
//!
//! Pure.

use std::borrow::Cow;
use std::fmt;

use broker_adapters::{MessageId, Payload, Position, PublishError};

use crate::presence::Name;

/// A command, and the id that its reply repeats.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) id: Option<u64>,
    pub(crate) command: Command<'a>,
}

/// A command.
#[derive(Debug)]
pub(crate) enum Command<'a> {
    /// Asks for the names of the node and the client, and says who the client is.
    Connect { token: Option<Token<'a>> },
    /// Renews the client's token.
    Refresh { token: Token<'a> },
    /// Asks for the messages of a channel: all after a position, or else this number of the last ones, and new ones.
    /// With `presence`, also for who is there, and for the changes of that.
    Subscribe { channel: Cow<'a, str>, since: Option<Position>, last: Option<u32>, presence: Sight },
    /// Asks for up to `limit` members of a channel after a name.
    Presence { channel: Cow<'a, str>, after: Option<Name>, limit: u32 },
    /// Asks for at most `limit` messages of a channel.
    History { channel: Cow<'a, str>, start: Start, limit: u32 },
    /// Ends a subscription.
    Unsubscribe { channel: Cow<'a, str> },
    /// Publishes a message. If it is repeated with the same key, it is delivered once.
    Publish { channel: Cow<'a, str>, payload: Payload, key: Option<Cow<'a, str>> },
    /// Asks for a reply, to test the connection.
    Ping,
    /// Answers a ping.
    Pong,
}

/// What a subscriber wants to see of who is in the channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sight {
    #[default]
    Nothing,
    /// Its members; of a very large channel only how many there are.
    Usual,
    /// Its members, however many there are.
    All,
}

impl From<bool> for Sight {
    fn from(wanted: bool) -> Self {
        if wanted { Self::Usual } else { Self::Nothing }
    }
}

/// A token as it came. No way of printing shows it.
pub(crate) struct Token<'a>(pub(crate) Cow<'a, str>);

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The most messages that one command may ask for with `last` or `limit`.
pub(crate) const MOST: u32 = 1000;

/// Where history is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Forward from a position.
    Since(Position),
    /// Backward from a position.
    Before(Position),
    /// Backward from the newest message.
    End,
}

impl Request<'_> {
    /// The same request without a borrow from the input, for a request that has to wait.
    pub(crate) fn into_owned(self) -> Request<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let command = match self.command {
            Command::Connect { token } => Command::Connect { token: token.map(|Token(text)| Token(owned(text))) },
            Command::Refresh { token: Token(text) } => Command::Refresh { token: Token(owned(text)) },
            Command::Subscribe { channel, since, last, presence } => {
                Command::Subscribe { channel: owned(channel), since, last, presence }
            }
            Command::Presence { channel, after, limit } => Command::Presence { channel: owned(channel), after, limit },
            Command::History { channel, start, limit } => Command::History { channel: owned(channel), start, limit },
            Command::Unsubscribe { channel } => Command::Unsubscribe { channel: owned(channel) },
            Command::Publish { channel, payload, key } => {
                Command::Publish { channel: owned(channel), payload, key: key.map(owned) }
            }
            Command::Ping => Command::Ping,
            Command::Pong => Command::Pong,
        };
        Request { id: self.id, command }
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) retry: bool,
    /// How long to wait before a retry, in milliseconds, if that is known.
    pub(crate) retry_after: Option<u64>,
}

impl Failure {
    /// A failure that a retry cannot help.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: false, retry_after: None }
    }

    /// A failure that a later retry may avoid.
    pub(crate) fn for_now(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: true, retry_after: None }
    }

    /// A failure that a retry avoids after so many milliseconds.
    pub(crate) fn for_a_time(code: &'static str, message: impl Into<String>, after: u64) -> Self {
        Self { retry_after: Some(after), ..Self::for_now(code, message) }
    }
}

impl Failure {
    /// The status of an HTTP answer with this failure. Of a publish it says whether the message is stored: 504 means that this is
    /// not known, all others that it is surely not.
    pub(crate) fn status(&self) -> u16 {
        match self.code {
            "unauthorised" => 401,
            "forbidden" => 403,
            "gone" => 410,
            "too_large" => 413,
            "rejected" => 422,
            "rate_limited" => 429,
            "unknown" => 504,
            _ if self.retry => 503,
            _ => 400,
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (code, retry) = match &error {
            PublishError::Rejected(_) => ("rejected", false),
            PublishError::Overloaded(_) => ("overloaded", true),
            PublishError::Unavailable => ("unavailable", true),
            PublishError::Unknown => ("unknown", true),
        };
        Self { code, message: error.to_string(), retry, retry_after: None }
    }
}

/// The id of a message that has a key: the same on every node and at any time, so that a repeated publish is
/// recognised.
pub(crate) fn message_id(channel: &str, key: &str) -> MessageId {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(&(channel.len() as u64).to_be_bytes());
    hash.update(channel.as_bytes());
    hash.update(key.as_bytes());
    let digest = hash.digest().bytes();
    MessageId(digest.iter().take(16).fold(0, |id, &byte| id << 8 | u128::from(byte)))
}
