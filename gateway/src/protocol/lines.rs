//! Lines of JSON (`application/x-ndjson`): what a client of `fanfare.v1` gets, one object a line. Clients only listen.
//!
//! Pure.

use broker_adapters::Record;
use serde_json::json;

use super::native::Native;
use super::sse::{self, Listener};
use super::{Body, Notice, Output, Protocol, Reply, Session};
use crate::close::CloseReason;

/// The protocol.
pub(crate) struct Lines;

impl Protocol for Lines {
    fn open(&self) -> Box<dyn Session> {
        Box::new(Listener::default())
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        Native.message(record).into_line()
    }

    fn reply(&self, id: Option<u64>, reply: &Reply<'_>) -> Output {
        match reply {
            Reply::Failed(_) => sse::Sse.reply(id, reply),
            _ => line(Native.reply(id, reply)),
        }
    }

    fn notice(&self, notice: Notice<'_>) -> Output {
        line(Native.notice(notice))
    }

    fn ending(&self, reason: CloseReason) -> Option<Body<'static>> {
        let what = json!({ "close": sse::ending(reason)? });
        Some(Body::stream(what.to_string().into_bytes()).into_line())
    }
}

fn line(output: Output) -> Output {
    match output {
        Output::Message(body) => Output::Message(body.into_line()),
        other => other,
    }
}
