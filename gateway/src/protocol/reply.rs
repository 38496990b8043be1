//! What a node sends to clients, before a protocol encodes it.

use broker_adapters::{Break, Position, Record};

use super::body::Body;
use super::command::Failure;
use crate::close::CloseReason;
use crate::presence::{Change, Snapshot};

/// The answer to a command.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    /// To `connect`: the names of the node, of the client and of its user, and the seconds that its token is still valid.
    Connected { node: &'a str, client: &'a str, user: Option<&'a str>, expires_in: Option<u64> },
    /// To `refresh`: the seconds that the new token is valid.
    Refreshed { expires_in: Option<u64> },
    /// To a command that has no result.
    Done,
    /// To `subscribe`: messages after `at` follow. `recovered` is present if the client named a position, and says
    /// whether it receives everything after that. `last` is present if the client is given last messages, and is their
    /// number. `presence` is present if the client asked for it.
    Subscribed {
        channel: &'a str,
        at: Position,
        recovered: Option<bool>,
        last: Option<u32>,
        presence: Option<&'a Snapshot>,
    },
    /// To `presence`: some members of a channel.
    Presence { channel: &'a str, snapshot: &'a Snapshot },
    /// To `history`: messages in the order of the log, and where the following ones are. `complete` says whether there are
    /// none.
    History { channel: &'a str, records: &'a [&'a Record], next: Option<Position>, complete: bool },
    /// To `publish`: the message is in the log, at this position if the broker reports it.
    Published { at: Option<Position> },
    /// The command was not carried out.
    Failed(&'a Failure),
}

/// A message that a client receives without having asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Notice<'a> {
    /// Messages of a channel are lost to this subscriber.
    Lost { channel: &'a str, lost: Break },
    /// So many messages of a channel were skipped, because the client reads slowly and the channel's rule says so. The next
    /// message of the channel is the newest.
    Skipped { channel: &'a str, count: u64 },
    /// The client is not, or no longer, subscribed to a channel, for this reason: most often it has lost the right to it.
    Unsubscribed { channel: &'a str, reason: &'static str },
    /// Who is in a channel has changed; `at` is the record up to which that is true.
    Presence { change: &'a Change, at: Position },
    /// The client sees no longer who is in a channel, for this reason.
    Unseen { channel: &'a str, reason: &'static str },
    /// Asks the client for a sign of life, and gives it the position of each of its channels, so that it can also
    /// resume quiet channels.
    Ping(&'a [(&'a str, Position)]),
    /// The broker is unreachable (true) or reachable again. While it is unreachable, publishes fail and no messages
    /// come.
    Degraded(bool),
    /// The node closes the connection. The client should wait this many milliseconds before it reconnects.
    Reconnect { after_ms: u64 },
}

/// What a protocol sends for a reply or a notice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A message.
    Message(Body<'static>),
    /// Nothing: the client does not need it.
    Nothing,
    /// No message, but the end of the connection: the client must know, and the protocol has no message for it.
    Close(CloseReason),
}
