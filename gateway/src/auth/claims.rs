//! The claims of a token whose signature is right → an identity.
//!
//! Pure: the time comes from the caller. Types are strict, because a claim of the wrong type must not count as absent.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::refused::Refused;
use super::shared_rights::SharedRights;
use crate::gate::{Extras, Grant, Identity, Pattern, Rights, Token, Verb};

/// How far clocks may differ, in seconds. A token is accepted this long after `exp`.
pub(crate) const LEEWAY: u64 = 30;
/// The longest name of a user, in bytes.
const USER: usize = 255;
/// The longest `info`, in bytes.
const INFO: usize = 4096;

const ANSWER: &str = "it is not a JSON object with each field once";

pub(super) const FORM: &str = "its claim `fanfare` is {\"info\": any JSON, \"channels\": [{\"match\": \"chat:*\", \"can\": [\"subscribe\", \
                    \"publish\", \"presence\", \"history\"]}], \"subscribe\": [\"chat:1\"]}, where each part may be missing";

/// What is wrong with claims that cannot be read at all.
pub(super) const CLAIMS: &str = "its claims are not a JSON object with each claim once and of its type";

/// The claims, as they came.
#[derive(Deserialize)]
pub(super) struct Claims {
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    sub: Option<Value>,
    jti: Option<Value>,
    fanfare: Option<Box<RawValue>>,
}

/// Fanfare's own claim.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fanfare {
    info: Option<Box<RawValue>>,
    /// Each is an [`Entry`]. Absent means that the rules alone decide, and null is refused.
    #[serde(deserialize_with = "present")]
    channels: Option<Vec<Box<RawValue>>>,
    subscribe: Vec<Box<str>>,
}

/// What the maker of a ticket adds to its claims.
#[derive(Deserialize)]
struct Bounds {
    /// What the ticket's client may do at most, in the form of `fanfare.channels`; absent if that is everything.
    within: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
struct Entry {
    r#match: String,
    can: Vec<Verb>,
}

/// What the claims must say. An empty list means that the claim is not checked.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) issuers: Vec<String>,
    pub(super) audiences: Vec<String>,
    /// The longest life of a token, in seconds.
    pub(super) longest: u64,
}

/// What a ticket's client may do at most; `None` if its claims alone decide.
pub(super) fn bounds(json: &RawValue) -> Result<Option<Rights>, Refused> {
    let Bounds { within } = object(json).ok_or(Refused::Malformed(CLAIMS))?;
    within.map(|entries| rights(&entries)).transpose()
}

impl Claims {
    pub(super) fn read(json: &RawValue) -> Result<Self, Refused> {
        object(json).ok_or(Refused::Malformed(CLAIMS))
    }

    /// The identity that the claims prove at the time `now`, in seconds since 1970.
    pub(super) fn identity(self, terms: &Terms, now: u64, shared: &SharedRights) -> Result<Identity, Refused> {
        let expires = seconds(self.exp.as_ref(), "its `exp` is not a number of seconds since 1970")?;
        let expires = expires.ok_or(Refused::Malformed("it has no `exp`: every token must expire"))?;
        let begins = seconds(self.nbf.as_ref(), "its `nbf` is not a number of seconds since 1970")?;
        let issued = seconds(self.iat.as_ref(), "its `iat` is not a number of seconds since 1970")?;
        if now >= expires.saturating_add(LEEWAY) {
            return Err(Refused::Expired);
        }
        if begins.max(issued).is_some_and(|begins| begins > now.saturating_add(LEEWAY)) {
            return Err(Refused::NotYet);
        }
        // Revocations are kept for as long as a token may live.
        if expires.saturating_sub(issued.unwrap_or(now)) > terms.longest {
            return Err(Refused::Lifetime);
        }
        if !terms.issuers.is_empty() && !self.iss.as_ref().is_some_and(|iss| is_one_of(iss, &terms.issuers)) {
            return Err(Refused::Issuer);
        }
        if !terms.audiences.is_empty() && !is_for(self.aud.as_ref(), &terms.audiences) {
            return Err(Refused::Audience);
        }
        let id = match &self.jti {
            None => None,
            Some(Value::String(id)) => Some(token_id(id)),
            Some(_) => return Err(Refused::Malformed("its `jti` is not a string")),
        };
        let user = user(self.sub.as_ref())?;
        let fanfare = match &self.fanfare {
            Some(claim) => object(claim).ok_or(Refused::Malformed(FORM))?,
            None => Fanfare::default(),
        };
        let (rights, extras) = fanfare.read(shared)?;
        Ok(Identity { user: Some(user), extras, rights, token: Some(Token::new(expires, issued, id)) })
    }
}

/// What the claim gives to an identity.
type Granted = (Option<Arc<Rights>>, Option<Box<Extras>>);

impl Fanfare {
    fn read(self, shared: &SharedRights) -> Result<Granted, Refused> {
        let Self { info, channels, subscribe } = self;
        let info = info.map(|info| Arc::<str>::from(Box::<str>::from(info)));
        if info.as_ref().is_some_and(|info| info.len() > INFO) {
            return Err(Refused::Malformed("its `fanfare.info` is longer than 4 KiB"));
        }
        let rights = channels.map(|entries| rights(&entries)).transpose()?.map(|rights| shared.share(rights));
        let has_extras = info.is_some() || !subscribe.is_empty();
        let extras = has_extras.then(|| Box::new(Extras { info, subscribe: subscribe.into(), within: None }));
        Ok((rights, extras))
    }
}

/// What a backend says about a client that it lets in.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Introduced {
    user: Option<Value>,
    expires_in: Option<Value>,
}

/// The identity that a backend's answer gives at the time `now`, in seconds since 1970. Beside a token's `info`, `channels` and
/// `subscribe` it may have `user` and `expires_in`.
pub(super) fn introduced(json: &RawValue, now: u64, shared: &SharedRights) -> Result<Identity, Refused> {
    let Introduced { user: name, expires_in } = object(json).ok_or(Refused::Malformed(ANSWER))?;
    let fanfare: Fanfare = object(json).ok_or(Refused::Malformed(FORM))?;
    let user = name.is_some().then(|| user(name.as_ref())).transpose()?;
    let left = seconds(expires_in.as_ref(), "its `expires_in` is not a number of seconds")?;
    let (rights, extras) = fanfare.read(shared)?;
    let known = user.is_some() || rights.is_some() || extras.is_some() || left.is_some();
    let token = known.then(|| Token::of_backend(now, left.map(|left| now.saturating_add(left))));
    Ok(Identity { user, rights, extras, token })
}

/// A value that is not null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A number of seconds (RFC 7519 §2: it may have a fraction, which is cut off).
fn seconds(value: Option<&Value>, otherwise: &'static str) -> Result<Option<u64>, Refused> {
    let Some(value) = value else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let fraction = value.as_f64().filter(|fraction| *fraction >= 0.0 && *fraction < 1e18)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the bounds are checked")]
        Some(fraction as u64)
    });
    whole.map(Some).ok_or(Refused::Malformed(otherwise))
}

fn is_one_of(value: &Value, accepted: &[String]) -> bool {
    value.as_str().is_some_and(|value| accepted.iter().any(|accepted| accepted == value))
}

/// RFC 7519 §4.1.3: `aud` is a string or a list of strings.
fn is_for(aud: Option<&Value>, audiences: &[String]) -> bool {
    match aud {
        Some(Value::Array(names)) => names.iter().any(|name| is_one_of(name, audiences)),
        Some(name) => is_one_of(name, audiences),
        None => false,
    }
}

fn user(sub: Option<&Value>) -> Result<SmolStr, Refused> {
    match sub {
        None => Err(Refused::Malformed("it has no `sub`: that is the user")),
        Some(Value::String(user)) if (1..=USER).contains(&user.len()) && !user.contains(char::is_control) => {
            Ok(user.as_str().into())
        }
        Some(_) => Err(Refused::Malformed("its `sub` is not a string of 1 to 255 bytes without control characters")),
    }
}

fn rights(channels: &[Box<RawValue>]) -> Result<Rights, Refused> {
    let grants = channels.iter().map(|entry| {
        let Entry { r#match, can } = object(entry).ok_or(Refused::Malformed(FORM))?;
        let pattern: Pattern = r#match.parse().map_err(|_| {
            Refused::Malformed(
                "a `match` in its claim `fanfare` is not a pattern, such as \"chat:*\" or \"user:{sub}\"",
            )
        })?;
        Ok(Grant { pattern, can: can.into() })
    });
    grants.collect::<Result<_, _>>().map(Rights)
}

/// Reads a JSON object with each field once. Serde alone would also take a list of the values.
fn object<T: DeserializeOwned>(json: &RawValue) -> Option<T> {
    json.get().starts_with('{').then(|| serde_json::from_str(json.get()).ok()).flatten()
}

/// A token's id (`jti`) as all nodes keep it: a quarter of its SHA-256.
pub(crate) fn token_id(jti: &str) -> u64 {
    let hash = digest(&SHA256, jti.as_bytes());
    hash.as_ref().first_chunk().map_or(0, |part| u64::from_be_bytes(*part))
}
