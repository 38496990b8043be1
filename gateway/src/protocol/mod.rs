//! What clients speak. A protocol turns messages into commands, and replies, notices and records into messages.
//!
//! Pure: no sockets, no tasks, no knowledge of workers. To add a protocol, write a file beside this one and add a line
//! to [`ALL`]: it then has its route in the gateway and its subprotocols in the handshake.

mod body;
mod command;
pub(crate) mod native;
pub(crate) mod raw;
mod reply;
#[cfg(test)]
mod shout;

use broker_adapters::Record;

pub(crate) use self::body::Body;
pub(crate) use self::command::{Command, Failure, Request, message_id};
pub(crate) use self::reply::{Notice, Reply, Said};
use crate::close::CloseReason;

/// All protocols. The place of each is the number of its [`Format`].
pub(crate) const ALL: &[&dyn Protocol] = &[
    &native::Native,
    &raw::Raw,
    #[cfg(test)]
    &shout::Shout,
];

/// The parameter of a route that names the one channel of its connections.
pub(crate) const CHANNEL: &str = "channel";

/// A protocol: how everything for its clients is written, and how its sessions begin.
///
/// Writing depends on nothing but the arguments, so that clients of one protocol can share what is written.
pub(crate) trait Protocol: Sync {
    /// Where the gateway speaks it. A connection to a path with the parameter `{channel}` is subscribed to that channel.
    fn path(&self) -> &'static str;

    /// Its names as a subprotocol, of which the handshake chooses.
    fn names(&self) -> &'static [&'static str];

    /// Begins a connection, on the channel that its path names, if it names one.
    fn open(&self, channel: Option<&str>) -> Box<dyn Session>;

    /// A record for subscribers of its channel. Called once for each record, however many receive it.
    fn message<'a>(&self, record: &'a Record) -> Body<'a>;

    /// The answer to a command; `id` is the one that the command had.
    fn reply(&self, id: Option<u64>, reply: &Reply<'_>) -> Said;

    /// What a client is notified of without having asked.
    fn notice(&self, notice: Notice<'_>) -> Said;
}

/// One connection's side of a protocol: how its messages are read, and what must be remembered between them.
pub(crate) trait Session {
    /// Reads one message of the client.
    fn read<'a>(&mut self, message: Incoming<'a>) -> Asked<'a>;
}

/// A message of a client. Borrowed where it lay whole in the input.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// Characters.
    Text(std::borrow::Cow<'a, str>),
    /// Bytes.
    Binary(std::borrow::Cow<'a, [u8]>),
}

/// What a message of a client asks for.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// To carry out a command.
    For(Request<'a>),
    /// To give the message to the app's handler.
    Handler(Incoming<'a>),
    /// Something that cannot be read: the client is answered why not.
    Unclear { id: Option<u64>, why: Failure },
    /// Something after which the connection must end.
    End(CloseReason),
}

/// How the records for a connection are written: the number of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format(u8);

impl Format {
    /// How many there are.
    pub(crate) const COUNT: usize = ALL.len();

    /// That of `fanfare.v1`.
    #[cfg(test)]
    pub(crate) const NATIVE: Self = Self(0);

    /// The payload and nothing else: the format of the raw protocol, and of apps.
    pub(crate) const RAW: Self = Self(1);

    /// All formats.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..u8::MAX).take(Self::COUNT).map(Self)
    }

    /// The protocol that writes it.
    pub(crate) fn protocol(self) -> &'static dyn Protocol {
        ALL[self.index()]
    }

    /// Its place among all formats.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}
