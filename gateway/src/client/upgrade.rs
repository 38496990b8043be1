//! What the response to an upgrade request means, and what to look at if it is not a 101.
//!
//! Pure: one table by status, and the rules of RFC 6455 §4.1 for a 101.

use serde_json::{Value, json};

use super::endpoint::{Endpoint, Target};
use super::head::{self, Foreign, Greeting, Response};
use super::trouble::{Good, Trouble};

/// Checks that the server switches to WebSocket.
pub(crate) fn status(response: &Response, endpoint: &Endpoint) -> Result<Good, Trouble> {
    let what = format!("{} answers {}", head::asked(endpoint), response.line());
    let facts = json!({"status": response.status});
    if response.status != 101 {
        let (means, look) = meaning(response, &endpoint.url);
        return Err(Trouble::new(what, means, look).with(facts));
    }
    for (name, wanted) in [("upgrade", "websocket"), ("connection", "upgrade")] {
        let value = response.header(name).unwrap_or_default();
        if !value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)) {
            let means = format!("The 101 has no `{name}: {wanted}`, so browsers refuse it (RFC 6455 §4.1).");
            let look = "a proxy on the way that removes hop-by-hop headers from responses.";
            return Err(Trouble::new(what, means, look).with(facts));
        }
    }
    Ok(Good::new(what, facts))
}

/// Checks that the server chose only a subprotocol and extensions that the client offered (RFC 6455 §4.1). If the user asked
/// for subprotocols, the server must choose one: browsers close the connection otherwise. Without such a header the probe
/// offers `fanfare.v1`, and the server need not choose it.
pub(crate) fn protocol(response: &Response, endpoint: &Endpoint) -> Result<Good, Trouble> {
    let offered = head::offered(endpoint);
    let agreed = response.header("sec-websocket-protocol");
    let facts = json!({"offered": offered, "protocol": agreed});
    let asked = endpoint.headers.iter().any(|header| header.name == "sec-websocket-protocol");
    let refused = |what: String, look: &str| {
        let means = "Browsers end such a connection at once (RFC 6455 §4.1).";
        Err(Trouble::new(what, means, look).with(facts.clone()))
    };
    if let Some(extensions) = response.header("sec-websocket-extensions") {
        let what = format!("the server uses an extension that was not offered: {extensions}");
        return refused(what, "the server's library; a proxy that answers for the server or changes headers.");
    }
    match agreed.as_deref() {
        Some(agreed) if !offered.contains(&agreed) => refused(
            format!("{agreed}, which was not offered"),
            "the server: it may choose only what the client offers.",
        ),
        Some(agreed) => Ok(Good::new(agreed, facts)),
        None if asked => refused(
            format!("none agreed on, of {}", offered.join(", ")),
            "which subprotocols the server knows; whether a proxy drops Sec-WebSocket-Protocol.",
        ),
        None => Ok(Good::new("none agreed on", facts)),
    }
}

fn meaning(response: &Response, target: &Target) -> (String, String) {
    let (means, look) = match response.status {
        200..=299 => (
            "An ordinary page answers here: the request came as plain HTTP, or this path has no WebSocket.",
            "the path; the balancer's rule for WebSockets; a proxy that drops Upgrade and Connection (nginx: \
             proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection upgrade).",
        ),
        300..=399 => return redirect(response, target),
        400 => (
            "The server rejects the handshake as damaged, or this is plain HTTP on a TLS port.",
            "the text of the response; wss:// instead of ws://; a proxy on the way that speaks HTTP/1.0 to the node or \
             removes the Connection header.",
        ),
        401 | 407 => {
            ("The server asks for credentials.", "--header 'Authorization: Bearer …' or --header 'Cookie: …'.")
        }
        403 => (
            "The request is forbidden: by the node because of the Origin, or by a rule of the balancer.",
            "`http.origins` of the node (here: --header 'Origin: …' as the page's browser sends it, with the scheme and port \
             of the page); `http-request deny` in HAProxy, whose log then has PR-- and no node.",
        ),
        404 => (
            "There is no WebSocket at this path, or the balancer's rules send it elsewhere.",
            "the path (Fanfare: /ws or /raw/CHANNEL); `use_backend` rules (path_beg, hdr(host), hdr(Upgrade)); \
             --host if the rules depend on the host name; which server the HAProxy log names.",
        ),
        405 => (
            "The server does not accept GET at this path, so there is no WebSocket here.",
            "the path; to which server the balancer sends it.",
        ),
        408 => ("The balancer did not receive the request's head in time.", "`timeout http-request`; a slow link."),
        421 => (
            "This host name is not served here.",
            "--host; `http.hosts` of the node; the certificate and the host rules of the balancer.",
        ),
        426 => (
            "The node saw no upgrade: a proxy on the way removed it, or the request's WebSocket version is not 13.",
            "proxies on the way that speak HTTP/1.0 or HTTP/2 to the node, or that drop the Upgrade header (nginx: \
             proxy_http_version 1.1 and proxy_set_header Upgrade $http_upgrade).",
        ),
        429 => (
            "Too many connections or requests from this address.",
            "`limits.connections_per_address` of the node; `http.trusted_proxies`: without the balancer in it, all clients \
             count as one address; stick tables of the balancer; many clients behind one NAT.",
        ),
        431 => ("The request's head is too large.", "cookies: use a separate host name for WebSockets."),
        502 => (
            "The balancer reached a node but got no HTTP from it.",
            "the node's log; TLS or PROXY protocol on one side only (`ssl`, `send-proxy-v2` on the server line).",
        ),
        503 => (
            "No node takes the connection: each is marked down by the balancer, full, stopping, or without its broker.",
            "the balancer's statistics; `fanfare ready` on each node; HAProxy's log (SC-- no server, sQ-- queue full, \
             <NOSRV>); `http.max_connections` and `http.accept_rate` of the nodes.",
        ),
        504 => ("A node accepted the request and did not answer.", "the node's load and log; `timeout server`."),
        500 | 501 | 505..=599 => ("The server or a proxy before it failed.", "their logs at this moment."),
        _ => {
            ("The server does not switch to WebSocket.", "which server answers here: the headers, the balancer's log.")
        }
    };
    (means.to_owned(), look.to_owned())
}

fn redirect(response: &Response, target: &Target) -> (String, String) {
    const MEANS: &str = "The server redirects, and WebSocket clients do not follow redirects.";
    let look = match response.header("location") {
        Some(location) if is_https(&location) && !target.secure => {
            format!("the same URL with wss://: the server redirects to {}", super::trouble::tame(&location))
        }
        Some(location) => format!("the address of the redirect: {}", super::trouble::tame(&location)),
        None => "the rule that redirects: it names no address.".to_owned(),
    };
    (MEANS.to_owned(), look)
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// Checks that the response proves that the server read the key.
pub(crate) fn accept(response: &Response, greeting: &Greeting) -> Result<Good, Trouble> {
    let look = "which server answers (the headers below; the balancer's log); a cache or a mock server on the way.";
    let right = &*greeting.accept;
    match response.header("sec-websocket-accept") {
        Some(value) if value == right => {
            Ok(Good::new(format!("{right}, the right answer to the key"), json!({"accept": value})))
        }
        Some(value) => {
            let means =
                format!("It does not match the key of the request. The right value is {right}. Clients refuse it.");
            Err(Trouble::new(format!("wrong: {value}"), means, look))
        }
        None => Err(Trouble::new(
            "sec-websocket-accept is missing",
            "The server did not read the key, or a proxy removed the header. Clients refuse the connection.",
            look,
        )),
    }
}

/// The headers that help to identify the server.
pub(crate) fn headers(response: &Response) -> Good {
    const OWN: [&str; 6] =
        ["upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol", "date", "content-length"];
    let shown = response.headers.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    let shown: Vec<_> = shown.map(|(name, value)| format!("{name}: {value}")).collect();
    let what = if shown.is_empty() { "none that identifies the server".to_owned() } else { shown.join("; ") };
    let all: Vec<Value> = response.headers.iter().map(|(name, value)| json!([name, value])).collect();
    Good::new(what, json!({"headers": all}))
}

/// What a response that is not HTTP/1 means.
pub(crate) fn not_http1(what: Foreign) -> Trouble {
    match what {
        Foreign::Http2 => Trouble::new(
            "an HTTP/2 frame instead of an answer",
            "This port speaks HTTP/2 only. A WebSocket handshake is HTTP/1.1.",
            "the protocols of the listener (HAProxy: no `proto h2` on the bind line, `alpn h2,http/1.1` with TLS).",
        ),
        Foreign::Tls => {
            Trouble::new("a TLS alert instead of an answer", "This port speaks TLS.", "the same with wss://.")
        }
        Foreign::Unknown => Trouble::new(
            "the answer is not HTTP",
            "Something else listens on this port.",
            "the port; which program listens on it (ss -ltnp on the server).",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::endpoint::endpoint;
    use crate::client::head::PROBE;

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, reason: "Reason".into(), headers, text: String::new() }
    }

    fn with_flags(flags: &str) -> Endpoint {
        endpoint(&format!("ws://localhost:8080/ws {flags}")).expect("a good line")
    }

    #[test]
    fn a_101_must_name_the_protocol_and_prove_the_key() {
        let good =
            [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"), ("sec-websocket-accept", &*PROBE.accept)];
        assert!(status(&response(101, &good), &with_flags("")).is_ok());
        assert!(accept(&response(101, &good), &PROBE).is_ok());
        for (headers, message) in [(&good[1..], "upgrade: websocket"), (&good[..1], "connection: upgrade")] {
            let trouble = status(&response(101, headers), &with_flags("")).expect_err("a browser refuses it");
            assert!(trouble.means.contains(message), "{trouble:?}");
        }
        let missing = accept(&response(101, &good[..2]), &PROBE).expect_err("not proven");
        assert!(missing.what.contains("missing"), "{missing:?}");
        let wrong = accept(&response(101, &[("sec-websocket-accept", "AAAA")]), &PROBE).expect_err("not proven");
        assert!(wrong.what.contains("wrong: AAAA") && wrong.means.contains(&*PROBE.accept), "{wrong:?}");
    }

    #[test]
    fn every_refusal_says_what_it_means_and_what_to_look_at() {
        for (code, means, look) in [
            (200, "ordinary page", "proxy_set_header"),
            (302, "redirects", "it names no address"),
            (400, "damaged", "wss://"),
            (401, "credentials", "--header"),
            (403, "forbidden", "http.origins"),
            (404, "no WebSocket at this path", "path_beg"),
            (426, "saw no upgrade", "Upgrade header"),
            (429, "Too many", "stick tables"),
            (502, "no HTTP", "send-proxy"),
            (503, "No node takes", "fanfare ready"),
            (504, "did not answer", "timeout server"),
        ] {
            let trouble = status(&response(code, &[]), &with_flags("")).expect_err("no 101");
            assert!(trouble.means.contains(means) && trouble.look.contains(look), "{code}: {trouble:?}");
        }
        for code in (100..600).filter(|code| *code != 101) {
            let trouble = status(&response(code, &[]), &with_flags("")).expect_err("no 101");
            assert!(!trouble.means.is_empty() && !trouble.look.is_empty(), "{code}");
        }
    }

    #[test]
    fn a_server_may_choose_only_what_was_offered() {
        const CHAT: &str = "--header Sec-WebSocket-Protocol:_chat,_v2";
        let names = |agreed| [("sec-websocket-protocol", agreed)];
        for (flags, agreed, what) in [("", "fanfare.v1", "fanfare.v1"), (CHAT, "v2", "v2")] {
            let good = protocol(&response(101, &names(agreed)), &with_flags(flags)).expect("it was offered");
            assert_eq!(good.what, what);
        }
        assert!(protocol(&response(101, &[]), &with_flags("")).is_ok(), "a server of another protocol");
        for (flags, headers, what) in [
            ("", &names("chat")[..], "chat, which was not offered"),
            (CHAT, &names("fanfare.v1"), "fanfare.v1, which was not offered"),
            (CHAT, &[], "none agreed on, of chat, v2"),
            ("", &[("sec-websocket-extensions", "permessage-deflate")], "not offered: permessage-deflate"),
        ] {
            let trouble = protocol(&response(101, headers), &with_flags(flags)).expect_err("a browser ends it");
            assert!(trouble.what.contains(what), "{trouble:?}");
        }
    }

    #[test]
    fn a_redirect_is_reported_with_its_target() {
        let look =
            |location| status(&response(301, &[("location", location)]), &with_flags("")).expect_err("no 101").look;
        assert!(look("https://example.com/ws").starts_with("the same URL with wss://"));
        assert!(look("HTTPS://example.com/ws").starts_with("the same URL with wss://"));
        assert_eq!(look("http://b.example/\x1b[2J"), "the address of the redirect: http://b.example/ [2J");
    }
}
