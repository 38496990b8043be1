//! The messages of a request, before they are published: their channel, content, key and trace.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName};
use broker_adapters::{Extension, Extensions, MessageId, NewRecord, Payload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Api;
use super::keys::Key;
use super::problem::Problem;
use crate::gate::{Moment, Right};
use crate::protocol::message_id;
use crate::protocol::native::{self, Object};

/// The header with a key for all messages of a request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id of a client, in bytes.
const CLIENT: usize = 64;

/// One message as a body has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) channel: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) channels: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) key: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) exclude: Option<Cow<'a, str>>,
}

/// Several messages as a body has them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenBatch<'a> {
    #[serde(borrow)]
    pub(super) messages: Vec<Object<OneOfBatch<'a>>>,
}

/// One message of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneOfBatch<'a> {
    #[serde(borrow)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) key: Option<Cow<'a, str>>,
    #[serde(default, borrow, deserialize_with = "present")]
    pub(super) exclude: Option<Cow<'a, str>>,
}

/// What all messages of a request share.
pub(super) struct Common<'a> {
    pub(super) owner: &'a Key,
    pub(super) key: Option<&'a str>,
    extensions: Extensions,
}

impl<'a> Common<'a> {
    pub(super) fn of(owner: &'a Key, headers: &'a HeaderMap) -> Result<Self, Problem> {
        let key = match headers.get(IDEMPOTENCY_KEY) {
            Some(value) => {
                let text = value.to_str().map_err(|_| Problem::bad_request("`Idempotency-Key` must be plain ASCII"))?;
                check_key(text)?;
                Some(text)
            }
            None => None,
        };
        let trace = headers.get(TRACE_PARENT).and_then(|value| value.to_str().ok()).filter(|text| is_trace(text));
        let extended = trace.map(|trace| Extensions::default().with(Extension::TraceParent, trace));
        // A trace is short, so it fits.
        let extensions = extended.and_then(Result::ok).unwrap_or_default();
        Ok(Self { owner, key, extensions })
    }

    /// The key of a single message: that of the body, or that of the header.
    pub(super) fn key_of(&self, written: Option<&'a str>) -> Result<Option<&'a str>, Problem> {
        written.map_or(Ok(()), check_key)?;
        match (written, self.key) {
            (Some(one), Some(other)) if one != other => {
                Err(Problem::bad_request("`key` and the header `Idempotency-Key` differ: send one of them"))
            }
            (one, other) => Ok(one.or(other)),
        }
    }
}

/// The names that one message may have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Named<'a> {
    /// By which a repeat is recognised.
    pub(super) key: Option<&'a str>,
    /// The client that does not get the message.
    pub(super) exclude: Option<&'a str>,
}

impl Api {
    /// A message that the key may publish now.
    pub(super) fn message(
        &self,
        common: &Common<'_>,
        channel: &str,
        payload: Payload,
        Named { key, exclude }: Named<'_>,
    ) -> Result<NewRecord, Problem> {
        let shared = &self.shared;
        let of_rule = shared.gate.judge_backend(&common.owner.backend, Right::Publish, channel)?;
        let of_node = shared.config.limits.message.bytes();
        let (most, bytes) = (of_rule.unwrap_or(of_node).min(of_node), payload.bytes().len());
        if bytes > most {
            return Err(Problem::too_large("a message on this channel", most, Some(bytes)));
        }
        let extensions =
            exclude.map_or(Ok(common.extensions.clone()), |client| excluding(&common.extensions, client))?;
        self.take(common.owner)?;
        let id = key.map_or_else(MessageId::random, |key| message_id(channel, key));
        let record = NewRecord::new(id, channel.to_owned(), payload);
        Ok(NewRecord { extensions, ..record })
    }

    /// Takes one publish from what the key may do.
    pub(super) fn take(&self, key: &Key) -> Result<(), Problem> {
        let Some(rate) = self.rate else { return Ok(()) };
        key.pace.take(rate, Moment::new(self.started, crate::clock::now())).map_err(|wait| {
            self.shared.metrics.limited();
            let detail = format!("more than {} messages a second with this key", rate.per_second);
            Problem::rate_limited(detail, Some(rate.per_second), wait)
        })
    }
}

fn excluding(extensions: &Extensions, client: &str) -> Result<Extensions, Problem> {
    let refused = || Problem::bad_request(format!("`exclude` is the id of a client, of 1 to {CLIENT} bytes"));
    match (1..=CLIENT).contains(&client.len()) {
        true => extensions.with(Extension::Excluded, client).map_err(|_| refused()),
        false => Err(refused()),
    }
}

/// Reads a field that may be missing but not `null`, which would be a mistake of its sender.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a body that must be a JSON object.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let read = serde_json::from_slice(body).map(|Object(read)| read);
    read.map_err(|error| Problem::bad_request(format!("the body is not as it must be: {error}")))
}

/// Reads a body that may be empty or a JSON object.
pub(super) fn parse_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { parse(body) }
}

pub(super) fn check_key(key: &str) -> Result<(), Problem> {
    native::check_key(Some(key)).map_err(Problem::from)
}

/// Whether a text is a trace of version 00 (W3C Trace Context §3.2). Others are ignored, as that page demands.
fn is_trace(text: &str) -> bool {
    let lengths = [2, 32, 16, 2];
    let parts: Vec<_> = text.split('-').collect();
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let named = |part: &str| part.bytes().any(|byte| byte != b'0');
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| part.len() == length && hex(part))
        && parts[0] == "00"
        && named(parts[1])
        && named(parts[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_trace_is_kept() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_trace(good));
        for bad in [
            "",
            "00",
            &good[1..],
            &format!("{good}-00"),
            &good.to_uppercase(),
            &good.replace("00-4", "ff-4"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(!is_trace(bad), "{bad}");
        }
    }

    #[test]
    fn a_wrong_body_is_answered_with_the_place_of_the_mistake() {
        let detail = |body: &str| {
            let problem = parse::<Written<'_>>(body.as_bytes()).err().expect(body);
            problem.json()["detail"].as_str().expect("a text").to_owned()
        };
        assert!(detail("{\"channel\":\"a\",\n\"data\":}").contains("line 2 column 8"));
        assert!(detail(r#"{"channel":"a"}"#).contains("missing field `data`"));
        assert!(detail(r#"{"channel":"a","data":1,"colour":2}"#).contains("unknown field `colour`"));
        assert!(detail(r#"{"channel":"a","data":1,"key":null}"#).contains("invalid type: null"));
        assert!(detail(r#"["a",null,1,null]"#).contains("an object"));
        assert!(parse::<Written<'_>>(br#"{"channel":"a","data":null,"key":"k"}"#).is_ok());
    }
}
