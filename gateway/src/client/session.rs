//! The native protocol (`fanfare.v1`) as a client speaks it, on one connection.
//!
//! Answers the node's pings, and asks a silent node for a sign of life. Decides nothing about reconnecting.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{Door, End, Endpoint, Greeting, Header, Socket, Tls, Trouble, connect, resolve, secure, tame, upgrade};
use crate::codec::Opcode;

/// After this time without a message the node is asked for a sign of life. Nodes send a ping every 25 s by default.
const QUIET: Duration = Duration::from_secs(35);
/// How long the node may take for that sign.
const ANSWER: Duration = Duration::from_secs(10);

/// An open connection.
pub(crate) struct Session {
    socket: Socket,
    /// Whether a silent node has been asked for a sign of life.
    asked: bool,
}

/// What the node sent, besides pings.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Frame {
    pub(crate) id: Option<u64>,
    pub(crate) ok: Option<Value>,
    pub(crate) error: Option<Refused>,
    pub(crate) channel: Option<String>,
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) base64: Option<String>,
    pub(crate) at: Option<String>,
    pub(crate) lost: Option<Lost>,
    pub(crate) skipped: Option<u64>,
    pub(crate) unsubscribed: Option<Unsubscribed>,
    pub(crate) degraded: Option<bool>,
    pub(crate) reconnect: Option<Reconnect>,
    pub(crate) ping: Option<Ping>,
    /// The frame as it came.
    #[serde(skip)]
    pub(crate) text: String,
}

/// Why a command was not carried out.
#[derive(Debug, Deserialize)]
pub(crate) struct Refused {
    pub(crate) code: String,
    message: String,
    pub(crate) retry: bool,
    pub(crate) retry_after_ms: Option<u64>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", tame(&self.code), tame(&self.message))
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Lost {
    pub(crate) after: String,
    pub(crate) reason: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Unsubscribed {
    pub(crate) channel: String,
    pub(crate) reason: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Reconnect {
    pub(crate) after_ms: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ping {
    /// The current position of each channel.
    pub(crate) at: BTreeMap<String, String>,
}

/// Why no connection could be opened.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The status of an answer other than 101.
    status: Option<u16>,
    trouble: Trouble,
}

impl Closed {
    /// Whether the same request may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        self.status.is_none_or(|status| status == 429 || status >= 500)
    }

    /// Whether the node refused the token, or asks for one.
    pub(crate) fn needs_token(&self) -> bool {
        self.status == Some(401)
    }
}

impl From<Trouble> for Closed {
    fn from(trouble: Trouble) -> Self {
        Self { status: None, trouble }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trouble { what, means, look, .. } = &self.trouble;
        write!(f, "{what}. {means} Look at: {look}")
    }
}

impl Session {
    /// Opens a connection. A URL without a path is that of `/ws`.
    pub(crate) async fn open(endpoint: &Endpoint, token: Option<&str>) -> Result<Self, Closed> {
        let mut endpoint = endpoint.clone();
        if endpoint.url.path == "/" {
            endpoint.url.path = "/ws".to_owned();
        }
        if let Some(token) = token {
            endpoint.headers.push(Header { name: "authorization".to_owned(), value: format!("Bearer {token}") });
        }
        let (addresses, _) = resolve(&endpoint).await?;
        let ((address, stream), _) = connect(&addresses).await?;
        let tls = endpoint.url.secure.then(|| Tls::new(endpoint.name(), endpoint.insecure)).transpose()?;
        let door = Door { endpoint: &endpoint, greeting: Greeting::random(), address, tls };
        let answered = match &door.tls {
            Some(tls) => door.shake(Box::new(secure(tls, stream).await?)).await,
            None => door.shake(Box::new(stream)).await,
        };
        let (socket, response) = answered?;
        let status = Some(response.status).filter(|status| *status != 101);
        let checked = upgrade::status(&response, &endpoint)
            .and_then(|_| upgrade::accept(&response, &door.greeting))
            .and_then(|_| upgrade::protocol(&response, &endpoint));
        checked.map_err(|trouble| Closed { status, trouble })?;
        if !socket.native {
            let what = format!("{} does not speak fanfare.v1", endpoint.url);
            let trouble = Trouble::new(what, "It is not a gateway's native path.", "the path: it is /ws by default.");
            return Err(Closed { status: Some(200), trouble });
        }
        Ok(Self { socket, asked: false })
    }

    /// Sends a command.
    pub(crate) async fn send(&mut self, command: &str) -> Result<(), End> {
        self.socket.send(Opcode::Text, command.as_bytes()).await
    }

    /// Waits for the next frame. Pings are answered before they are returned. Cancel safe, but for a pong that is being sent.
    pub(crate) async fn next(&mut self) -> Result<Frame, End> {
        loop {
            let patience = if self.asked { ANSWER } else { QUIET };
            let Ok(text) = timeout(patience, self.socket.text()).await else {
                if self.asked {
                    return Err(End::Broken("the node has been silent for too long".to_owned()));
                }
                self.asked = true;
                self.send(r#"{"ping":{}}"#).await?;
                continue;
            };
            self.asked = false;
            let text = text?;
            let mut frame: Frame = serde_json::from_str(&text)
                .map_err(|error| End::Violation(format!("the node sent a frame that is not understood: {error}")))?;
            if frame.ping.is_some() {
                self.send(r#"{"pong":{}}"#).await?;
            }
            frame.text = text;
            return Ok(frame);
        }
    }

    /// Says goodbye and closes the connection.
    pub(crate) async fn leave(self) {
        self.socket.leave().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_docs_protocol_are_understood() {
        let frame = |text: &str| serde_json::from_str::<Frame>(text).expect(text);
        let message = frame(r#"{"channel":"news","data":{"a": 1},"from":{"client":"c"},"at":"P"}"#);
        assert_eq!(message.data.expect("it has data").get(), r#"{"a": 1}"#);
        let lost = frame(r#"{"channel":"news","lost":{"after":"P","reason":"reset"}}"#).lost.expect("it is lost");
        assert_eq!((lost.after.as_str(), lost.reason.as_str()), ("P", "reset"));
        assert_eq!(frame(r#"{"ping":{"at":{"news":"P"}}}"#).ping.expect("a ping").at["news"], "P");
        assert_eq!(frame(r#"{"reconnect":{"after_ms":420}}"#).reconnect.expect("a hint").after_ms, 420);
        let error = r#"{"id":7,"error":{"code":"rate_limited","message":"wait","retry":true,"retry_after_ms":9}}"#;
        let refused = frame(error).error.expect("refused");
        assert_eq!((refused.to_string().as_str(), refused.retry_after_ms), ("rate_limited: wait", Some(9)));
    }

    #[test]
    fn only_an_answer_that_may_change_is_worth_another_try() {
        let closed = |status| Closed { status, trouble: Trouble::default() };
        for (status, again) in
            [(None, true), (Some(503), true), (Some(429), true), (Some(401), false), (Some(404), false)]
        {
            assert_eq!(closed(status).may_pass(), again, "{status:?}");
        }
    }
}
