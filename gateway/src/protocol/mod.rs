//! Protocols: they turn clients' messages into commands, and replies, notices and records into messages.
//!
//! Pure: no sockets, no tasks, no knowledge of workers. To add a protocol, write a file beside this one and add a line
//! to [`ALL`]. It then has its route in the gateway and its subprotocols in the handshake.

pub(crate) mod attendance;
mod body;
mod command;
mod lines;
pub(crate) mod native;
pub(crate) mod placed;
pub(crate) mod places;
pub(crate) mod raw;
mod reply;
#[cfg(test)]
mod shout;
pub(crate) mod sse;
mod traced;

use broker_adapters::{Payload, Record};

pub(crate) use self::body::Body;
pub(crate) use self::command::{Command, Failure, MOST, Request, Sight, Start, Token, message_id};
use self::places::Places;
pub(crate) use self::reply::{Notice, Output, Reply};
use crate::close::CloseReason;

/// All protocols. The index of each is the number of its [`Format`].
pub(crate) const ALL: &[&dyn Protocol] = &[
    &native::Native,
    &raw::Raw,
    &sse::Sse,
    &lines::Lines,
    &traced::Traced,
    &placed::Placed,
    #[cfg(test)]
    &shout::Shout,
];

/// The parameter of a route that names the only channel of its connections.
pub(crate) const CHANNEL: &str = "channel";

/// A protocol: encodes everything that is sent to its clients, and begins their sessions.
///
/// The encoded messages depend on the arguments only, so that clients of one protocol can share them.
pub(crate) trait Protocol: Sync {
    /// The gateway's path for WebSockets of this protocol. If it has the parameter `{channel}`, a connection is subscribed
    /// to that channel. `None` if its clients use no WebSocket.
    fn path(&self) -> Option<&'static str> {
        None
    }

    /// The names of its subprotocols, from which the handshake selects one.
    fn names(&self) -> &'static [&'static str] {
        &[]
    }

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

    /// Encodes the end of a connection, on a transport that has no close frames.
    fn ending(&self, reason: CloseReason) -> Option<Body<'static>> {
        let _ = reason;
        None
    }
}

/// One connection's state of a protocol: decodes its messages, and remembers what it must between them.
pub(crate) trait Session {
    /// Decodes one message of the client.
    fn read<'a>(&mut self, message: Incoming<'a>) -> Input<'a>;

    /// The client's positions, if its messages carry an id for all its channels.
    fn places(&mut self) -> Option<&mut Places> {
        None
    }
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
    /// Nothing to do.
    Nothing,
}

/// The encoding of messages for a connection: the number of its protocol, and how the connection differs from others of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format(u8);

impl Format {
    /// The number of formats.
    pub(crate) const COUNT: usize = ALL.len();

    /// The format of `fanfare.v1`.
    pub(crate) const NATIVE: Self = Self(0);

    /// The same for clients that have asked for the traces of messages.
    pub(crate) const TRACED: Self = Self(4);

    /// The payload and nothing else: the format of the raw protocol and of apps.
    pub(crate) const RAW: Self = Self(1);

    /// Messages with room and position, for an app's clients that have asked for it.
    pub(crate) const PLACED: Self = Self(5);

    /// Events whose data is the payload, on a connection with one channel: all its clients share them.
    pub(crate) const EVENTS: Self = Self(2 | Self::STREAM);

    /// The same, on a connection with several channels, whose ids are its own.
    pub(crate) const OWN_EVENTS: Self = Self(2 | Self::STREAM | Self::OWN);

    /// Events whose data is a message as JSON. Their ids are the connection's own.
    pub(crate) const JSON_EVENTS: Self = Self(2 | Self::STREAM | Self::OWN | Self::JSON);

    /// A line of JSON for each message.
    pub(crate) const LINES: Self = Self(3 | Self::STREAM);

    /// An HTTP response without end, not a WebSocket.
    const STREAM: u8 = 0x80;
    /// Each message carries the connection's own id.
    const OWN: u8 = 0x40;
    /// Messages are those of [`Self::LINES`], as the data of events.
    const JSON: u8 = 0x20;
    /// What moves the client without an event is an event too.
    const MOVES: u8 = 0x10;
    /// The bits of the protocol's number.
    const NUMBER: u8 = 0x0f;

    /// Whether its connections are HTTP responses without end, whose clients only listen.
    pub(crate) fn is_stream(self) -> bool {
        self.0 & Self::STREAM != 0
    }

    /// Whether each message carries the connection's own id, for all its channels.
    pub(crate) fn has_own_ids(self) -> bool {
        self.0 & Self::OWN != 0
    }

    /// Whether messages are lines of JSON, as the data of events.
    pub(crate) fn is_json(self) -> bool {
        self.0 & Self::JSON != 0
    }

    /// The same format with an event for each position that comes without one. A page sees no other positions.
    pub(crate) fn with_moves(self) -> Self {
        Self(self.0 | Self::MOVES)
    }

    /// Whether there is an event for each position that comes without one.
    pub(crate) fn has_moves(self) -> bool {
        self.0 & Self::MOVES != 0
    }

    /// The format whose messages its connections share, before they get ids of their own.
    pub(crate) fn shared(self) -> Self {
        match Self(self.0 & !Self::MOVES) {
            Self::OWN_EVENTS => Self::EVENTS,
            Self::JSON_EVENTS => Self::LINES,
            shared => shared,
        }
    }

    /// Whether its clients know where they are, and so can go on from there on another connection.
    pub(crate) fn resumes(self) -> bool {
        self != Self::RAW
    }

    /// All formats of which a message has a form of its own.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..u8::MAX).take(Self::COUNT).map(Self)
    }

    /// The protocol of this format.
    pub(crate) fn protocol(self) -> &'static dyn Protocol {
        ALL[self.index()]
    }

    /// The index of this format in tables of all formats.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0 & Self::NUMBER)
    }
}
