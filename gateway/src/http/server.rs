//! Serves one accepted socket until it is closed or becomes a WebSocket.
//!
//! Hyper reads the head, under limits of size and time. After the 101 only the bare socket is kept: a head or a read
//! buffer would cost more than the connection itself.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;

use super::handshake;
use super::refuse::{self, Refusing};
use super::site::{PROBES, Site};
use super::upgrade::{self, Upgrade};
use super::worded::Worded;
use crate::door::ingress::Entrant;
use crate::door::listener::Admission;
use crate::node::metrics::Refused;
use crate::worker::Worker;

/// Bytes of a request's head: more are answered with 431.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// Header lines of a request: more are answered with 431.
pub(super) const HEAD_LINES: usize = 64;

/// How long a client may leave an answer unread. Hyper has no such limit, so a client that never reads would stay for ever.
/// The kernel looks at growing intervals, so it may take three times as long.
const UNREAD: Duration = Duration::from_secs(10);

/// The client of a socket, before it has named itself in a request.
#[derive(Clone, Copy)]
struct Asker {
    entrant: Entrant,
    /// Its address has all the connections it may have.
    too_many: bool,
}

/// Serves one accepted socket, as HTTP and perhaps as a WebSocket after that.
pub(crate) async fn serve(
    site: Arc<Site>,
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    mut admission: Admission,
) {
    let metrics = &worker.shared.metrics;
    // Boxed, so that this short-lived state neither enlarges the task nor fragments the heap.
    let (stream, entrant) = match Box::pin(site.ingress.enter(stream, peer)).await {
        Ok(entered) => entered,
        Err(turned) => {
            metrics.refused(Refused::from(&turned));
            return site.ingress.tell(peer, &turned);
        }
    };
    stream.set_unread(Some(UNREAD));
    let place = site.ingress.place(entrant.client());
    let asker = Asker { entrant, too_many: place.is_err() };
    admission.place = place.unwrap_or_default();
    let upgrade = RefCell::new(None);
    let asked = Cell::new(0);
    let service = service_fn(|request| {
        asked.set(asked.get() + 1);
        let answer = answer(&site, &worker, asker, request, &upgrade);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(worker.shared.config.http.head_time)
        .max_headers(HEAD_LINES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Worded::new(stream, &asked)), service);
    match Box::pin(connection.without_shutdown()).await {
        Ok(parts) => {
            let (stream, read) = (parts.io.into_inner().into_inner(), parts.read_buf);
            if let Some(upgrade) = upgrade.take() {
                upgrade::connect(&worker, stream, admission, upgrade, &read);
            }
        }
        Err(error) if error.is_parse_too_large() => {
            let (text, client) = (refuse::too_large_text(), entrant.client());
            site.refusals.note(metrics, Refused::Head, client, "", &text);
        }
        Err(error) => tracing::debug!(peer = %entrant.client(), %error, "HTTP connection failed"),
    }
}

/// The response to one request; notes in `upgrade` that a WebSocket follows.
async fn answer(
    site: &Site,
    worker: &Worker,
    asker: Asker,
    request: Request<Incoming>,
    upgrade: &RefCell<Option<Upgrade>>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let is_probe = PROBES.contains(&path);
    let refusing = Refusing { site, worker, entrant: asker.entrant, head: &parts };
    // A balancer that is not trusted has one address for all its clients: its checks must not fail for their number.
    if asker.too_many && !is_probe {
        return refusing.too_many(asker.entrant.client());
    }
    let host = match handshake::host(parts.version, &parts.uri, &parts.headers) {
        Ok(host) => host,
        Err(refusal) => return refusing.refuse(refusal),
    };
    let wants_socket = handshake::is_wanted(parts.version, &parts.headers);
    if (wants_socket || !site.app.has_page(path))
        && let Some(socket) = site.app.socket(path)
    {
        return match upgrade::agree(&refusing, host, socket).await {
            Ok((agreed, response)) => {
                upgrade.replace(Some(agreed));
                response
            }
            Err(response) => *response,
        };
    }
    if let Some(refusal) = refusing.stranger(host).filter(|_| !is_probe) {
        return refusing.refuse(refusal);
    }
    if !site.app.has_page(path) {
        return refusing.not_found(wants_socket);
    }
    let page = site.app.pages.clone().call(Request::from_parts(parts, body));
    page.await.unwrap_or_else(|never| match never {})
}
