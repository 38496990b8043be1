//! What went wrong with a request, as `application/problem+json` (RFC 9457).
//!
//! Pure. Its status says what happened to a publish: 4xx and 503 mean that nothing was stored, 504 that this is not known.

use std::time::Duration;

use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::protocol::Failure;

/// A response of the API.
pub(super) type Reply = Response<Full<Bytes>>;

/// A problem.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    code: &'static str,
    detail: String,
    retry: bool,
    /// What few problems have.
    more: Box<More>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct More {
    /// How long to wait before a retry, in milliseconds.
    retry_after: Option<u64>,
    /// The limit that was exceeded, and what the request had.
    limit: Option<u64>,
    actual: Option<u64>,
    /// The methods that the path has.
    allow: Option<String>,
    /// What happened to each channel of a publish on several.
    results: Option<Value>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry: false, more: Box::default() }
    }

    /// A request that is not as the API's description says.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// Something that has too many bytes; `actual` is `None` if it was not read to its end.
    pub(super) fn too_large(what: &str, limit: usize, actual: Option<usize>) -> Self {
        let number = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        let has = actual.map_or_else(|| "more".to_owned(), |actual| actual.to_string());
        let detail = format!("{what} has at most {limit} bytes; this one has {has}");
        let mut problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail);
        (problem.more.limit, problem.more.actual) = (Some(number(limit)), actual.map(number));
        problem
    }

    /// A request without a valid key.
    pub(super) fn unauthorised(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", detail)
    }

    /// A method that a path does not have.
    pub(super) fn method(allow: String) -> Self {
        let detail = format!("this path takes {allow}");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
        problem.more.allow = Some(allow);
        problem
    }

    /// A rate that was exceeded.
    pub(super) fn rate_limited(detail: String, per_second: Option<u32>, wait: Duration) -> Self {
        let after = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let mut problem = Self::from(Failure::for_a_time("rate_limited", detail, after));
        problem.more.limit = per_second.map(u64::from);
        problem
    }

    /// What happened to each channel of a publish on several.
    pub(super) fn with_results(mut self, results: Value) -> Self {
        self.more.results = Some(results);
        self
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The document.
    pub(super) fn json(&self) -> Value {
        let mut document = json!({
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "retry": self.retry,
        });
        let More { retry_after, limit, actual, results, .. } = &*self.more;
        let number = |value: &Option<u64>| value.map(Value::from);
        for (name, value) in [
            ("limit", number(limit)),
            ("actual", number(actual)),
            ("retry_after_ms", number(retry_after)),
            ("results", results.clone()),
        ] {
            if let Some(value) = value {
                document[name] = value;
            }
        }
        document
    }

    pub(super) fn reply(self) -> Reply {
        let mut reply = json_reply(self.status, self.json().to_string());
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.more.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        let seconds = match (self.more.retry_after, self.status) {
            (Some(after), _) => Some(after.div_ceil(1000)),
            (None, StatusCode::SERVICE_UNAVAILABLE) => Some(1),
            _ => None,
        };
        if let Some(seconds) = seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        reply
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let Failure { code, message, retry, retry_after } = failure;
        let mut problem = Self { retry, ..Self::new(status, code, message) };
        problem.more.retry_after = retry_after;
        problem
    }
}

/// A response with a JSON document.
pub(super) fn json_reply(status: StatusCode, json: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(json.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_its_code_and_the_figures_of_a_limit() {
        let problem = Problem::too_large("a message", 10, Some(11));
        assert_eq!(
            problem.json(),
            json!({ "title": "Payload Too Large", "status": 413, "code": "too_large", "retry": false,
                "detail": "a message has at most 10 bytes; this one has 11", "limit": 10, "actual": 11 })
        );
        let limited = Problem::rate_limited("slower".to_owned(), Some(5), Duration::from_millis(1500));
        assert_eq!((&limited.json()["retry"], &limited.json()["retry_after_ms"]), (&json!(true), &json!(1500)));
        let reply = limited.reply();
        assert_eq!((reply.status().as_u16(), &reply.headers()["retry-after"]), (429, &HeaderValue::from_static("2")));
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
        let reply = Problem::method("GET, HEAD".to_owned()).reply();
        assert_eq!((reply.status().as_u16(), &reply.headers()["allow"]), (405, &HeaderValue::from_static("GET, HEAD")));
        assert_eq!(Problem::unauthorised("no").reply().headers()["www-authenticate"], "Bearer");
    }

    #[test]
    fn the_status_says_whether_a_message_may_be_stored() {
        use broker_adapters::PublishError;
        for (error, status, retry) in [
            (PublishError::Rejected("too long".into()), 422, false),
            (PublishError::Unavailable, 503, true),
            (PublishError::Unknown, 504, true),
        ] {
            let problem = Problem::from(Failure::from(error));
            assert_eq!((problem.status.as_u16(), problem.retry), (status, retry), "{problem:?}");
        }
    }
}
