//! Answers refused requests, and reports them to the log and the metrics.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;

use super::handshake::{self, Host, Refusal, Sharing, Terms};
use super::server::{HEAD_BYTES, HEAD_LINES};
use super::site::Site;
use crate::door::ingress::{Client, Entrant};
use crate::errors_page::see;
use crate::field::Shown;
use crate::node::metrics::Refused;
use crate::worker::Worker;

/// `Retry-After`, in seconds, for a client whose address has too many connections.
const TOO_MANY_RETRY: &str = "5";

/// A request that may be refused.
#[derive(Clone, Copy)]
pub(super) struct Refusing<'a> {
    pub(super) site: &'a Site,
    pub(super) worker: &'a Worker,
    pub(super) entrant: Entrant,
    pub(super) head: &'a Parts,
}

impl Refusing<'_> {
    /// The client that sent the request.
    pub(super) fn client(&self) -> Client {
        self.site.ingress.client(self.entrant, &self.head.headers)
    }

    /// The refusal of a request for a host that is not one of the node's names; `None` if the host is known.
    pub(super) fn stranger(&self, host: Option<Host>) -> Option<Refusal> {
        let (site, headers) = (self.site, &self.head.headers);
        let host = site.ingress.host(self.entrant, headers).or(host)?;
        let known = site.hosts.own(&host) || site.ingress.over_tls(self.entrant, headers);
        (!known).then(|| Refusal::stranger(&host))
    }

    /// Which pages may read the answer to this request; a refusal if its page may not ask at all.
    pub(super) fn sharing(&self, host: Option<Host>) -> Result<Sharing, Refusal> {
        let Self { site, entrant, head, .. } = *self;
        let host = site.ingress.host(entrant, &head.headers).or(host);
        let over_tls = site.ingress.over_tls(entrant, &head.headers);
        let terms = Terms { hosts: &site.hosts, origins: &site.origins, over_tls, protocols: &[] };
        handshake::sharing(head, host.as_ref(), &terms)
    }

    pub(super) fn refuse(&self, refusal: Refusal) -> Response<Body> {
        let why = match refusal {
            Refusal::Origin(_) | Refusal::NoOrigin(_) => Refused::Origin,
            Refusal::Stranger(_) => Refused::Host,
            _ => Refused::Handshake,
        };
        self.note(why, self.client(), &refusal);
        refusal.into_response().map(Body::from)
    }

    /// The answer to a client whose address has as many connections as it may have.
    pub(super) fn too_many(&self, client: Client) -> Response<Body> {
        let (address, most) = (client.0.ip(), self.worker.shared.config.limits.connections_per_address);
        let text = format!(
            "{address} has {most} connections, which is limits.connections_per_address: close some, or retry later; if it \
             is a balancer, the node needs http.trusted_proxies = [\"{address}\"]"
        );
        self.note(Refused::Address, client, &text);
        let headers = [(header::RETRY_AFTER, TOO_MANY_RETRY), (header::CONNECTION, "close")];
        (StatusCode::TOO_MANY_REQUESTS, headers, format!("{text}{}\n", see(429))).into_response()
    }

    /// The answer to a client whose token is missing, misplaced or refused.
    pub(super) fn unauthorised(&self, why: &dyn std::fmt::Display, status: StatusCode) -> Box<Response<Body>> {
        self.note(Refused::Token, self.client(), why);
        let mut response = (status, format!("{why}{}\n", see(status.as_str()))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Box::new(response)
    }

    /// The answer for a path without a route. Only requests for WebSockets are logged: browsers also ask for icons and
    /// the like.
    pub(super) fn not_found(&self, wants_socket: bool) -> Response<Body> {
        let (app, path) = (&self.site.app, Shown::of(self.head.uri.path().as_bytes()));
        let text = match wants_socket {
            true => format!("no WebSocket at {path}: there are {}; `fanfare probe URL` tests one", app.paths(true)),
            false => format!("no page at {path}: there are {}", app.paths(false)),
        };
        if wants_socket {
            self.note(Refused::Path, self.client(), &text);
        }
        (StatusCode::NOT_FOUND, format!("{text}{}\n", see(404))).into_response()
    }

    fn note(&self, why: Refused, client: Client, text: &dyn std::fmt::Display) {
        self.site.refusals.note(&self.worker.shared.metrics, why, client, self.head.uri.path(), text);
    }
}

/// The text for a head that is too large.
pub(super) fn too_large_text() -> String {
    format!(
        "the request's head is larger than {} KiB or has more than {HEAD_LINES} lines: cookies are the usual cause; serve \
         WebSockets under a host name without cookies",
        HEAD_BYTES >> 10
    )
}
