//! `POST /v1/users/{user}/disconnect`, `/v1/users/{user}/unsubscribe` and `/v1/clients/{client}/disconnect`: what all nodes do
//! with the connections of a user, or with one connection.

use axum::http::request::Parts;
use hyper::body::Incoming;
use serde::Deserialize;

use super::Api;
use super::body::Kind;
use super::messages::{parse, parse_or_default, present};
use super::problem::{Problem, Reply};
use crate::cluster::{Control, Disconnect, Unsubscribe};
use crate::gate::Pattern;

/// The most bytes of the body.
const BODY: usize = 16 << 10;

/// How connections end.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct How {
    reconnect: bool,
}

/// Which subscriptions end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default, deserialize_with = "present")]
    channel: Option<String>,
    #[serde(default, deserialize_with = "present")]
    r#match: Option<Pattern>,
}

impl Api {
    pub(super) async fn disconnect_user(&self, head: &Parts, user: String, body: Incoming) -> Result<Reply, Problem> {
        let How { reconnect } = self.how(head, body).await?;
        self.disconnect(Disconnect { user: Some(user), client: None, reconnect }).await
    }

    pub(super) async fn disconnect_client(&self, head: &Parts, id: String, body: Incoming) -> Result<Reply, Problem> {
        let How { reconnect } = self.how(head, body).await?;
        self.disconnect(Disconnect { user: None, client: Some(id), reconnect }).await
    }

    pub(super) async fn unsubscribe(&self, head: &Parts, user: String, body: Incoming) -> Result<Reply, Problem> {
        Kind::must_be_json(&head.headers)?;
        let (body, _room) = self.read(body, BODY).await?;
        let Which { channel, r#match: pattern } = parse(&body)?;
        if channel.is_some() == pattern.is_some() {
            return Err(Problem::bad_request(
                "send either `channel`, a name, or `match`, a pattern such as \"chat:*\"",
            ));
        }
        let unsubscribe = vec![Unsubscribe { user, channel, pattern }];
        self.order(Control { unsubscribe, ..Control::default() }).await
    }

    async fn how(&self, head: &Parts, body: Incoming) -> Result<How, Problem> {
        let (body, _room) = self.read(body, BODY).await?;
        if !body.is_empty() {
            Kind::must_be_json(&head.headers)?;
        }
        parse_or_default(&body)
    }

    async fn disconnect(&self, order: Disconnect) -> Result<Reply, Problem> {
        self.order(Control { disconnect: vec![order], ..Control::default() }).await
    }
}
