//! Answers one request: its host, its path, its key, then its operation.

use std::net::SocketAddr;

use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

use super::Api;
use super::keys::{Key, Unproven};
use super::problem::{Problem, Reply, json_reply};
use super::routes::{self, Open, Operation, Route};
use crate::gate::Right;
use crate::http::handshake::{self, Refusal};
use crate::http::site::PROBES;
use crate::node::metrics::Refused;

/// The description of the API.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

impl Api {
    pub(super) async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let answered = self.carry_out(peer, &head, body).await;
        answered.unwrap_or_else(|problem| {
            tracing::debug!(%peer, status = problem.status.as_u16(), code = problem.code(), "a request to the API failed");
            problem.reply()
        })
    }

    async fn carry_out(&self, peer: SocketAddr, head: &Parts, body: Incoming) -> Result<Reply, Problem> {
        let path = head.uri.path();
        self.check_host(head).inspect_err(|_| self.note(Refused::Host, peer, "its host is not a name of this node"))?;
        let (operation, name) = match routes::find(head.method.as_str(), path) {
            Route::To(operation, name) => (operation, name),
            Route::Method(allow) => return Err(Problem::method(allow)),
            Route::Nowhere => {
                let detail = format!("there is no such path; there are {}", routes::paths());
                return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
            }
        };
        let authorise = |right| self.authorise(peer, head, right);
        let (publish, read, admin) = (Some(Right::Publish), Some(Right::Read), Some(Right::Admin));
        match operation {
            Operation::Publish => self.publish(authorise(publish)?, head, body).await,
            Operation::Batch => self.publish_batch(authorise(publish)?, head, body).await,
            Operation::Message => self.publish_body(authorise(publish)?, head, &name, body).await,
            Operation::History => self.history(authorise(read)?, head, &name).await,
            Operation::Channels => self.channels(authorise(read)?, head),
            Operation::Channel => self.channel(authorise(read)?, head, &name),
            Operation::Members => self.members(authorise(read)?, head, &name),
            Operation::Revoke => {
                authorise(admin)?;
                self.revoke(head, name, body).await
            }
            Operation::RevokeAll => {
                authorise(admin)?;
                self.revoke_all(head, body).await
            }
            Operation::DisconnectUser => {
                authorise(admin)?;
                self.disconnect_user(head, name, body).await
            }
            Operation::DisconnectClient => {
                authorise(admin)?;
                self.disconnect_client(head, name, body).await
            }
            Operation::Unsubscribe => {
                authorise(admin)?;
                self.unsubscribe(head, name, body).await
            }
            Operation::Shed => {
                authorise(admin)?;
                self.shed(head, body).await
            }
            Operation::Ticket => self.ticket(authorise(admin)?, head, body).await,
            Operation::Me => Ok(self.me(authorise(None)?)),
            Operation::Nodes => {
                authorise(admin)?;
                Ok(self.nodes())
            }
            Operation::Open(open) => Ok(self.open(open)),
        }
    }

    fn open(&self, open: Open) -> Reply {
        let shared = &self.shared;
        match open {
            Open::Document => json_reply(StatusCode::OK, DOCUMENT),
            Open::Live => text(StatusCode::OK, "live\n".to_owned()),
            Open::Ready => match self.health.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            },
            Open::Metrics => {
                text(StatusCode::OK, shared.metrics.text(&shared.log, self.health.ready().is_ok(), &shared.cluster))
            }
        }
    }

    /// Fails if the request names a host that is none of the node's names: a page of that name may belong to an attacker.
    fn check_host(&self, head: &Parts) -> Result<(), Problem> {
        let refused = |refusal: Refusal| {
            let code = if refusal.status() == StatusCode::MISDIRECTED_REQUEST { "host" } else { "bad_request" };
            Problem::new(refusal.status(), code, refusal.to_string())
        };
        let host = handshake::host(head.version, &head.uri, &head.headers).map_err(refused)?;
        match host {
            Some(host) if !self.hosts.own(&host) && !PROBES.contains(&head.uri.path()) => {
                Err(refused(Refusal::stranger(&host)))
            }
            _ => Ok(()),
        }
    }

    /// The key that a request has, which must have this right.
    fn authorise(&self, peer: SocketAddr, head: &Parts, right: Option<Right>) -> Result<&Key, Problem> {
        let proven = self.keys.prove(&head.headers).map_err(|unproven| {
            let (why, guessed) = match unproven {
                Unproven::Absent(why) => (why, Ok(())),
                Unproven::Wrong(why) => (why, self.guesses.take(peer.ip(), crate::clock::now())),
            };
            self.note(Refused::Key, peer, why);
            match guessed {
                Ok(()) => Problem::unauthorised(why),
                Err(wait) => Problem::rate_limited("too many wrong keys came from this address".to_owned(), None, wait),
            }
        });
        let key = proven?;
        right.map_or(Ok(()), |right| key.backend.check(right))?;
        Ok(key)
    }

    /// Counts a refused request, and logs a line if one is due. No part of a key is in it.
    fn note(&self, refused: Refused, peer: SocketAddr, why: &str) {
        self.shared.metrics.refused(refused);
        if let Some(times) = self.lines.due(crate::clock::now()) {
            tracing::warn!(%peer, why, times, "requests to the API were refused");
        }
    }
}

fn text(status: StatusCode, text: String) -> Reply {
    let mut reply = json_reply(status, text);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}
