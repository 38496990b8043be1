//! What a backend is asked, as JSON.
//!
//! Pure. A question holds all that its answer may depend on, and nothing that differs between clients for which the answer must be
//! the same: equal questions share one answer.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_adapters::Payload;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::gate::Visitor;

#[derive(Serialize)]
struct Connect<'a> {
    hook: &'static str,
    path: &'a str,
    query: &'a str,
    address: String,
    headers: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Subscribe<'a> {
    hook: &'static str,
    user: Option<&'a str>,
    channel: &'a str,
}

#[derive(Serialize)]
struct Publish<'a> {
    hook: &'static str,
    user: Option<&'a str>,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

/// Asks who a client is. `passed` are the headers that the backend gets; of a header that came several times, all values.
pub(super) fn connect(visitor: &Visitor<'_>, passed: &[HeaderName]) -> Bytes {
    let passed = passed.iter().filter(|name| visitor.cookies || *name != "cookie");
    let headers = passed.filter_map(|name| Some((name.as_str().to_owned(), joined(visitor.headers, name)?.into())));
    json(&Connect {
        hook: "connect",
        path: visitor.path,
        query: visitor.query.unwrap_or_default(),
        address: visitor.address.to_canonical().to_string(),
        headers: headers.collect(),
    })
}

/// The values of a header as one (RFC 9110 §5.3; RFC 9113 §8.2.3 for cookies).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    let between = if name == "cookie" { "; " } else { ", " };
    (!values.is_empty()).then(|| values.join(between))
}

/// Asks whether a user may subscribe to a channel.
pub(super) fn subscribe(user: Option<&str>, channel: &str) -> Bytes {
    json(&Subscribe { hook: "subscribe", user, channel })
}

/// Asks whether a user may publish a message.
pub(super) fn publish(user: Option<&str>, channel: &str, payload: &Payload) -> Bytes {
    let text = std::str::from_utf8(payload.bytes()).ok();
    let data = match payload {
        // Its publisher's JSON was checked as it came, as all texts were.
        Payload::Json(_) => text.and_then(|text| serde_json::from_str(text).ok()).map(Data::Json),
        Payload::Text(_) => text.map(Data::Text),
        Payload::Binary(_) => None,
    };
    let base64 = data.is_none().then(|| STANDARD.encode(payload.bytes()));
    json(&Publish { hook: "publish", user, channel, data, base64 })
}

fn json(question: &impl Serialize) -> Bytes {
    serde_json::to_vec(question).expect("texts and maps of texts are JSON").into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn text(question: &Bytes) -> &str {
        std::str::from_utf8(question).expect("JSON is text")
    }

    #[test]
    fn a_client_is_shown_with_the_listed_headers_only_and_its_cookies_where_they_count() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("cookie", "a=1"), ("cookie", "b=2"), ("user-agent", "x"), ("authorization", "secret")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let passed = ["cookie", "user-agent", "x-missing"].map(HeaderName::from_static);
        let mut visitor = Visitor {
            path: "/ws",
            query: Some("room=1"),
            address: "::ffff:192.0.2.1".parse().expect("an address"),
            headers: &headers,
            cookies: true,
        };
        assert_eq!(
            text(&connect(&visitor, &passed)),
            r#"{"hook":"connect","path":"/ws","query":"room=1","address":"192.0.2.1","headers":{"cookie":"a=1; b=2","user-agent":"x"}}"#
        );
        visitor.cookies = false;
        assert!(!text(&connect(&visitor, &passed)).contains("cookie"));
    }

    #[test]
    fn a_message_is_json_as_it_was_written_or_a_text_or_base64() {
        let said = |payload| text(&publish(Some("ann"), "chat", &payload)).to_owned();
        let begin = r#"{"hook":"publish","user":"ann","channel":"chat","#;
        for (payload, expected) in [
            (Payload::Json("{\"b\":1,\"a\":1.0}".into()), r#""data":{"b":1,"a":1.0}}"#),
            (Payload::Text("say \"hi\"".into()), r#""data":"say \"hi\""}"#),
            (Payload::Binary(vec![0, 255].into()), r#""base64":"AP8="}"#),
        ] {
            assert_eq!(said(payload), format!("{begin}{expected}"));
        }
        assert_eq!(text(&subscribe(None, "chat")), r#"{"hook":"subscribe","user":null,"channel":"chat"}"#);
    }
}
