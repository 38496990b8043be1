//! `POST /publish`: a client without a WebSocket publishes one message, with the rights of its token.
//!
//! Only with `http.publish`. The answer says which of the three outcomes it is: stored, not stored, unknown.

use axum::body::Body;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::timeout;

use super::handshake::{Host, Sharing};
use super::refuse::Refusing;
use super::upgrade::{Asked, identify, later};
use crate::errors_page::see;
use crate::gate::{Identity, Question};
use crate::protocol::{Failure, native};
use crate::worker::posted::Posted;

/// The path.
pub(super) const PATH: &str = "/publish";

/// The header with a key, by which a repeated request is delivered once.
const KEY: &str = "idempotency-key";

/// The response to a request for [`PATH`].
pub(super) async fn answer(refusing: &Refusing<'_>, host: Option<Host>, body: Incoming) -> Response<Body> {
    let sharing = match refusing.sharing(host) {
        Ok(sharing) => sharing,
        Err(refusal) => return refusing.refuse(refusal),
    };
    if refusing.head.method == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        sharing.allow_method("POST", response.headers_mut());
        return response;
    }
    let mut response = publish(refusing, &sharing, body).await.unwrap_or_else(|response| *response);
    sharing.allow(response.headers_mut());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn publish(
    refusing: &Refusing<'_>,
    sharing: &Sharing,
    body: Incoming,
) -> Result<Response<Body>, Box<Response<Body>>> {
    let Refusing { worker, head, .. } = *refusing;
    if head.method != Method::POST {
        let headers = [(header::ALLOW, "POST, OPTIONS")];
        let text = format!("a message is published with POST{}\n", see(405));
        return Err(Box::new((StatusCode::METHOD_NOT_ALLOWED, headers, text).into_response()));
    }
    if worker.is_leaving() {
        return Err(later("this node is draining: send it to another"));
    }
    let asked = Asked { by_message: false, of_app: false, cookies: sharing.credentials, tickets: false };
    let identity = identify(refusing, asked).await?.unwrap_or_else(Identity::anonymous);
    let allowed = worker.permit(&identity, Question::Connect { path: PATH }).await;
    allowed.map_err(|failure| problem(&failure))?;
    let posted = read(refusing, body).await.map_err(|failure| problem(&failure))?;
    let at = worker.publish_posted(&identity, refusing.client(), posted).await;
    let at = at.map_err(|failure| problem(&failure))?;
    let json = at.map_or_else(|| json!({}), |at| json!({ "at": at.to_string() }));
    Ok(([(header::CONTENT_TYPE, "application/json")], json.to_string()).into_response())
}

/// Reads the message: the content of the native command `publish`, whose key may also be in the head.
async fn read(refusing: &Refusing<'_>, body: Incoming) -> Result<Posted, Failure> {
    let limits = &refusing.worker.shared.config.limits;
    let most = limits.message.bytes();
    let bytes = timeout(limits.message_time, axum::body::to_bytes(Body::new(body), most)).await;
    let bytes = bytes.map_err(|_| Failure::new("bad_request", "the body took longer than `limits.message_time`"))?;
    let bytes =
        bytes.map_err(|_| Failure::new("too_large", format!("a body has at most {most} bytes, `limits.message`")))?;
    let (channel, payload, key) = native::posted(&bytes)?;
    let header = match refusing.head.headers.get(KEY).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(header)) => Some(header.to_owned()),
        Some(Err(_)) => return Err(Failure::new("bad_request", "Idempotency-Key must be ASCII")),
    };
    let key = match (key, header) {
        (Some(key), Some(header)) if key != header => {
            return Err(Failure::new("bad_request", "`key` and Idempotency-Key differ: send one"));
        }
        (key, header) => key.or(header),
    };
    native::check_key(key.as_deref())?;
    Ok(Posted { channel, payload, key })
}

/// A failure as a problem document (RFC 9457).
fn problem(failure: &Failure) -> Box<Response<Body>> {
    let status = StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = json!({
        "title": status.canonical_reason(), "status": status.as_u16(), "detail": format!("{}{}", failure.message, see(failure.code)),
        "code": failure.code, "retry": failure.retry,
    });
    let mut response = (status, json.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if failure.retry && status != StatusCode::GATEWAY_TIMEOUT {
        let seconds = failure.retry_after.unwrap_or(1000).div_ceil(1000).max(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Box::new(response)
}
