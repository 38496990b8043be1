//! Upgrades a request to a WebSocket: checks the handshake, asks the gate, answers 101, and makes the connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;

use super::handshake::{self, Host, Terms};
use super::query;
use super::refuse::Refusing;
use super::stream::{bad, limited};
use crate::app::handler;
use crate::app::since::Since;
use crate::app::socket::{Route, Socket};
use crate::app::{AppRoute, Endpoint, Parameters, UpgradeRequest};
use crate::auth;
use crate::codec::Extensions;
use crate::door::ingress::{Client, Place, TooMany};
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::field::lists;
use crate::gate::{Identity, Policy, Question, Verb, Visitor};
use crate::node::metrics::Refused;
use crate::protocol::{CHANNEL, Failure, Format, Session, placed, raw};
use crate::worker::Worker;
use crate::worker::arrival::{Arrival, Listening, Wanted};

/// The answer to a client that must have a token and has none.
const NO_TOKEN: &str = "connect with a token: `Authorization: Bearer …`, or the subprotocol `fanfare.bearer.<base64url of the token>` \
                        beside the path's own";

/// An agreed upgrade: becomes a connection once the 101 is written.
pub(super) struct Upgrade {
    endpoint: Endpoint,
    identity: Option<Arc<Identity>>,
    /// What it gets, if its path names a channel.
    listening: Option<Listening>,
    route: Route,
    /// Where the client of an app left off, if it asks for positions.
    since: Option<Box<Since>>,
    client: Client,
    /// Its share of its address's connection count, if the address came from a proxy's header.
    place: Option<Place>,
}

/// Decides about an upgrade request. Returns the upgrade and its 101, or the refusal as a response.
pub(super) async fn agree(
    refusing: &Refusing<'_>,
    host: Option<Host>,
    (endpoint, parameters): (Endpoint, Parameters),
) -> Result<(Upgrade, Response<Body>), Box<Response<Body>>> {
    let Refusing { site, worker, entrant, head } = *refusing;
    let host = site.ingress.host(entrant, &head.headers).or(host);
    let over_tls = site.ingress.over_tls(entrant, &head.headers);
    let terms = Terms { hosts: &site.hosts, origins: &site.origins, over_tls, protocols: endpoint.protocols() };
    let accepted = handshake::check(head, host.as_ref(), &terms);
    let accepted = accepted.map_err(|refusal| Box::new(refusing.refuse(refusal)))?;
    if worker.is_leaving() {
        return Err(later("this node is draining: reconnect to another"));
    }
    if !site.ingress.lets_upgrade(entrant) {
        worker.shared.metrics.refused(Refused::Rate);
        return Err(later("this node takes no more connections now: retry"));
    }
    let endpoint = match endpoint {
        Endpoint::Gateway(Format::NATIVE) if wants_traces(head.uri.query()) => Endpoint::Gateway(Format::TRACED),
        endpoint => endpoint,
    };
    let mut route = route(parameters, head.uri.query(), accepted.protocol)?;
    let asked = Asked {
        by_message: matches!(&endpoint, Endpoint::Gateway(format) if format.protocol().takes_tokens()),
        of_app: matches!(endpoint, Endpoint::Handler(_)),
        cookies: true,
        tickets: matches!(endpoint, Endpoint::Gateway(_)),
    };
    let identity = identify(refusing, asked).await?;
    // A client that proves who it is later is judged as an anonymous one until then.
    let known = identity.clone().unwrap_or_else(Identity::anonymous);
    let allowed = worker.permit(&known, Question::Connect { path: head.uri.path() }).await;
    allowed.map_err(|failure| not_allowed(refusing, failure))?;
    if let Endpoint::Handler(AppRoute { guard: Some(guard), .. }) = &endpoint {
        let peer = refusing.client().0;
        let request = UpgradeRequest { head, parameters: &route.parameters, peer, user: known.user() };
        route.attached = Some(guard(&request).await?);
    }
    let (channel, listening) = match (&endpoint, route.parameters.get(CHANNEL)) {
        // The program chose it, not the client: the gate has no say.
        (Endpoint::Handler(app), _) => (Some(&app.channel), None),
        (Endpoint::Gateway(_), None) => (None, None),
        (Endpoint::Gateway(_), Some(channel)) => (Some(channel), Some(listening(refusing, &known, channel).await?)),
    };
    let since = match &endpoint {
        Endpoint::Handler(app) if app.resumable => Since::read(&route.query),
        _ => Ok(None),
    };
    let since = since.map_err(|why| bad(&format!("`since` is {why}")))?.map(Box::new);
    if channel.is_some_and(|channel| !worker.knows_position(channel)) {
        return Err(later("the broker has not been reached yet: retry"));
    }
    let client = refusing.client();
    // The socket's own address was counted when the socket was accepted.
    let place = match client == entrant.client() {
        true => None,
        false => site.ingress.place(client).map_err(|TooMany| Box::new(refusing.too_many(client)))?,
    };
    if let Some(offered) = &accepted.unsupported {
        site.refusals.unsupported(client, head.uri.path(), offered, terms.protocols);
    }
    let response = switching(&accepted);
    Ok((Upgrade { endpoint, identity, listening, route, since, client, place }, response))
}

/// What a client gets on the channel that its path names.
async fn listening(
    refusing: &Refusing<'_>,
    identity: &Arc<Identity>,
    channel: &str,
) -> Result<Listening, Box<Response<Body>>> {
    let Refusing { worker, head, .. } = *refusing;
    let last = query::last(head.uri.query()).map_err(|why| bad(&why.to_string()))?;
    let allowed = worker.permit(identity, Question::Subscribe { channel }).await;
    let policy = allowed.map_err(|failure| not_allowed(refusing, failure))?;
    if last.is_some() {
        worker.take_visit(identity, refusing.client(), Verb::Subscribe, 1).map_err(limited)?;
    }
    let channels = vec![Wanted { channel: channel.to_owned(), since: None, policy, presence: None }];
    Ok(Listening { opening: Bytes::new(), channels, last })
}

/// Where a client's token may be.
pub(super) struct Asked {
    /// In its first message.
    pub(super) by_message: bool,
    /// Nowhere, if there are no keys: the request is an app's own.
    pub(super) of_app: bool,
    /// In its cookie.
    pub(super) cookies: bool,
    /// In place of a token, a ticket in the query.
    pub(super) tickets: bool,
}

/// Who the client is, by the token or the ticket that the request offers. `None` if the client has to prove it by its first message, which
/// only the native protocol can.
pub(super) async fn identify(
    refusing: &Refusing<'_>,
    asked: Asked,
) -> Result<Option<Arc<Identity>>, Box<Response<Body>>> {
    let Refusing { worker, head, .. } = *refusing;
    let auth = &worker.shared.auth;
    // Without keys, queries and an app's headers have meanings of their own.
    let query = head.uri.query().filter(|_| auth.has_keys());
    let offered = match asked.of_app && !auth.has_keys() {
        true => None,
        false => auth::offered(&head.headers, query, auth.cookie().filter(|_| asked.cookies))
            .map_err(|misplaced| refusing.unauthorised(&misplaced, StatusCode::BAD_REQUEST))?,
    };
    // Proxies in front of a node without keys send tokens of their own.
    let offered = offered.filter(|offered| auth.has_keys() || offered.place == auth::Place::Subprotocol);
    let ticket = auth::ticket(head.uri.query().filter(|_| asked.tickets));
    let ticket = ticket.map_err(|misplaced| refusing.unauthorised(&misplaced, StatusCode::BAD_REQUEST))?;
    let proven = match (ticket, offered) {
        // Browsers send the cookie on their own.
        (Some(_), Some(offered)) if offered.place != auth::Place::Cookie => {
            return Err(refusing.unauthorised(&auth::Misplaced::Ambiguous, StatusCode::BAD_REQUEST));
        }
        (Some(ticket), _) => worker.redeem(ticket).await,
        (None, Some(offered)) => worker.identify(&offered.token).await,
        (None, None) => return without_token(refusing, &asked).await,
    };
    match proven {
        Ok(identity) => Ok(Some(identity)),
        Err(refused) if refused.is_temporary() => Err(later(&refused.to_string())),
        Err(refused) => Err(refusing.unauthorised(&refused, StatusCode::UNAUTHORIZED)),
    }
}

/// Who a client is that offers neither token nor ticket: as the backend says, if there is one to ask.
async fn without_token(refusing: &Refusing<'_>, asked: &Asked) -> Result<Option<Arc<Identity>>, Box<Response<Body>>> {
    let Refusing { worker, head, .. } = *refusing;
    let auth = &worker.shared.auth;
    // A browser says of which site's page a request without origin is; other programs send no such header.
    let other_site = !head.headers.contains_key(header::ORIGIN)
        && head.headers.contains_key("sec-fetch-site")
        && !lists(&head.headers, "sec-fetch-site", "same-origin");
    let visitor = Visitor {
        path: head.uri.path(),
        query: head.uri.query(),
        address: refusing.client().0.ip(),
        headers: &head.headers,
        cookies: asked.cookies && !other_site,
    };
    match worker.introduce(&visitor).await {
        Some(Ok(identity)) => Ok(Some(identity)),
        // Its token may come in its first message.
        Some(Err(_)) if asked.by_message && auth.has_keys() => Ok(None),
        Some(Err(failure)) => Err(not_allowed(refusing, failure)),
        None if auth.lets_anonymous_in() => Ok(Some(Identity::anonymous())),
        None if asked.by_message => Ok(None),
        None => Err(refusing.unauthorised(&NO_TOKEN, StatusCode::UNAUTHORIZED)),
    }
}

/// Whether a client asks for the traces of messages.
fn wants_traces(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|parameter| parameter == "trace=true"))
}

/// The parts of the request that the app's handler can ask for.
fn route(
    parameters: Parameters,
    query: Option<&str>,
    protocol: Option<&'static str>,
) -> Result<Route, Box<Response<Body>>> {
    let mut decoded = std::collections::HashMap::new();
    for (name, value) in parameters {
        let Ok(value) = percent_encoding::percent_decode_str(&value).decode_utf8() else {
            return Err(Box::new(
                (StatusCode::BAD_REQUEST, format!("the path's {name} is not UTF-8\n")).into_response(),
            ));
        };
        decoded.insert(name, value.into_owned());
    }
    Ok(Route { parameters: decoded, query: query.unwrap_or_default().to_owned(), protocol, attached: None })
}

/// Makes the socket a connection with the route's protocol.
pub(super) fn connect(worker: &Rc<Worker>, stream: Stream, mut admission: Admission, upgrade: Upgrade, read: &[u8]) {
    let Upgrade { endpoint, identity, mut listening, route, since, client, place } = upgrade;
    if place.is_some() {
        admission.place = place;
    }
    // From here on, pings and the outbox limit how slow a client may be.
    stream.set_unread(None);
    let (format, session, inbox, channel): (_, Box<dyn Session>, _, _) = match (&endpoint, &since) {
        (Endpoint::Gateway(format), _) => (*format, format.protocol().open(), None, None),
        (Endpoint::Handler(app), None) => {
            (Format::RAW, Box::new(raw::ToHandler), Some(Box::default()), Some(app.channel.clone()))
        }
        (Endpoint::Handler(app), Some(since)) => {
            let wanted =
                Wanted { channel: app.channel.clone(), since: since.route, policy: Policy::default(), presence: None };
            let opening = placed::greeting(&worker.shared.name).frame();
            listening = Some(Listening { opening, channels: vec![wanted], last: None });
            (Format::PLACED, Box::new(raw::ToHandler), Some(Box::default()), None)
        }
    };
    let (extensions, listening) = (Extensions::none(), listening.map(Box::new));
    let arrival =
        Arrival { stream, client, admission, identity, extensions, format, session, channel, inbox, listening };
    let connection = worker.adopt(arrival, read);
    if let Endpoint::Handler(AppRoute { handler, channel, .. }) = endpoint {
        let since = RefCell::new(since.map(|since| *since).unwrap_or_default());
        let socket = Socket { worker: Rc::clone(worker), connection, channel, route, since };
        tokio::task::spawn_local(handler::run(handler, socket));
    }
}

/// The answer to a client that the gate has not allowed.
pub(super) fn not_allowed(refusing: &Refusing<'_>, failure: Failure) -> Box<Response<Body>> {
    match failure {
        Failure { retry: true, message, .. } => later(&message),
        Failure { code: "bad_channel", message, .. } => {
            Box::new((StatusCode::BAD_REQUEST, message + "\n").into_response())
        }
        Failure { code: "unauthorised", message, .. } => refusing.unauthorised(&message, StatusCode::UNAUTHORIZED),
        Failure { message, .. } => Box::new((StatusCode::FORBIDDEN, message + "\n").into_response()),
    }
}

/// The answer to a client that should retry soon.
pub(super) fn later(text: &str) -> Box<Response<Body>> {
    let text = format!("{text}\n");
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
