//! An app's decision about a request before it becomes a socket.

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response, header};

/// What a guard attached to a socket.
pub(crate) type Attached = Rc<dyn Any>;

/// A guard of a route. The error is the answer to the client.
pub(crate) type Guard = Arc<
    dyn for<'a> Fn(&'a UpgradeRequest<'a>) -> Pin<Box<dyn Future<Output = Result<Attached, Box<Response<Body>>>> + 'a>>
        + Send
        + Sync,
>;

/// A request that asks for a WebSocket: it has passed the checks of the handshake, of the origin and of the token.
#[derive(Debug)]
pub struct UpgradeRequest<'a> {
    pub(crate) head: &'a Parts,
    pub(crate) parameters: &'a HashMap<String, String>,
    pub(crate) peer: SocketAddr,
    pub(crate) user: Option<&'a str>,
}

impl UpgradeRequest<'_> {
    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The value of a header, if it is sent once and is ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    /// The value of a cookie (RFC 6265 §5.4); of several with this name the first.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let lines = self.head.headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(found, _)| *found == name).map(|(_, value)| value.trim_matches('"'))
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The query after the `?`, not decoded.
    #[must_use]
    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// A parameter of the path, decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The client's user: the `sub` of its token. `None` if the client is anonymous.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user
    }

    /// The client's address, also behind trusted proxies.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn cookies_headers_and_parameters_are_found_by_name() {
        let request = Request::get("/rooms/caf%C3%A9?a=b")
            .header("cookie", "a=1; session=\"s=1\"")
            .header("cookie", "session=2; b=")
            .header("x-key", "one")
            .header("x-twice", "1")
            .header("x-twice", "2");
        let (head, ()) = request.body(()).expect("a good request").into_parts();
        let parameters = HashMap::from([("room".to_owned(), "café".to_owned())]);
        let peer = ([127, 0, 0, 1], 80).into();
        let request = UpgradeRequest { head: &head, parameters: &parameters, peer, user: Some("ann") };
        assert_eq!(
            (request.cookie("session"), request.cookie("b"), request.cookie("c")),
            (Some("s=1"), Some(""), None)
        );
        assert_eq!(
            (request.header("X-Key"), request.header("x-twice"), request.header("no")),
            (Some("one"), None, None)
        );
        assert_eq!((request.param("room"), request.param("bad")), (Some("café"), None));
        assert_eq!((request.path(), request.query(), request.user()), ("/rooms/caf%C3%A9", "a=b", Some("ann")));
    }
}
