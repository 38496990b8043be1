//! An example protocol for tests: it echoes every message in upper case. It shows what a new protocol needs.

use broker_adapters::{Payload, Record};

use super::{Body, Incoming, Input, Notice, Output, Protocol, Reply, Session};
use crate::close::CloseReason;

/// The protocol.
pub(crate) struct Shout;

/// A connection that shouts on its channel.
struct Shouter;

impl Protocol for Shout {
    fn path(&self) -> Option<&'static str> {
        Some("/shout/{channel}")
    }

    fn names(&self) -> &'static [&'static str] {
        &["shout"]
    }

    fn open(&self) -> Box<dyn Session> {
        Box::new(Shouter)
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
        Input::Publish(Payload::Text(text.into_owned().into()))
    }
}

fn say(text: &str) -> Output {
    Output::Message(Body::text(text.to_uppercase().into_bytes()))
}
