//! A throw-away protocol, which shows what a new one takes: it echoes every message in capitals.

use broker_adapters::{Payload, Record};

use super::{Asked, Body, Command, Incoming, Notice, Protocol, Reply, Request, Said, Session};
use crate::close::CloseReason;

/// The protocol.
pub(crate) struct Shout;

/// A connection and its channel.
struct Shouter(String);

impl Protocol for Shout {
    fn path(&self) -> &'static str {
        "/shout/{channel}"
    }

    fn names(&self) -> &'static [&'static str] {
        &["shout"]
    }

    fn open(&self, channel: Option<&str>) -> Box<dyn Session> {
        Box::new(Shouter(channel.unwrap_or_default().to_owned()))
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        Body::text(record.payload.bytes().to_ascii_uppercase())
    }

    fn reply(&self, _id: Option<u64>, reply: &Reply<'_>) -> Said {
        match reply {
            Reply::Failed(failure) => say(&format!("that was not heard: {}", failure.message)),
            _ => Said::Nothing,
        }
    }

    fn notice(&self, notice: Notice<'_>) -> Said {
        match notice {
            Notice::Lost { channel, lost } => say(&format!("you missed something of {channel} ({})", lost.reason)),
            _ => Said::Nothing,
        }
    }
}

impl Session for Shouter {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Asked<'a> {
        let Incoming::Text(text) = message else { return Asked::End(CloseReason::Unsupported) };
        let (channel, payload) = (self.0.clone().into(), Payload::Text(text.into_owned().into()));
        Asked::For(Request { id: None, command: Command::Publish { channel, payload, key: None } })
    }
}

fn say(text: &str) -> Said {
    Said::Message(Body::text(text.to_uppercase().into_bytes()))
}
