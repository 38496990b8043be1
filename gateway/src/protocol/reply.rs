//! What a node says to clients, before a protocol puts it into words.

use broker_adapters::{Break, Position};

use super::body::Body;
use super::command::Failure;
use crate::close::CloseReason;

/// The answer to a command.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    /// To `connect`.
    Connected { node: &'a str },
    /// To a command that has no result.
    Done,
    /// To `subscribe`: messages after `at` follow. `recovered` says, to a client that named a position, whether it
    /// receives everything since.
    Subscribed { channel: &'a str, at: Position, recovered: Option<bool> },
    /// To `publish`: the message is in the log, here if the broker says where.
    Published { at: Option<Position> },
    /// The command was not carried out.
    Failed(&'a Failure),
}

/// What a client is notified of without having asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Notice<'a> {
    /// Messages of a channel are lost to this subscriber.
    Lost { channel: &'a str, lost: Break },
    /// Asks whether the client is there, and says how far each of its channels is, so that quiet ones resume too.
    Ping(&'a [(&'a str, Position)]),
    /// The broker is away, or back: while it is away publishes fail and no messages come.
    Degraded(bool),
    /// The node closes the connection; the client should wait so long before it reconnects.
    Reconnect { after_ms: u64 },
}

/// How a protocol says something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// With a message.
    Message(Body<'static>),
    /// Not at all: the client can do without.
    Nothing,
    /// By ending the connection, since the client must know and the protocol has no message for it.
    End(CloseReason),
}
