//! What clients speak. A protocol turns bytes into commands and records into frames, nothing more.

pub(crate) mod native;

use crate::message::Format;

/// The raw protocol's name as a subprotocol.
pub(crate) const RAW: &str = "fanfare.raw";

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `fanfare.v1`: commands and replies in JSON.
    Native,
    /// Every text frame is a message on one channel, every message of the channel a text frame.
    Raw,
    /// Frames go to a handler of the app; what it broadcasts comes back as it is.
    App,
}

impl Protocol {
    /// How records are written for its clients.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Native => Format::Native,
            Self::Raw | Self::App => Format::Raw,
        }
    }
}
