//! `POST /v1/tickets`: a ticket, with which a client that cannot send headers connects once.
//!
//! The log holds a hash of it and what it proves. The answer alone holds the ticket itself.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::http::request::Parts;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::Api;
use super::body::Kind;
use super::keys::Key;
use super::messages::{parse, present};
use super::problem::{Problem, Reply, json_reply};
use crate::auth::{Refused, TOKEN_BYTES, generate};
use crate::cluster::{LIFE, made, publish};
use crate::gate::{Backend, Pattern, Right, Verb};
use crate::protocol::Failure;
use crate::protocol::native::Object;

/// How long the ticket's connection may last if the request does not say it, in seconds.
const LAST: u64 = 3600;

/// What a ticket is to prove, as the request says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(default, borrow, deserialize_with = "present")]
    info: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present")]
    channels: Option<Vec<Object<Entry>>>,
    #[serde(default, deserialize_with = "present")]
    expires_in: Option<u64>,
}

/// The same as the claims of a token.
#[derive(Serialize)]
struct Proven<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    fanfare: Fanfare<'a>,
    /// What the client may do at most: what the key may.
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<Vec<Entry>>,
}

#[derive(Serialize)]
struct Fanfare<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<&'a Entry>>,
}

/// Verbs on the channels of a pattern.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    r#match: Pattern,
    can: Vec<Verb>,
}

impl Api {
    /// Makes a ticket. Its client may do nothing that the key may not.
    pub(super) async fn ticket(&self, key: &Key, head: &Parts, body: Incoming) -> Result<Reply, Problem> {
        Kind::must_be_json(&head.headers)?;
        let (body, _room) = self.read(body, 2 * TOKEN_BYTES).await?;
        let now = (self.shared.clock)();
        let claims = self.claims(key, &parse(&body)?, now / 1000)?;
        self.take(key)?;
        if !self.shared.cluster.has_room_for_tickets(now) {
            let why = "too many tickets are outstanding: each ends after 30 s, and a used one takes less room";
            return Err(Failure::for_now("overloaded", why).into());
        }
        let ticket = generate::secret().map_err(|error| Failure::for_now("unavailable", error.to_string()))?;
        let stored = publish(&self.shared.log, &made(&ticket, claims)).await;
        stored.map_err(|error| Problem::from(Failure::from(error)))?;
        Ok(json_reply(StatusCode::OK, json!({ "ticket": ticket, "expires_in": LIFE }).to_string()))
    }

    /// What the ticket proves, as JSON.
    fn claims(&self, key: &Key, wanted: &Wanted<'_>, now: u64) -> Result<String, Problem> {
        let Wanted { user, info, channels, expires_in } = wanted;
        let longest = self.shared.auth.longest();
        let last = expires_in.unwrap_or(LAST.min(longest));
        if !(1..=longest).contains(&last) {
            return Err(Problem::bad_request(format!("`expires_in` is 1 to {longest} seconds (`auth.max_life`)")));
        }
        let channels = channels.as_ref().map(|entries| entries.iter().map(|Object(entry)| entry).collect());
        let fanfare = Fanfare { info: *info, channels };
        let proven =
            Proven { sub: user, iat: now, exp: now.saturating_add(last), fanfare, within: within(&key.backend) };
        let claims = serde_json::to_string(&proven).map_err(|error| Problem::bad_request(error.to_string()))?;
        if claims.len() > TOKEN_BYTES {
            return Err(Problem::too_large("what a ticket proves", TOKEN_BYTES, Some(claims.len())));
        }
        match self.shared.auth.of_ticket(&claims, now) {
            Ok(_) => Ok(claims),
            Err(Refused::Malformed(why)) => Err(Problem::bad_request(format!("as the claims of a token: {why}"))),
            Err(refused) => Err(Problem::bad_request(refused.to_string())),
        }
    }
}

/// What the holder of a key may do itself, as rights of a client. `None` if that is everything.
fn within(backend: &Backend) -> Option<Vec<Entry>> {
    let (reads, publishes) = (backend.can.contains(&Right::Read), backend.can.contains(&Right::Publish));
    if reads && publishes && backend.channels.iter().any(|pattern| pattern.to_string() == "*") {
        return None;
    }
    let of = |verb: &Verb| if *verb == Verb::Publish { publishes } else { reads };
    let can = Verb::ALL.into_iter().filter(of).collect::<Vec<_>>();
    Some(backend.channels.iter().map(|pattern| Entry { r#match: pattern.clone(), can: can.clone() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_bounded_by_its_key_unless_that_may_do_everything() {
        for (can, channels, expected) in [
            (&[Right::Publish, Right::Read, Right::Admin][..], &["a:*", "*"][..], None),
            (&[Right::Read, Right::Admin], &["*"], Some(r#"[{"match":"*","can":["subscribe","presence","history"]}]"#)),
            (&[Right::Publish, Right::Admin], &["a"], Some(r#"[{"match":"a","can":["publish"]}]"#)),
            (
                &[Right::Publish, Right::Read],
                &["a:{x}"],
                Some(r#"[{"match":"a:{x}","can":["subscribe","publish","presence","history"]}]"#),
            ),
            (&[Right::Admin], &["a"], Some(r#"[{"match":"a","can":[]}]"#)),
        ] {
            let channels = channels.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
            let backend = Backend { can: can.into(), channels };
            let within = within(&backend).map(|entries| serde_json::to_string(&entries).expect("JSON"));
            assert_eq!(within.as_deref(), expected, "{can:?}");
        }
    }
}
