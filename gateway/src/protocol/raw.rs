//! `fanfare.raw`: each text message is published on the connection's channel, and each message of the channel is sent
//! unchanged.
//!
//! Pure. Everything that cannot be such a message ends the connection with a close code. Apps use this protocol too:
//! their clients' messages go to the app's handler.

use broker_adapters::{Payload, Record};

use super::{Body, Incoming, Input, Notice, Output, Protocol, Reply, Session};
use crate::close::CloseReason;

/// The protocol.
pub(crate) struct Raw;

/// A session that publishes on the connection's channel.
struct OnChannel;

/// A session whose messages go to an app's handler.
pub(crate) struct ToHandler;

impl Protocol for Raw {
    fn path(&self) -> Option<&'static str> {
        Some("/raw/{channel}")
    }

    fn names(&self) -> &'static [&'static str] {
        &["fanfare.raw"]
    }

    fn open(&self) -> Box<dyn Session> {
        Box::new(OnChannel)
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        match &record.payload {
            Payload::Json(text) | Payload::Text(text) => Body::text(&text[..]),
            Payload::Binary(bytes) => Body::binary(&bytes[..]),
        }
    }

    fn reply(&self, _id: Option<u64>, reply: &Reply<'_>) -> Output {
        match reply {
            // Without a close, the client would assume that later messages are published too.
            Reply::Failed(failure) => Output::Close(match failure.code {
                "forbidden" | "unauthorised" => CloseReason::Forbidden,
                "too_large" => CloseReason::MessageTooBig,
                "rate_limited" => CloseReason::RateLimited,
                _ => CloseReason::Overload,
            }),
            _ => Output::Nothing,
        }
    }

    fn notice(&self, notice: Notice<'_>) -> Output {
        match notice {
            Notice::Lost { .. } => Output::Close(CloseReason::MessagesLost),
            Notice::Unsubscribed { .. } => Output::Close(CloseReason::Forbidden),
            // The channel's rule has chosen that clients see the newest message only.
            Notice::Skipped { .. }
            | Notice::Presence { .. }
            | Notice::Unseen { .. }
            | Notice::Ping(_)
            | Notice::Degraded(_)
            | Notice::Reconnect { .. } => Output::Nothing,
        }
    }
}

impl Session for OnChannel {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Input<'a> {
        match message {
            Incoming::Text(text) => Input::Publish(Payload::Text(text.into_owned().into())),
            Incoming::Binary(_) => Input::Close(CloseReason::Unsupported),
        }
    }
}

impl Session for ToHandler {
    fn read<'a>(&mut self, message: Incoming<'a>) -> Input<'a> {
        Input::Handler(message)
    }
}
