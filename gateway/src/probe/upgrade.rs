//! What the answer to an upgrade means, and what to look at when it is no 101.
//!
//! Pure: one table by status, and the rules of RFC 6455 §4.1 for a 101.

use serde_json::{Value, json};

use super::head::{self, ACCEPT, Foreign, Response};
use super::options::{Options, Target};
use super::step::{Good, Trouble};

/// Whether the server switches to WebSocket.
pub(super) fn status(response: &Response, options: &Options) -> Result<Good, Trouble> {
    let what = format!("{} answers {}", head::asked(options), response.line());
    let facts = json!({"status": response.status});
    if response.status != 101 {
        let (means, look) = meaning(response, &options.url);
        return Err(Trouble::new(what, means, look).with(facts));
    }
    for (name, wanted) in [("upgrade", "websocket"), ("connection", "upgrade")] {
        let value = response.header(name).unwrap_or_default();
        if !value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)) {
            let means = format!("The 101 has no `{name}: {wanted}`, so browsers refuse it (RFC 6455 §4.1).");
            let look = "a proxy on the way that removes hop-by-hop headers from answers.";
            return Err(Trouble::new(what, means, look).with(facts));
        }
    }
    Ok(Good::new(what, facts))
}

/// Whether the server agreed on nothing but what was offered (RFC 6455 §4.1). Browsers also end a connection whose page
/// asked for subprotocols and got none; the native one is offered on our own account only.
pub(super) fn protocol(response: &Response, options: &Options) -> Result<Good, Trouble> {
    let offered = head::offered(options);
    let agreed = response.header("sec-websocket-protocol");
    let facts = json!({"offered": offered, "protocol": agreed});
    let asked = options.headers.iter().any(|header| header.name == "sec-websocket-protocol");
    let refused = |what: String, look: &str| {
        let means = "Browsers end such a connection at once (RFC 6455 §4.1).";
        Err(Trouble::new(what, means, look).with(facts.clone()))
    };
    if let Some(extensions) = response.header("sec-websocket-extensions") {
        let what = format!("the server uses an extension that was not offered: {extensions}");
        return refused(what, "the server's library; a proxy that answers for it or changes headers.");
    }
    match agreed.as_deref() {
        Some(agreed) if !offered.contains(&agreed) => {
            refused(format!("{agreed}, which was not offered"), "the server: it may choose only what the client names.")
        }
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
            "The server finds the handshake damaged, or it is plain HTTP on a TLS port.",
            "the text of the answer; wss:// instead of ws://; a proxy on the way that speaks HTTP/1.0 to the node or \
             removes the Connection header.",
        ),
        401 | 407 => ("It asks for credentials.", "--header 'Authorization: Bearer …' or --header 'Cookie: …'."),
        403 => (
            "It is forbidden: for the Origin, or by a rule of the balancer.",
            "`http.origins` of the node (here: --header 'Origin: …' as the page's browser sends it, with the scheme and port \
             of the page); `http-request deny` in HAProxy, whose log then has PR-- and no node.",
        ),
        404 => (
            "There is no WebSocket at this path, or the balancer's rules send it elsewhere.",
            "the path (Fanfare: /ws or /raw/CHANNEL); `use_backend` rules (path_beg, hdr(host), hdr(Upgrade)); \
             --host when the rule goes by name; which server the HAProxy log names.",
        ),
        405 => (
            "What answers takes no GET here, so it is no WebSocket endpoint.",
            "the path; where the balancer sends it.",
        ),
        408 => ("The balancer waited in vain for the request's head.", "`timeout http-request`; a slow link."),
        421 => (
            "This host name is not served here.",
            "--host; `http.hosts` of the node; the certificate and the host rules of the balancer.",
        ),
        426 => (
            "The node saw no upgrade: something on the way removed it, or another version than 13 was asked for.",
            "proxies on the way that speak HTTP/1.0 or HTTP/2 to the node, or that drop the Upgrade header (nginx: \
             proxy_http_version 1.1 and proxy_set_header Upgrade $http_upgrade).",
        ),
        429 => (
            "Too many connections or requests from this address.",
            "`limits.connections_per_address` of the node, for which all clients have one address unless their balancer is \
             in `http.trusted_proxies`; stick tables of the balancer; many clients behind one NAT.",
        ),
        431 => ("The request's head is too large.", "cookies: use a host name of its own for sockets."),
        502 => (
            "The balancer reached a node and got no HTTP from it.",
            "the node's log; TLS or PROXY protocol on one side only (`ssl`, `send-proxy-v2` on the server line).",
        ),
        503 => (
            "No node takes the connection: all are down for the balancer, full, being stopped, or without their broker.",
            "the balancer's statistics; `fanfare ready` on each node; HAProxy's log (SC-- no server, sQ-- queue full, \
             <NOSRV>); `http.max_connections` and `http.accept_rate` of the nodes.",
        ),
        504 => ("A node took the request and did not answer.", "the node's load and log; `timeout server`."),
        500 | 501 | 505..=599 => ("The server or a proxy before it failed.", "their logs at this moment."),
        _ => ("It does not switch to WebSocket.", "which server answers here: the headers, the balancer's log."),
    };
    (means.to_owned(), look.to_owned())
}

fn redirect(response: &Response, target: &Target) -> (String, String) {
    const MEANS: &str = "It redirects, which WebSocket clients do not follow.";
    let look = match response.header("location") {
        Some(location) if is_https(&location) && !target.secure => {
            format!("the same with wss://: it redirects to {}", super::step::tame(&location))
        }
        Some(location) => format!("the address it names: {}", super::step::tame(&location)),
        None => "the rule that redirects: it names no address.".to_owned(),
    };
    (MEANS.to_owned(), look)
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// Whether the answer proves that the key was read.
pub(super) fn accept(response: &Response) -> Result<Good, Trouble> {
    let look = "what really answers (the headers below; the balancer's log); a cache or a mock server on the way.";
    match response.header("sec-websocket-accept") {
        Some(value) if value == ACCEPT => {
            Ok(Good::new(format!("{ACCEPT}, the right answer to the key"), json!({"accept": value})))
        }
        Some(value) => {
            let means =
                format!("That is not made from the key of this request, which gives {ACCEPT}: clients refuse it.");
            Err(Trouble::new(format!("wrong: {value}"), means, look))
        }
        None => Err(Trouble::new(
            "sec-websocket-accept is missing",
            "Whatever answers did not read the key, or a proxy removed the header: clients refuse it.",
            look,
        )),
    }
}

/// The headers that are worth a line: they tell who answered.
pub(super) fn headers(response: &Response) -> Good {
    const OWN: [&str; 6] =
        ["upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol", "date", "content-length"];
    let shown = response.headers.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    let shown: Vec<_> = shown.map(|(name, value)| format!("{name}: {value}")).collect();
    let what = if shown.is_empty() { "none that tells who answered".to_owned() } else { shown.join("; ") };
    let all: Vec<Value> = response.headers.iter().map(|(name, value)| json!([name, value])).collect();
    Good::new(what, json!({"headers": all}))
}

/// What an answer that is no HTTP/1 means.
pub(super) fn foreign(what: Foreign) -> Trouble {
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
            "what answers is not HTTP",
            "Something else listens on this port.",
            "the port; which program has it (ss -ltnp on the server).",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::options::options;

    fn response(status: u16, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, reason: "Reason".into(), headers, text: String::new() }
    }

    fn asked(line: &str) -> Options {
        options(&format!("ws://localhost:8080/ws {line}")).expect("a good line")
    }

    #[test]
    fn a_101_must_name_the_protocol_and_prove_the_key() {
        let good = [("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade"), ("sec-websocket-accept", ACCEPT)];
        assert!(status(&response(101, &good), &asked("")).is_ok());
        assert!(accept(&response(101, &good)).is_ok());
        for (headers, told) in [(&good[1..], "upgrade: websocket"), (&good[..1], "connection: upgrade")] {
            let trouble = status(&response(101, headers), &asked("")).expect_err("a browser refuses it");
            assert!(trouble.means.contains(told), "{trouble:?}");
        }
        let missing = accept(&response(101, &good[..2])).expect_err("not proven");
        assert!(missing.what.contains("missing"), "{missing:?}");
        let wrong = accept(&response(101, &[("sec-websocket-accept", "AAAA")])).expect_err("not proven");
        assert!(wrong.what.contains("wrong: AAAA") && wrong.means.contains(ACCEPT), "{wrong:?}");
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
            (503, "No node", "fanfare ready"),
            (504, "did not answer", "timeout server"),
        ] {
            let trouble = status(&response(code, &[]), &asked("")).expect_err("no 101");
            assert!(trouble.means.contains(means) && trouble.look.contains(look), "{code}: {trouble:?}");
        }
        for code in (100..600).filter(|code| *code != 101) {
            let trouble = status(&response(code, &[]), &asked("")).expect_err("no 101");
            assert!(!trouble.means.is_empty() && !trouble.look.is_empty(), "{code}");
        }
    }

    #[test]
    fn only_what_was_offered_may_be_agreed_on() {
        const CHAT: &str = "--header Sec-WebSocket-Protocol:_chat,_v2";
        let names = |agreed| [("sec-websocket-protocol", agreed)];
        for (line, agreed, told) in [("", "fanfare.v1", "fanfare.v1"), (CHAT, "v2", "v2")] {
            let good = protocol(&response(101, &names(agreed)), &asked(line)).expect("it was offered");
            assert_eq!(good.what, told);
        }
        assert!(protocol(&response(101, &[]), &asked("")).is_ok(), "a server of another protocol");
        for (line, headers, told) in [
            ("", &names("chat")[..], "chat, which was not offered"),
            (CHAT, &names("fanfare.v1"), "fanfare.v1, which was not offered"),
            (CHAT, &[], "none agreed on, of chat, v2"),
            ("", &[("sec-websocket-extensions", "permessage-deflate")], "not offered: permessage-deflate"),
        ] {
            let trouble = protocol(&response(101, headers), &asked(line)).expect_err("a browser ends it");
            assert!(trouble.what.contains(told), "{trouble:?}");
        }
    }

    #[test]
    fn a_redirect_names_its_goal() {
        let told = |location| status(&response(301, &[("location", location)]), &asked("")).expect_err("no 101").look;
        assert!(told("https://example.com/ws").starts_with("the same with wss://"));
        assert!(told("HTTPS://example.com/ws").starts_with("the same with wss://"));
        assert_eq!(told("http://b.example/\x1b[2J"), "the address it names: http://b.example/ [2J");
    }
}
