//! Serves one accepted socket until it is closed or becomes a WebSocket.
//!
//! Hyper reads the request's head, under limits of size and time. After the 101, and after the head of an event stream, only
//! the bare socket is kept: a head or a read buffer would cost more memory than the connection itself.

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
use super::publish;
use super::refuse::{self, Refusing};
use super::site::{PROBES, Site};
use super::stream::{self, Agreed};
use super::upgrade::{self, Upgrade};
use super::worded::Worded;
use crate::door::ingress::Entrant;
use crate::door::listener::Admission;
use crate::node::metrics::Refused;
use crate::worker::Worker;

/// The most bytes in a request's head; a larger head is answered with 431.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// The most header lines of a request; more are answered with 431.
pub(super) const HEAD_LINES: usize = 64;

/// How long a client may leave a response unread. Hyper has no such limit, so a client that never reads would stay for
/// ever. The kernel checks at growing intervals, so it may take three times as long.
const UNREAD: Duration = Duration::from_secs(10);

/// The client of a socket, as far as it is known before its first request.
#[derive(Clone, Copy)]
struct Requester {
    entrant: Entrant,
    /// Whether its address already has as many connections as it may have.
    too_many: bool,
}

/// What a request has made of its socket.
enum Next {
    Socket(Upgrade),
    Stream(Agreed),
}

/// Serves one accepted socket with HTTP, and hands it to the worker if a request upgrades it to a WebSocket.
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
    let requester = Requester { entrant, too_many: place.is_err() };
    admission.place = place.unwrap_or_default();
    let next = RefCell::new(None);
    let (requests, endless) = (Cell::new(0), Cell::new(false));
    let service = service_fn(|request| {
        requests.set(requests.get() + 1);
        let (answer, next, endless) = (answer(&site, &worker, requester, request, &next), &next, &endless);
        async move {
            let response = answer.await;
            endless.set(matches!(*next.borrow(), Some(Next::Stream(_))));
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(worker.shared.config.http.head_time)
        .max_headers(HEAD_LINES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Worded::new(stream, &requests, &endless)), service);
    match Box::pin(connection.without_shutdown()).await {
        Ok(parts) => {
            let (stream, read) = (parts.io.into_inner().into_inner(), parts.read_buf);
            match next.take() {
                Some(Next::Socket(upgrade)) => upgrade::connect(&worker, stream, admission, upgrade, &read),
                Some(Next::Stream(agreed)) => stream::connect(&worker, stream, admission, agreed, &read),
                None => {}
            }
        }
        Err(error) if error.is_parse_too_large() => {
            let (text, client) = (refuse::too_large_text(), entrant.client());
            site.refusals.note(metrics, Refused::Head, client, "", &text);
        }
        Err(error) => tracing::debug!(peer = %entrant.client(), %error, "HTTP connection failed"),
    }
}

/// The response to one request. If it is a 101 or begins an event stream, stores what was agreed in `next`.
async fn answer(
    site: &Site,
    worker: &Worker,
    requester: Requester,
    request: Request<Incoming>,
    next: &RefCell<Option<Next>>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let is_probe = PROBES.contains(&path);
    let refusing = Refusing { site, worker, entrant: requester.entrant, head: &parts };
    // A balancer that is not trusted has one address for all its clients. Its health checks must not fail because of
    // their number.
    if requester.too_many && !is_probe {
        return refusing.too_many(requester.entrant.client());
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
                next.replace(Some(Next::Socket(agreed)));
                response
            }
            Err(response) => *response,
        };
    }
    if let Some(refusal) = refusing.stranger(host.clone()).filter(|_| !is_probe) {
        return refusing.refuse(refusal);
    }
    if let Some(parameters) = site.app.stream(path).filter(|_| !wants_socket) {
        let (response, agreed) = stream::answer(&refusing, host, parameters).await;
        next.replace(agreed.map(Next::Stream));
        return response;
    }
    if !site.app.has_page(path) {
        if path == publish::PATH && site.app.is_gateway && worker.shared.config.http.publish {
            return publish::answer(&refusing, host, body).await;
        }
        if let Some(router) = site.app.router.clone().filter(|_| !wants_socket) {
            let page = { router }.call(Request::from_parts(parts, body));
            return page.await.unwrap_or_else(|never| match never {});
        }
        return refusing.not_found(wants_socket);
    }
    let page = site.app.pages.clone().call(Request::from_parts(parts, body));
    page.await.unwrap_or_else(|never| match never {})
}
