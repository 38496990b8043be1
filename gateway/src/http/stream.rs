//! Begins an event stream: checks the request, asks the gate about each channel, answers 200, and makes the connection.
//!
//! The body ends with the connection: it has no length and no chunks, which HTTP/1.0 and 1.1 allow (RFC 9112 §6.3).

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use axum::response::IntoResponse;

use super::handshake::{self, Host, Refusal, Sharing};
use super::query::{self, Query};
use super::refuse::Refusing;
use super::upgrade::{Asked, identify, later, not_allowed};
use crate::app::Parameters;
use crate::auth;
use crate::codec::Extensions;
use crate::door::ingress::{Client, Place, TooMany};
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::errors_page::see;
use crate::field::lists;
use crate::gate::{Identity, Question, Verb};
use crate::node::metrics::Refused;
use crate::protocol::places::Places;
use crate::protocol::sse::{self, Listener};
use crate::protocol::{Failure, Format, Notice, Output};
use crate::worker::Worker;
use crate::worker::arrival::{Arrival, Listening, Wanted};

/// How long a client waits before it reconnects, in milliseconds: the least, and the random part.
const RETRY: (u64, u64) = (1000, 2000);

/// An event stream that was agreed: becomes a connection once its head is written.
pub(super) struct Agreed {
    identity: Arc<Identity>,
    format: Format,
    session: Listener,
    listening: Listening,
    client: Client,
    /// Its share of its address's connection count, if the address came from a proxy's header.
    place: Option<Place>,
}

/// The response to a request on a path of event streams, and what was agreed if the stream begins.
pub(super) async fn answer(
    refusing: &Refusing<'_>,
    host: Option<Host>,
    parameters: Parameters,
) -> (Response<Body>, Option<Agreed>) {
    let sharing = match refusing.sharing(host) {
        Ok(sharing) => sharing,
        Err(refusal) => return (refusing.refuse(refusal), None),
    };
    if refusing.head.method == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        sharing.allow_method("GET", response.headers_mut());
        return (response, None);
    }
    let (mut response, agreed) = match agree(refusing, &sharing, parameters).await {
        Ok(agreed) => (begun(agreed.format), Some(agreed)),
        Err(response) => (for_event_source(refusing, *response), None),
    };
    sharing.allow(response.headers_mut());
    (response, agreed)
}

async fn agree(
    refusing: &Refusing<'_>,
    sharing: &Sharing,
    parameters: Parameters,
) -> Result<Agreed, Box<Response<Body>>> {
    let Refusing { site, worker, entrant, head } = *refusing;
    let refuse = |refusal| Box::new(refusing.refuse(refusal));
    if head.method != Method::GET {
        return Err(refuse(Refusal::StreamMethod));
    }
    if handshake::announces_body(&head.headers) {
        return Err(refuse(Refusal::StreamBody));
    }
    if worker.is_leaving() {
        return Err(later("this node is draining: reconnect to another"));
    }
    if !site.ingress.lets_upgrade(entrant) {
        worker.shared.metrics.refused(Refused::Rate);
        return Err(later("this node takes no more connections now: retry"));
    }
    let most = worker.shared.config.limits.channels_per_connection;
    let query = query::read(&parameters, head.uri.query(), &head.headers, most).map_err(|why| bad(&why.to_string()))?;
    let mut places = Places::new(query.channels.iter().map(String::as_str));
    if let Some(since) = &query.since {
        places.read(since, |name| worker.shared.log.partition_of(name)).map_err(|why| bad(&why.to_string()))?;
    }
    let asked = Asked { by_message: false, of_app: false, cookies: sharing.credentials, tickets: true };
    let identity = identify(refusing, asked).await?.unwrap_or_else(Identity::anonymous);
    let allowed = worker.permit(&identity, Question::Connect { path: head.uri.path() }).await;
    allowed.map_err(|failure| not_allowed(refusing, failure))?;
    let client = refusing.client();
    worker.take_visit(&identity, client, Verb::Subscribe, query.channels.len()).map_err(limited)?;
    let mut channels = Vec::with_capacity(query.channels.len());
    for (channel, since) in places.iter() {
        let verdict = worker.permit(&identity, Question::Subscribe { channel }).await;
        let policy = verdict.map_err(|failure| not_allowed(refusing, named(channel, failure)))?;
        if !worker.knows_position(channel) {
            return Err(later("the broker has not been reached yet: retry"));
        }
        let presence = match query.presence {
            true => Some(worker.permit(&identity, Question::Presence { channel }).await),
            false => None,
        };
        let presence = presence.map(|verdict| verdict.map(drop).map_err(|failure| failure.code));
        channels.push(Wanted { channel: channel.to_owned(), since, policy, presence });
    }
    // The socket's own address was counted when the socket was accepted.
    let place = match client == entrant.client() {
        true => None,
        false => site.ingress.place(client).map_err(|TooMany| Box::new(refusing.too_many(client)))?,
    };
    let format = format(refusing, &query);
    // Its page has to come back with another ticket, so it must know the position.
    let by_ticket = matches!(auth::ticket(head.uri.query()), Ok(Some(_)));
    let format = if by_ticket && format != Format::LINES { format.with_moves() } else { format };
    let session = if format.has_own_ids() { Listener::with(places) } else { Listener::default() };
    let listening = Listening { opening: opening(format), channels, last: query.last };
    Ok(Agreed { identity, format, session, listening, client, place })
}

/// The answer to a client that subscribes too often.
pub(super) fn limited(failure: Failure) -> Box<Response<Body>> {
    let seconds = failure.retry_after.unwrap_or(1000).div_ceil(1000).max(1);
    let headers = [(header::RETRY_AFTER, seconds.to_string())];
    Box::new((StatusCode::TOO_MANY_REQUESTS, headers, format!("{}{}\n", failure.message, see(429))).into_response())
}

/// A refusal of one of several channels says which.
fn named(channel: &str, failure: Failure) -> Failure {
    match failure.code {
        "forbidden" => Failure { message: format!("{channel}: {}", failure.message), ..failure },
        _ => failure,
    }
}

fn format(refusing: &Refusing<'_>, query: &Query) -> Format {
    match (lists(&refusing.head.headers, "accept", LINES), query.as_messages, query.channels.len()) {
        (true, ..) => Format::LINES,
        (false, true, _) => Format::JSON_EVENTS,
        (false, false, 1) => Format::EVENTS,
        (false, false, _) => Format::OWN_EVENTS,
    }
}

/// The media types of the two forms.
const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// What comes first: after which time a browser reconnects by itself, with a random part so that not all do so at once.
fn opening(format: Format) -> bytes::Bytes {
    match format {
        Format::LINES => bytes::Bytes::new(),
        _ => format!("retry: {}\n\n", retry()).into(),
    }
}

fn retry() -> u64 {
    RETRY.0 + fastrand::u64(..RETRY.1)
}

/// The head of a stream. Hyper adds the length of the empty body, which [`Worded`](super::worded::Worded) removes.
fn begun(format: Format) -> Response<Body> {
    let kind = if format == Format::LINES { LINES } else { EVENTS };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    do_not_keep(headers);
    response
}

/// Neither caches nor a buffering proxy may hold a stream back.
fn do_not_keep(headers: &mut axum::http::HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}

/// The same refusal for a browser's `EventSource`. It never reconnects after another status than 200, so it gets one event
/// that asks for it if a retry can help.
fn for_event_source(refusing: &Refusing<'_>, refused: Response<Body>) -> Response<Body> {
    if refused.status() != StatusCode::SERVICE_UNAVAILABLE || !lists(&refusing.head.headers, "accept", EVENTS) {
        return refused;
    }
    let Output::Message(event) = sse::notice(Notice::Reconnect { after_ms: retry() }) else { return refused };
    let mut response = Response::new(Body::from(event.frame()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    do_not_keep(headers);
    response
}

pub(super) fn bad(why: &str) -> Box<Response<Body>> {
    Box::new((StatusCode::BAD_REQUEST, format!("{why}{}\n", see(400))).into_response())
}

/// Makes the socket a connection whose client only listens.
pub(super) fn connect(
    worker: &std::rc::Rc<Worker>,
    stream: Stream,
    mut admission: Admission,
    agreed: Agreed,
    read: &[u8],
) {
    let Agreed { identity, format, session, listening, client, place } = agreed;
    if place.is_some() {
        admission.place = place;
    }
    // Its client answers no pings, so only the kernel can notice that it is gone.
    stream.set_unread(Some(worker.patience()));
    let arrival = Arrival {
        stream,
        client,
        admission,
        identity: Some(identity),
        extensions: Extensions::none(),
        format,
        session: Box::new(session),
        channel: None,
        inbox: None,
        listening: Some(Box::new(listening)),
    };
    worker.adopt(arrival, read);
}
