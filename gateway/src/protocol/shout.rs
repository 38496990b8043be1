//! An example protocol for tests: it echoes every message in upper case. It shows what a new protocol needs.

use broker_adapters::{Payload, Record};

use super::{Body, Command, Incoming, Input, Notice, Output, Protocol, Reply, Request, Session};
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

    fn reply(&self, _id: Option<u64>, reply: &Reply<'_>) -> Output {
        match reply {
            Reply::Failed(failure) => say(&format!("not published: {}", failure.message)),
            _ => Output::Nothing,
        }
    }

    fn notice(&self, notice: Notice<'_>) -> Output {
        match notice {
            Notice::Lost { channel, lost } => say(&format!("lost messages of {channel} ({})", lost.reason)),
            _ => Output::Nothing,
        }
    }
}

impl Session for Shouter {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Input<'a> {
        let Incoming::Text(text) = message else { return Input::Close(CloseReason::Unsupported) };
        let (channel, payload) = (self.0.clone().into(), Payload::Text(text.into_owned().into()));
        Input::Command(Request { id: None, command: Command::Publish { channel, payload, key: None } })
    }
}

fn say(text: &str) -> Output {
    Output::Message(Body::text(text.to_uppercase().into_bytes()))
}
