//! HTTP on one socket: pages and probes, and the upgrade to a WebSocket.
//!
//! Hyper reads the head, under limits of size and time. After the 101 the bare socket is all that is kept:
//! a head or a read buffer would cost more than the connection itself.

mod refuse;
mod worded;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::app::{Endpoint, SocketHandler};
use crate::close::CloseReason;
use crate::handshake::{self, Host, Terms};
use crate::ingress::{Client, Entrant, Place, TooMany};
use crate::listener::Admission;
use crate::metrics::Refused;
use crate::node::PROBES;
use crate::protocol::{Protocol, native};
use crate::socket::{Route, Socket, SocketError};
use crate::stream::Stream;
use crate::worker::Worker;
use refuse::Refusing;
use worded::Worded;

/// Bytes of a request's head: more is answered with 431.
const HEAD_BYTES: usize = 16 << 10;
/// Header lines of a request: more are answered with 431.
const HEAD_LINES: usize = 64;

/// How long a client may leave an answer unread. Hyper has no such limit: who asked and never read would stay for ever.
/// The kernel looks at growing intervals, so it may take three times as long.
const UNREAD: Duration = Duration::from_secs(10);

/// A connection to be, once the 101 is on the wire.
struct Upgrade {
    endpoint: Endpoint,
    route: Route,
    client: Client,
    /// Its place among those of its address, if a proxy named that only now.
    place: Option<Place>,
}

/// Who asks.
#[derive(Clone, Copy)]
struct Asker {
    entrant: Entrant,
    /// Its address has all the connections it may have.
    too_many: bool,
}

/// Serves one accepted socket, as HTTP and perhaps as a WebSocket after that.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, mut admission: Admission) {
    let shared = &worker.shared;
    // Boxed: what this needs for a moment must not be part of the task, whose room is between those of connections that stay.
    let (stream, entrant) = match Box::pin(shared.ingress.enter(stream, peer)).await {
        Ok(entered) => entered,
        Err(turned) => {
            shared.metrics.refused(Refused::from(&turned));
            return shared.ingress.tell(peer, &turned);
        }
    };
    stream.set_unread(Some(UNREAD));
    let place = shared.ingress.place(entrant.client());
    let asker = Asker { entrant, too_many: place.is_err() };
    admission.place = place.unwrap_or_default();
    let upgrade = RefCell::new(None);
    let asked = Cell::new(0);
    let service = service_fn(|request| {
        asked.set(asked.get() + 1);
        let answer = answer(&worker, asker, request, &upgrade);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.http.head_time)
        .max_headers(HEAD_LINES)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Worded::new(stream, &asked)), service);
    match Box::pin(connection.without_shutdown()).await {
        Ok(parts) => {
            let (stream, read) = (parts.io.into_inner().into_inner(), parts.read_buf);
            if let Some(upgrade) = upgrade.take() {
                connect(&worker, stream, admission, upgrade, &read);
            }
        }
        Err(error) if error.is_parse_too_large() => refuse::too_large(&worker, entrant.client()),
        Err(error) => tracing::debug!(peer = %entrant.client(), %error, "HTTP connection failed"),
    }
}

/// The response to one request; notes in `upgrade` that a WebSocket follows.
fn answer(
    worker: &Rc<Worker>,
    asker: Asker,
    request: Request<Incoming>,
    upgrade: &RefCell<Option<Upgrade>>,
) -> impl Future<Output = Response<Body>> + use<> {
    let shared = &worker.shared;
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let is_probe = PROBES.contains(&path);
    let refusing = Refusing { worker, entrant: asker.entrant, head: &parts };
    let wants_socket = handshake::is_wanted(parts.version, &parts.headers);
    let socket = if wants_socket || !shared.app.has_page(path) { shared.app.socket(path) } else { None };
    let (response, page) = match (handshake::host(parts.version, &parts.uri, &parts.headers), socket) {
        // A balancer that is not trusted has one address for all its clients: its checks must not fail for their number.
        _ if asker.too_many && !is_probe => (Some(refusing.too_many(asker.entrant.client())), None),
        (Err(refusal), _) => (Some(refusing.refuse(refusal)), None),
        (Ok(host), Some(socket)) => {
            let response = match agree(&refusing, host, socket) {
                Err(response) => *response,
                Ok((agreed, response)) => {
                    upgrade.replace(Some(agreed));
                    response
                }
            };
            (Some(response), None)
        }
        (Ok(host), None) => match refusing.stranger(host).filter(|_| !is_probe) {
            Some(refusal) => (Some(refusing.refuse(refusal)), None),
            None if !shared.app.has_page(path) => (Some(refusing.not_found(wants_socket)), None),
            None => (None, Some(shared.app.pages.clone().call(Request::from_parts(parts, body)))),
        },
    };
    async move {
        match (response, page) {
            (Some(response), _) => response,
            (None, Some(page)) => page.await.unwrap_or_else(|never| match never {}),
            (None, None) => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

/// The 101 and what follows it, or the refusal.
fn agree(
    refusing: &Refusing<'_>,
    host: Option<Host>,
    (endpoint, parameters): (Endpoint, Vec<(String, String)>),
) -> Result<(Upgrade, Response<Body>), Box<Response<Body>>> {
    let Refusing { worker, entrant, head } = *refusing;
    let shared = &worker.shared;
    let host = shared.ingress.host(entrant, &head.headers).or(host);
    let over_tls = shared.ingress.over_tls(entrant, &head.headers);
    let terms = Terms { hosts: &shared.hosts, origins: &shared.origins, over_tls, protocols: endpoint.protocols() };
    let accepted = handshake::check(head, host.as_ref(), &terms);
    let accepted = accepted.map_err(|refusal| Box::new(refusing.refuse(refusal)))?;
    if worker.is_leaving() {
        return Err(later("this node is going away: reconnect, to another\n"));
    }
    if !shared.ingress.lets_upgrade(entrant) {
        shared.metrics.refused(Refused::Rate);
        return Err(later("this node takes no more connections now: retry\n"));
    }
    let mut route = route(worker, &endpoint, parameters, head.uri.query())?;
    route.protocol = accepted.protocol;
    let client = refusing.client();
    // Whoever the socket itself named has its place.
    let place = match client == entrant.client() {
        true => None,
        false => shared.ingress.place(client).map_err(|TooMany| Box::new(refusing.too_many(client)))?,
    };
    if let Some(offered) = &accepted.unspoken {
        shared.refusals.unspoken(client, head.uri.path(), offered, terms.protocols);
    }
    let response = switching(&accepted);
    Ok((Upgrade { endpoint, route, client, place }, response))
}

/// Where the socket leads, if its channel may be used and can be read.
fn route(
    worker: &Worker,
    endpoint: &Endpoint,
    parameters: Vec<(String, String)>,
    query: Option<&str>,
) -> Result<Route, Box<Response<Body>>> {
    let refuse = |status: StatusCode, text: String| Box::new((status, text + "\n").into_response());
    let mut decoded = Vec::new();
    for (name, value) in parameters {
        let Ok(value) = percent_encoding::percent_decode_str(&value).decode_utf8() else {
            return Err(refuse(StatusCode::BAD_REQUEST, format!("the path's {name} is not UTF-8")));
        };
        decoded.push((name, value.into_owned()));
    }
    let channel = match endpoint {
        Endpoint::Native => None,
        Endpoint::Raw => decoded.first().map(|(_, channel)| channel.clone()),
        Endpoint::Handler { channel, .. } => Some(channel.clone()),
    };
    if let Some(channel) = &channel {
        if matches!(endpoint, Endpoint::Raw) {
            let most = worker.shared.config.limits.channel_name.bytes();
            native::check_channel(channel, most).map_err(|failure| refuse(StatusCode::BAD_REQUEST, failure.message))?;
        }
        if !worker.knows_position(channel) {
            return Err(later("the broker has not been reached yet: retry\n"));
        }
    }
    let (channel, parameters) = (channel.unwrap_or_default(), decoded.into_iter().collect());
    Ok(Route { channel, parameters, query: query.unwrap_or_default().to_owned(), protocol: None })
}

/// The socket is ours: speak its protocol.
fn connect(worker: &Rc<Worker>, stream: Stream, mut admission: Admission, upgrade: Upgrade, read: &[u8]) {
    let Upgrade { endpoint, route, client, place } = upgrade;
    if place.is_some() {
        admission.place = place;
    }
    // From here on, pings and the outbox say how slow is too slow.
    stream.set_unread(None);
    let socket = (stream, client);
    match endpoint {
        Endpoint::Native => {
            worker.adopt(socket, admission, (Protocol::Native, None), read);
        }
        Endpoint::Raw => {
            worker.adopt(socket, admission, (Protocol::Raw, Some(&route.channel)), read);
        }
        Endpoint::Handler { handler, .. } => {
            let connection = worker.adopt(socket, admission, (Protocol::App, Some(&route.channel)), read);
            let socket = Socket { worker: Rc::clone(worker), connection, route };
            tokio::task::spawn_local(handle(handler, socket));
        }
    }
}

/// Runs a handler to its end, whatever that is.
async fn handle(handler: SocketHandler, socket: Socket) {
    let (worker, connection) = (Rc::clone(&socket.worker), Rc::clone(&socket.connection));
    let reason = match AssertUnwindSafe(async { handler(socket).await }).catch_unwind().await {
        Ok(Ok(())) => CloseReason::Normal,
        Ok(Err(error)) => {
            tracing::debug!(peer = %connection.peer, %error, "a socket's handler failed");
            match error.downcast_ref::<SocketError>() {
                Some(SocketError::Closed) => CloseReason::Normal,
                Some(SocketError::Full | SocketError::Publish(_)) => CloseReason::Overload,
                None => CloseReason::Internal,
            }
        }
        Err(_panic) => {
            tracing::error!(peer = %connection.peer, "a socket's handler panicked");
            CloseReason::Internal
        }
    };
    connection.handler_done(&worker, reason);
}

/// The answer to a client that may find things better soon.
fn later(text: &'static str) -> Box<Response<Body>> {
    Box::new((StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], text).into_response())
}

fn switching(accepted: &handshake::Accepted) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted.accept.clone());
    if let Some(protocol) = accepted.protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}
