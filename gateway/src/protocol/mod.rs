//! Protocols: they turn clients' messages into commands, and replies, notices and records into messages.
//!
//! Pure: no sockets, no tasks, no knowledge of workers. To add a protocol, write a file beside this one and add a line
//! to [`ALL`]. It then has its route in the gateway and its subprotocols in the handshake.

mod body;
mod command;
pub(crate) mod native;
pub(crate) mod raw;
mod reply;
#[cfg(test)]
mod shout;

use broker_adapters::{Payload, Record};

pub(crate) use self::body::Body;
pub(crate) use self::command::{Command, Failure, MOST, Request, Start, Token, message_id};
pub(crate) use self::reply::{Notice, Output, Reply};
use crate::close::CloseReason;

/// All protocols. The index of each is the number of its [`Format`].
pub(crate) const ALL: &[&dyn Protocol] = &[
    &native::Native,
    &raw::Raw,
    #[cfg(test)]
    &shout::Shout,
];

/// The parameter of a route that names the only channel of its connections.
pub(crate) const CHANNEL: &str = "channel";

/// A protocol: encodes everything that is sent to its clients, and begins their sessions.
///
/// The encoded messages depend on the arguments only, so that clients of one protocol can share them.
pub(crate) trait Protocol: Sync {
    /// The gateway's path for this protocol. If it has the parameter `{channel}`, a connection is subscribed to that
    /// channel.
    fn path(&self) -> &'static str;

    /// The names of its subprotocols, from which the handshake selects one.
    fn names(&self) -> &'static [&'static str];

    /// Whether its clients can prove who they are by their first message.
    fn takes_tokens(&self) -> bool {
        false
    }

    /// Begins a session. Without state of its own it takes no memory.
    fn open(&self) -> Box<dyn Session>;

    /// Encodes a record for the subscribers of its channel. Called once for each record, however many receive it.
    fn message<'a>(&self, record: &'a Record) -> Body<'a>;

    /// Encodes the reply to a command. `id` is the command's id.
    fn reply(&self, id: Option<u64>, reply: &Reply<'_>) -> Output;

    /// Encodes a notice, which a client receives without having asked.
    fn notice(&self, notice: Notice<'_>) -> Output;
}

/// One connection's state of a protocol: decodes its messages, and remembers what it must between them.
pub(crate) trait Session {
    /// Decodes one message of the client.
    fn read<'a>(&mut self, message: Incoming<'a>) -> Input<'a>;
}

/// A message of a client. Borrowed if it was contiguous in the input.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// A text message.
    Text(std::borrow::Cow<'a, str>),
    /// A binary message.
    Binary(std::borrow::Cow<'a, [u8]>),
}

/// The meaning of a client's message.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A command, to be carried out.
    Command(Request<'a>),
    /// Content to publish on the channel that the connection's path names.
    Publish(Payload),
    /// A message for the app's handler.
    Handler(Incoming<'a>),
    /// An invalid message. The client is sent the failure.
    Invalid { id: Option<u64>, failure: Failure },
    /// A message after which the connection must be closed.
    Close(CloseReason),
}

/// The encoding of messages for a connection: the number of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format(u8);

impl Format {
    /// The number of formats.
    pub(crate) const COUNT: usize = ALL.len();

    /// The format of `fanfare.v1`.
    #[cfg(test)]
    pub(crate) const NATIVE: Self = Self(0);

    /// The payload and nothing else: the format of the raw protocol and of apps.
    pub(crate) const RAW: Self = Self(1);

    /// All formats.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..u8::MAX).take(Self::COUNT).map(Self)
    }

    /// The protocol of this format.
    pub(crate) fn protocol(self) -> &'static dyn Protocol {
        ALL[self.index()]
    }

    /// The index of this format in tables of all formats.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}
