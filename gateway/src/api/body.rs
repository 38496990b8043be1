//! Reads the body of a request, within limits of size and time, and of memory over all requests.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::Api;
use super::problem::Problem;
use crate::protocol::Failure;

/// How long a body may take.
const TIME: Duration = Duration::from_secs(10);

/// Of a body that is too large, so many bytes are read and thrown away, so that the answer is not lost in a reset.
const THROWN: usize = 8 << 20;

/// The room of a body among all bodies, held until its request is answered.
pub(super) type Room<'a> = SemaphorePermit<'a>;

impl Api {
    /// Reads a body of at most `most` bytes.
    pub(super) async fn read(&self, body: Incoming, most: usize) -> Result<(Bytes, Room<'_>), Problem> {
        let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let taken = announced.unwrap_or(most).min(most);
        let Ok(room) = self.bodies.try_acquire_many(u32::try_from(taken.div_ceil(1024)).unwrap_or(u32::MAX)) else {
            return Err(Failure::for_now("overloaded", "too many bytes of requests are on this node: try again").into());
        };
        match timeout(TIME, collect(body, most, announced)).await {
            Ok(read) => Ok((read?, room)),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                format!("the body did not arrive within {TIME:?}"),
            )),
        }
    }
}

async fn collect(mut body: Incoming, most: usize, announced: Option<usize>) -> Result<Bytes, Problem> {
    if announced.is_some_and(|bytes| bytes > most) {
        throw_away(&mut body).await;
        return Err(Problem::too_large("the body of this request", most, announced));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body ended before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > most {
            throw_away(&mut body).await;
            return Err(Problem::too_large("the body of this request", most, None));
        }
        // Most bodies come in one piece, which is used as it is.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

async fn throw_away(body: &mut Incoming) {
    let mut thrown = 0;
    while let Some(Ok(frame)) = body.frame().await {
        thrown += frame.data_ref().map_or(0, Bytes::len);
        if thrown > THROWN {
            return;
        }
    }
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Text,
    Binary,
}

impl Kind {
    /// By `Content-Type` (RFC 9110 §8.3). Without one it is binary. Of a text the charset must be UTF-8.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::Binary) };
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let charset = parts.find_map(|part| part.strip_prefix("charset=")).map(|name| name.trim_matches('"'));
        let kind = match essence {
            "application/json" => Self::Json,
            json if json.ends_with("+json") => Self::Json,
            // What curl says of `--data` unless it is told otherwise.
            "application/x-www-form-urlencoded" => Self::Text,
            text if text.starts_with("text/") => Self::Text,
            _ => return Ok(Self::Binary),
        };
        match charset {
            None | Some("utf-8" | "utf8" | "us-ascii") => Ok(kind),
            Some(_) => Err(unsupported("texts are UTF-8: send `charset=utf-8`")),
        }
    }

    /// Fails unless the body is JSON.
    pub(super) fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
        match Self::of(headers)? {
            Self::Json => Ok(()),
            Self::Text | Self::Binary => Err(unsupported(
                "this path takes JSON: send `Content-Type: application/json` (curl: `--json` for `-d`)",
            )),
        }
    }
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_content_type_says_what_the_body_is() {
        for (value, expected) in [
            (None, Some(Kind::Binary)),
            (Some("application/json"), Some(Kind::Json)),
            (Some("Application/JSON; charset=UTF-8"), Some(Kind::Json)),
            (Some("application/cloudevents+json"), Some(Kind::Json)),
            (Some("text/plain"), Some(Kind::Text)),
            (Some("text/html;charset=\"utf-8\""), Some(Kind::Text)),
            (Some("text/plain; charset=latin1"), None),
            (Some("application/x-www-form-urlencoded"), Some(Kind::Text)),
            (Some("application/octet-stream"), Some(Kind::Binary)),
            (Some("image/png"), Some(Kind::Binary)),
            (Some(""), Some(Kind::Binary)),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            }
            assert_eq!(Kind::of(&headers).ok(), expected, "{value:?}");
            assert_eq!(Kind::must_be_json(&headers).is_ok(), expected == Some(Kind::Json), "{value:?}");
        }
    }
}
