//! `fanfare.raw`: every text message is published on the connection's channel, and every message of the channel is sent
//! as it is.
//!
//! Pure. What cannot be said in such messages ends the connection with a close code. Apps speak it too: what their
//! clients send goes to the app's handler.

use broker_adapters::{Payload, Record};

use super::{Asked, Body, Command, Incoming, Notice, Protocol, Reply, Request, Said, Session};
use crate::close::CloseReason;

/// The protocol.
pub(crate) struct Raw;

/// A connection that publishes on one channel.
struct OnChannel(Box<str>);

/// A connection to an app's handler.
pub(crate) struct ToHandler;

impl Protocol for Raw {
    fn path(&self) -> &'static str {
        "/raw/{channel}"
    }

    fn names(&self) -> &'static [&'static str] {
        &["fanfare.raw"]
    }

    fn open(&self, channel: Option<&str>) -> Box<dyn Session> {
        Box::new(OnChannel(channel.unwrap_or_default().into()))
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        match &record.payload {
            Payload::Json(text) | Payload::Text(text) => Body::text(&text[..]),
            Payload::Binary(bytes) => Body::binary(&bytes[..]),
        }
    }

    fn reply(&self, _id: Option<u64>, reply: &Reply<'_>) -> Said {
        match reply {
            // Every later message would seem to be published too.
            Reply::Failed(_) => Said::End(CloseReason::Overload),
            _ => Said::Nothing,
        }
    }

    fn notice(&self, notice: Notice<'_>) -> Said {
        match notice {
            Notice::Lost { .. } => Said::End(CloseReason::MessagesLost),
            Notice::Ping(_) | Notice::Degraded(_) | Notice::Reconnect { .. } => Said::Nothing,
        }
    }
}

impl Session for OnChannel {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Asked<'a> {
        match message {
            Incoming::Text(text) => {
                let (channel, payload) = (self.0.to_string().into(), Payload::Text(text.into_owned().into()));
                Asked::For(Request { id: None, command: Command::Publish { channel, payload, key: None } })
            }
            Incoming::Binary(_) => Asked::End(CloseReason::Unsupported),
        }
    }
}

impl Session for ToHandler {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Asked<'a> {
        Asked::Handler(message)
    }
}
