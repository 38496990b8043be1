//! `POST /v1/users/{user}/revoke` and `/v1/revoke`: end tokens before they expire, as `fanfare revoke` does.

use axum::http::StatusCode;
use axum::http::request::Parts;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::body::Kind;
use super::messages::{parse, parse_or_default, present};
use super::problem::{Problem, Reply, json_reply};
use crate::auth::token_id;
use crate::cluster::{Control, Revocation, publish};
use crate::protocol::Failure;

/// The most bytes of the body.
const BODY: usize = 16 << 10;

/// Which tokens of the user; without a field all that were issued until now.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Which {
    /// The one token with this id.
    #[serde(deserialize_with = "present")]
    jti: Option<String>,
    /// Those that were issued until then, in seconds since 1970.
    #[serde(deserialize_with = "present")]
    issued_until: Option<u64>,
}

/// The body that ends the tokens of all users. It has to say so, because an empty one might be a mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Everyone {
    everyone: bool,
    /// Those that were issued until then, in seconds since 1970; without it, until now.
    #[serde(default, deserialize_with = "present")]
    issued_until: Option<u64>,
}

impl Api {
    pub(super) async fn revoke(&self, head: &Parts, user: String, body: Incoming) -> Result<Reply, Problem> {
        let (body, _room) = self.read(body, BODY).await?;
        if !body.is_empty() {
            Kind::must_be_json(&head.headers)?;
        }
        let Which { jti, issued_until } = parse_or_default(&body)?;
        if jti.is_some() && issued_until.is_some() {
            return Err(Problem::bad_request("send `jti` or `issued_until`, not both"));
        }
        let (now, longest) = (self.seconds(), self.shared.auth.longest());
        let revocation = match jti {
            Some(jti) => Revocation::of_token(token_id(&jti), now, longest),
            None => Revocation::until(Some(user), issued_until.unwrap_or(now), now, longest),
        };
        self.write_revocation(revocation).await
    }

    pub(super) async fn revoke_all(&self, head: &Parts, body: Incoming) -> Result<Reply, Problem> {
        Kind::must_be_json(&head.headers)?;
        let (body, _room) = self.read(body, BODY).await?;
        let Everyone { everyone, issued_until } = parse(&body)?;
        if !everyone {
            return Err(Problem::bad_request("send {\"everyone\":true} to end the tokens of all users"));
        }
        let (now, longest) = (self.seconds(), self.shared.auth.longest());
        self.write_revocation(Revocation::until(None, issued_until.unwrap_or(now), now, longest)).await
    }

    async fn write_revocation(&self, revocation: Revocation) -> Result<Reply, Problem> {
        self.order(Control { revoke: vec![revocation], ..Control::default() }).await
    }

    /// Writes a record of the cluster. The answer has its position, if the broker names it.
    pub(super) async fn order(&self, control: Control) -> Result<Reply, Problem> {
        let at = self.write(&control).await?.map_or_else(|| json!({}), |at| json!({ "at": at }));
        Ok(json_reply(StatusCode::OK, at.to_string()))
    }

    /// Writes a record of the cluster. Returns its position, if the broker names it.
    pub(super) async fn write(&self, control: &Control) -> Result<Option<String>, Problem> {
        let at = publish(&self.shared.log, control).await.map_err(|error| Problem::from(Failure::from(error)))?;
        Ok(at.map(|at| at.to_string()))
    }

    /// Seconds since 1970.
    fn seconds(&self) -> u64 {
        (self.shared.clock)() / 1000
    }
}
