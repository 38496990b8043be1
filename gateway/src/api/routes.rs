//! The paths of the API, and what each request is for.
//!
//! Pure. `openapi.json` describes the same paths; a test compares them.

use percent_encoding::percent_decode_str;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Publishes one message on one channel or on several.
    Publish,
    /// Publishes several messages.
    Batch,
    /// Publishes the body as it is.
    Message,
    /// Reads older messages.
    History,
    /// Ends tokens of a user.
    Revoke,
    /// Ends tokens of all users.
    RevokeAll,
    /// Closes the connections of a user.
    DisconnectUser,
    /// Closes one connection.
    DisconnectClient,
    /// Ends subscriptions of a user.
    Unsubscribe,
    /// Moves clients from the fullest nodes to the others.
    Shed,
    /// Makes a ticket.
    Ticket,
    /// Lists channels with subscribers.
    Channels,
    /// Counts the subscribers of a channel.
    Channel,
    /// Names them.
    Members,
    /// Says what the key may do.
    Me,
    /// Lists the nodes.
    Nodes,
    /// Something that needs no key.
    Open(Open),
}

/// What needs no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// The description of the API.
    Document,
    /// Whether the process runs.
    Live,
    /// Whether the node serves clients.
    Ready,
    /// Counters.
    Metrics,
}

/// All routes: method, path, operation. A path has at most one segment in braces, which stands for any text.
pub(super) const ROUTES: [(&str, &str, Operation); 20] = [
    ("POST", "/v1/publish", Operation::Publish),
    ("POST", "/v1/batch", Operation::Batch),
    ("POST", "/v1/channels/{channel}/messages", Operation::Message),
    ("GET", "/v1/channels/{channel}/history", Operation::History),
    ("POST", "/v1/users/{user}/revoke", Operation::Revoke),
    ("POST", "/v1/revoke", Operation::RevokeAll),
    ("POST", "/v1/tickets", Operation::Ticket),
    ("GET", "/v1/me", Operation::Me),
    ("GET", "/v1/nodes", Operation::Nodes),
    ("GET", "/v1/openapi.json", Operation::Open(Open::Document)),
    ("GET", "/live", Operation::Open(Open::Live)),
    ("GET", "/ready", Operation::Open(Open::Ready)),
    ("GET", "/metrics", Operation::Open(Open::Metrics)),
    ("GET", "/v1/channels", Operation::Channels),
    ("GET", "/v1/channels/{channel}", Operation::Channel),
    ("GET", "/v1/channels/{channel}/presence", Operation::Members),
    ("POST", "/v1/users/{user}/disconnect", Operation::DisconnectUser),
    ("POST", "/v1/users/{user}/unsubscribe", Operation::Unsubscribe),
    ("POST", "/v1/clients/{client}/disconnect", Operation::DisconnectClient),
    ("POST", "/v1/shed", Operation::Shed),
];

/// What a request's line leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// An operation, and the text in the place of the path's braces, decoded.
    To(Operation, String),
    /// The path has other methods only.
    Method(String),
    /// There is no such path, or its text is not UTF-8.
    Nowhere,
}

/// Finds the route of a request. HEAD is allowed where GET is.
pub(super) fn find(method: &str, path: &str) -> Route {
    let mut allowed = Vec::new();
    for (needed, pattern, operation) in ROUTES {
        let Some(text) = matches(pattern, path) else { continue };
        if needed == method || (needed == "GET" && method == "HEAD") {
            let decoded = percent_decode_str(text).decode_utf8();
            return decoded.map_or(Route::Nowhere, |text| Route::To(operation, text.into_owned()));
        }
        allowed.push(if needed == "GET" { "GET, HEAD" } else { needed });
    }
    if allowed.is_empty() { Route::Nowhere } else { Route::Method(allowed.join(", ")) }
}

/// The text in the place of a pattern's braces, or an empty text; `None` if the path does not match.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (Some(begin), Some(end)) = (pattern.find('{'), pattern.find('}')) else {
        return (pattern == path).then_some("");
    };
    let text = path.strip_prefix(&pattern[..begin])?.strip_suffix(&pattern[end + 1..])?;
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

/// All paths, for the answer to a wrong one.
pub(super) fn paths() -> String {
    let mut paths: Vec<_> = ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    paths.sort_unstable();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_finds_its_operation_and_the_decoded_name() {
        let to = |operation, text: &str| Route::To(operation, text.to_owned());
        for (method, path, expected) in [
            ("POST", "/v1/publish", to(Operation::Publish, "")),
            ("HEAD", "/v1/me", to(Operation::Me, "")),
            ("GET", "/v1/channels/chat:1/history", to(Operation::History, "chat:1")),
            ("POST", "/v1/channels/%2Fws%2Fecho/messages", to(Operation::Message, "/ws/echo")),
            ("POST", "/v1/channels/gr%C3%B6%C3%9Fe/messages", to(Operation::Message, "größe")),
            ("GET", "/v1/channels/history", to(Operation::Channel, "history")),
            ("GET", "/v1/channels", to(Operation::Channels, "")),
            ("POST", "/v1/channels/%ff/messages", Route::Nowhere),
            ("GET", "/v1/publish", Route::Method("POST".to_owned())),
            ("POST", "/v1/me", Route::Method("GET, HEAD".to_owned())),
            ("OPTIONS", "/v1/publish", Route::Method("POST".to_owned())),
            ("POST", "/v1/channels//messages", Route::Nowhere),
            ("POST", "/v1/channels/a/b/messages", Route::Nowhere),
            ("POST", "/v1/publish/", Route::Nowhere),
            ("GET", "/", Route::Nowhere),
        ] {
            assert_eq!(find(method, path), expected, "{method} {path}");
        }
        assert!(paths().contains("POST /v1/publish"));
    }
}
