//! What a backend answers.
//!
//! Pure. Strict: an unknown field is refused, since a misspelt `channels` would otherwise grant everything. Its errors repeat nothing
//! of the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_adapters::Payload;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::cache::LONGEST;
use crate::auth::Auth;
use crate::config::Hook;
use crate::gate::Identity;
use crate::protocol::{Failure, native};

/// The largest answer beside the message that it may hold, in bytes.
pub(super) const BYTES: usize = 64 * 1024;
/// The longest text for a client, in bytes.
const MESSAGE: usize = 500;
/// The codes that a backend may give a refusal.
const CODES: [&str; 4] = ["forbidden", "unauthorised", "rate_limited", "rejected"];

/// A valid answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) decision: Decision,
    /// For how long it holds for equal questions.
    pub(super) ttl: Option<Duration>,
}

/// What it decides.
#[derive(Debug, Default)]
pub(super) enum Decision {
    /// The client may.
    #[default]
    Allowed,
    /// The client may connect, and is this.
    Introduced(Arc<Identity>),
    /// The client may, and this is published in place of its message.
    Changed(Payload),
    /// The client may not.
    Refused(Failure),
}

/// Why an answer is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) &'static str);

/// The fields of all answers, but for those that an identity is made of.
#[derive(Deserialize)]
struct Fields {
    ttl: Option<u64>,
    expires_in: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    base64: Option<String>,
}

/// Whether it allows it, and what it says if not.
#[derive(Deserialize)]
struct Allow {
    allow: bool,
    code: Option<Value>,
    message: Option<Value>,
}

/// The fields that an answer to a hook may have.
fn known(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::Connect => &["allow", "code", "message", "ttl", "user", "info", "channels", "subscribe", "expires_in"],
        Hook::Subscribe => &["allow", "code", "message", "ttl"],
        Hook::Publish => &["allow", "code", "message", "data", "base64"],
    }
}

impl Answer {
    /// Reads the answer to a question of this hook, at the time `now`, in seconds since 1970. A message has at most `most` bytes.
    pub(super) fn read(hook: Hook, bytes: &[u8], auth: &Auth, now: u64, most: usize) -> Result<Self, Invalid> {
        let json: &RawValue = serde_json::from_slice(bytes).map_err(|_| Invalid("it is not JSON"))?;
        let allow: Allow = object(json).ok_or(Invalid("it is not a JSON object with \"allow\": true or false"))?;
        // A refusal stays one, whatever else is wrong: with `hooks.fail_open` an invalid answer would let the client in.
        let refused = (!allow.allow).then(|| Decision::Refused(refusal(hook, &allow)));
        let rest = match Self::allowed(hook, json, auth, now, most) {
            Err(invalid) if refused.is_none() => return Err(invalid),
            rest => rest.unwrap_or_default(),
        };
        Ok(Self { decision: refused.unwrap_or(rest.decision), ttl: rest.ttl })
    }

    /// Reads what an answer holds beside its decision.
    fn allowed(hook: Hook, json: &RawValue, auth: &Auth, now: u64, most: usize) -> Result<Self, Invalid> {
        let names: BTreeMap<String, IgnoredAny> = object(json).ok_or(Invalid("it is not a JSON object"))?;
        if names.keys().any(|name| !known(hook).contains(&name.as_str())) {
            return Err(Invalid("it has a field that this hook does not know"));
        }
        let Fields { ttl, expires_in, data, base64 } =
            object(json).ok_or(Invalid("`ttl`, `expires_in` or `base64` is of the wrong type"))?;
        let decision = match (hook, data, base64) {
            (Hook::Connect, ..) => {
                const PARTS: &str = "`user`, `info`, `channels` or `subscribe` is not as docs/hooks.md says";
                let identity = auth.of_answer(json, now).map_err(|_| Invalid(PARTS))?;
                let identity = if identity.token.is_some() { Arc::new(identity) } else { Identity::anonymous() };
                Decision::Introduced(identity)
            }
            (_, None, None) => Decision::Allowed,
            (_, data, base64) => Decision::Changed(changed(data, base64, most)?),
        };
        let longest = expires_in.map_or(LONGEST, |left| LONGEST.min(Duration::from_secs(left)));
        let ttl = ttl.map(|ttl| longest.min(Duration::from_secs(ttl))).filter(|ttl| !ttl.is_zero());
        Ok(Self { decision, ttl })
    }
}

/// A value that may be null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

/// The message that a backend puts in place of the client's.
fn changed(data: Option<Box<RawValue>>, base64: Option<String>, most: usize) -> Result<Payload, Invalid> {
    let payload = match (data, base64) {
        (Some(json), None) => native::payload(&json),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text).map_err(|_| Invalid("its `base64` is not base64"))?;
            Payload::Binary(bytes.into())
        }
        _ => return Err(Invalid("it has both `data` and `base64`")),
    };
    match payload.bytes().len() <= most {
        true => Ok(payload),
        false => Err(Invalid("its message is larger than the channel's rule or `limits.message` allows")),
    }
}

fn refusal(hook: Hook, Allow { code, message, .. }: &Allow) -> Failure {
    let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
    let code = text(code);
    let code = CODES.into_iter().find(|known| code.as_deref() == Some(*known)).unwrap_or("forbidden");
    let mut message = text(message).unwrap_or_else(|| match hook {
        Hook::Connect => "the backend does not let this client in".to_owned(),
        Hook::Subscribe => "the backend does not allow this subscription".to_owned(),
        Hook::Publish => "the backend does not allow this message".to_owned(),
    });
    message.retain(|c| !c.is_control());
    let end = (0..=MESSAGE.min(message.len())).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    message.truncate(end);
    if code == "rate_limited" { Failure::for_a_time(code, message, 1000) } else { Failure::new(code, message) }
}

/// Reads a JSON object with each field once.
fn object<T: DeserializeOwned>(json: &RawValue) -> Option<T> {
    json.get().starts_with('{').then(|| serde_json::from_str(json.get()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NOW: u64 = 1_800_000_000;

    fn read(hook: Hook, text: &str) -> Result<Answer, Invalid> {
        let auth = Auth::new(&Config::default()).expect("no keys");
        Answer::read(hook, text.as_bytes(), &auth, NOW, 20)
    }

    #[test]
    fn an_answer_allows_or_refuses_in_its_own_words() {
        for hook in Hook::ALL {
            let answer = read(hook, r#"{"allow":true}"#).expect("valid");
            assert!(!matches!(answer.decision, Decision::Refused(_)) && answer.ttl.is_none(), "{hook:?}");
            for (text, code, message) in [
                (r#"{"allow":false}"#, "forbidden", "the backend does not"),
                (r#"{"allow":false,"code":"unauthorised","message":"log in\nfirst"}"#, "unauthorised", "log infirst"),
                (r#"{"allow":false,"code":"odd","message":"no","chanels":[]}"#, "forbidden", "no"),
                (r#"{"allow":false,"code":7,"message":7,"user":7,"ttl":"soon"}"#, "forbidden", "the backend does not"),
            ] {
                let Ok(Answer { decision: Decision::Refused(failure), .. }) = read(hook, text) else {
                    panic!("{text}")
                };
                assert!(failure.code == code && failure.message.starts_with(message), "{failure:?}");
            }
        }
        let long = format!(r#"{{"allow":false,"message":"{}"}}"#, "é".repeat(1000));
        let Ok(Answer { decision: Decision::Refused(failure), .. }) = read(Hook::Publish, &long) else {
            panic!("{long}")
        };
        assert!(failure.message.len() <= MESSAGE);
    }

    #[test]
    fn what_is_not_an_answer_is_refused() {
        for (hook, text) in [
            (Hook::Subscribe, ""),
            (Hook::Subscribe, "true"),
            (Hook::Subscribe, "[true]"),
            (Hook::Subscribe, "{}"),
            (Hook::Subscribe, r#"{"allow":1}"#),
            (Hook::Subscribe, r#"{"allow":"true"}"#),
            (Hook::Subscribe, r#"{"allow":true,"allow":true}"#),
            (Hook::Subscribe, r#"{"allow":true,"ttl":-1}"#),
            (Hook::Subscribe, r#"{"allow":true,"user":"ann"}"#),
            (Hook::Publish, r#"{"allow":true,"ttl":5}"#),
            (Hook::Publish, r#"{"allow":true,"base64":"?"}"#),
            (Hook::Publish, r#"{"allow":true,"data":1,"base64":"AAAA"}"#),
            (Hook::Publish, r#"{"allow":true,"data":"012345678901234567890"}"#),
            (Hook::Connect, r#"{"allow":true,"chanels":[]}"#),
            (Hook::Connect, r#"{"allow":true,"user":42}"#),
            (Hook::Connect, r#"{"allow":true,"user":"ann","channels":[{"match":"a b:","can":["fly"]}]}"#),
            (Hook::Connect, r#"{"allow":true,"user":"ann","expires_in":"soon"}"#),
        ] {
            assert!(read(hook, text).is_err(), "{hook:?} {text}");
        }
    }

    #[test]
    fn a_client_gets_a_user_rights_and_an_end() {
        let text = r#"{"allow":true,"user":"ann","info":{"n":1},"subscribe":["news"],"expires_in":60,"ttl":90,
                       "channels":[{"match":"chat:*","can":["subscribe"]}]}"#;
        let Answer { decision: Decision::Introduced(identity), ttl } = read(Hook::Connect, text).expect("valid") else {
            panic!("it is let in")
        };
        assert_eq!((identity.user(), &*identity.subscribe()[0]), (Some("ann"), "news"));
        assert!(identity.rights.is_some() && identity.token.is_some_and(|token| token.expires() == NOW + 60));
        assert_eq!(ttl, Some(Duration::from_secs(60)), "not longer than the client may stay");
        let Ok(Answer { decision: Decision::Introduced(identity), .. }) = read(Hook::Connect, r#"{"allow":true}"#)
        else {
            panic!("it is let in")
        };
        assert!(Arc::ptr_eq(&identity, &Identity::anonymous()));
        let Ok(Answer { decision: Decision::Introduced(identity), .. }) =
            read(Hook::Connect, r#"{"allow":true,"user":"ann"}"#)
        else {
            panic!("it is let in")
        };
        assert!(identity.token.is_some_and(|token| !token.ends() && token.issued_by(60) == NOW));
    }

    #[test]
    fn a_message_is_changed_to_json_a_text_or_bytes() {
        for (text, expected) in [
            (r#"{"allow":true,"data":{"a": 1}}"#, Payload::Json("{\"a\": 1}".into())),
            (r#"{"allow":true,"data":"a\"b"}"#, Payload::Text("a\"b".into())),
            (r#"{"allow":true,"data":null}"#, Payload::Json("null".into())),
            (r#"{"allow":true,"base64":"AP8="}"#, Payload::Binary(vec![0, 255].into())),
        ] {
            let Ok(Answer { decision: Decision::Changed(payload), .. }) = read(Hook::Publish, text) else {
                panic!("{text}")
            };
            assert_eq!(payload, expected);
        }
    }
}
