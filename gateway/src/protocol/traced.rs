//! `fanfare.v1` for clients that have asked for traces: a message names the trace that it belongs to, if it has one.
//!
//! Pure. Other clients do not see traces, which may tell something about the backend.

use broker_adapters::{Extension, Record};

use super::native::{self, Native};
use super::{Body, Notice, Output, Protocol, Reply, Session};

/// The protocol.
pub(crate) struct Traced;

impl Protocol for Traced {
    fn takes_tokens(&self) -> bool {
        true
    }

    fn open(&self) -> Box<dyn Session> {
        Native.open()
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        let mut json = native::message(record);
        if let Some(trace) = record.extensions.get(Extension::TraceParent) {
            json.pop();
            json.extend_from_slice(format!(",\"trace\":{}}}", native::quoted(trace)).as_bytes());
        }
        Body::text(json)
    }

    fn reply(&self, id: Option<u64>, reply: &Reply<'_>) -> Output {
        Native.reply(id, reply)
    }

    fn notice(&self, notice: Notice<'_>) -> Output {
        Native.notice(notice)
    }
}

#[cfg(test)]
mod tests {
    use broker_adapters::{Extensions, MessageId, Offset, Partition, Payload};

    use super::*;

    #[test]
    fn a_message_names_its_trace_only_if_it_has_one() {
        let (partition, offset, id, time) = (Partition(2), Offset(9), MessageId(0xab), 0);
        for (trace, expected) in [(None, ""), (Some("00-a\"b"), ",\"trace\":\"00-a\\\"b\"")] {
            let extensions = Extensions::default();
            let extended = trace.map(|trace| extensions.with(Extension::TraceParent, trace).expect("short"));
            let (channel, payload) = ("a".into(), Payload::Json("1".into()));
            let extensions = extended.unwrap_or_default();
            let record = Record { partition, offset, id, time, channel, payload, extensions };
            let written = Traced.message(&record).to_string();
            assert_eq!(written, format!("{{\"channel\":\"a\",\"data\":1,\"at\":\"09.2.ab\"{expected}}}"));
        }
    }
}
