//! Clients without a token: the backend says who they are.

use futures_util::future::try_join_all;
use tests::backend::{Question, Reply, ok};
use tests::events::Events;
use tests::tokens::Issuer;
use tests::wire::Frame;

use super::*;

/// Knows the user from the cookie.
fn by_cookie(question: &Question) -> Reply {
    match question.json["headers"]["cookie"].as_str().and_then(|cookie| cookie.strip_prefix("session=")) {
        Some(user) => ok(&json!({ "allow": true, "user": user, "ttl": 60 })),
        None => ok(&json!({ "allow": false, "code": "unauthorised", "message": "log in first" })),
    }
}

fn with_cookie(path: &str, user: &str) -> Head {
    Head::upgrade(path).with("Cookie", format!("session={user}"))
}

#[tokio::test]
async fn the_backend_sees_the_cookie_and_says_who_the_client_is_and_what_it_may_do() -> Result<()> {
    let backend = Backend::start(|_| {
        let rights = json!([{ "match": "chat:{sub}", "can": ["subscribe", "publish"] }]);
        ok(&json!({ "allow": true, "user": "ann", "channels": rights, "subscribe": ["chat:ann"], "expires_in": 600 }))
    });
    let backend = backend.await?;
    let node = node(&backend, &["connect"], &[("FANFARE__HOOKS__HEADERS", "cookie, x-device")]).await?;
    let head = with_cookie("/ws?room=1", "abc").with("X-Device", "tv").with("X-Other", "hidden");
    let (mut wire, response) = handshake(&node, head).await?;
    assert_eq!(response.status, 101, "{response:?}");
    // The token's own subscriptions begin with the connection.
    assert_eq!(serde_json::from_str::<Value>(&wire.message().await?)?["ok"]["channel"], "chat:ann");
    let reply = wire.ask(&command(1, "connect", &json!({}))).await?;
    assert_eq!(reply["ok"]["user"], "ann", "{reply}");
    assert!(reply["ok"]["expires_in"].as_u64().is_some_and(|left| (500..=600).contains(&left)), "{reply}");
    assert!(wire.ask(&subscribe("chat:ann")).await?["ok"].is_object());
    assert_eq!(wire.ask(&subscribe("chat:bob")).await?["error"]["code"], "forbidden");
    let questions = backend.questions();
    let expected = json!({
        "hook": "connect", "path": "/ws", "query": "room=1", "address": "127.0.0.1",
        "headers": { "cookie": "session=abc", "x-device": "tv" },
    });
    assert_eq!((questions.len(), &questions[0].json), (1, &expected));
    let head = questions[0].head.to_lowercase();
    assert!(head.starts_with("post /hooks http/1.1\r\n") && head.contains("content-type: application/json"), "{head}");
    assert!(head.contains(&format!("authorization: bearer {SECRET}\r\n")), "{head}");
    assert!(!node.output().contains("canary") && !node.output().contains("session=abc"), "{}", node.output());
    Ok(())
}

#[tokio::test]
async fn a_client_that_the_backend_does_not_let_in_is_refused_with_its_words() -> Result<()> {
    let backend = Backend::start(by_cookie).await?;
    let node = node(&backend, &["connect"], &[]).await?;
    let (_, response) = handshake(&node, Head::upgrade("/ws")).await?;
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")), "{response:?}");
    assert!(response.body.starts_with("log in first"), "{response:?}");
    backend.answer(|_| ok(&json!({ "allow": false, "message": "you are banned" })));
    let (_, response) = handshake(&node, with_cookie("/raw/a", "ann")).await?;
    assert_eq!(response.status, 403, "{response:?}");
    let events = Events::open(node.address, "/sse?channel=a", &[("Cookie", "session=bob")]).await?;
    assert_eq!(events.status, 403, "{events:?}");
    assert!(!node.output().contains("session="), "{}", node.output());
    Ok(())
}

#[tokio::test]
async fn equal_clients_are_one_question_and_others_another_one() -> Result<()> {
    let backend = Backend::start(by_cookie).await?;
    let node = node(&backend, &["connect"], &[]).await?;
    backend.hold();
    let opening = try_join_all((0..100).map(|_| handshake(&node, with_cookie("/ws", "ann"))));
    let release = async {
        backend.asked(1).await?;
        backend.release();
        Ok(())
    };
    let (opened, ()) = tokio::try_join!(opening, release)?;
    assert!(opened.iter().all(|(_, response)| response.status == 101));
    assert_eq!(backend.questions().len(), 1);
    let (mut wire, _) = handshake(&node, with_cookie("/ws", "ann")).await?;
    assert_eq!(wire.ask(&command(1, "connect", &json!({}))).await?["ok"]["user"], "ann", "the answer is kept");
    let (mut wire, _) = handshake(&node, with_cookie("/ws", "bob")).await?;
    assert_eq!(wire.ask(&command(1, "connect", &json!({}))).await?["ok"]["user"], "bob");
    assert_eq!(backend.questions().len(), 2);
    Ok(())
}

#[tokio::test]
async fn event_streams_and_posted_messages_are_asked_about_like_sockets() -> Result<()> {
    let backend = Backend::start(by_cookie).await?;
    let node = node(&backend, &["connect"], &[("FANFARE__HTTP__PUBLISH", "true")]).await?;
    let refused = Events::open(node.address, "/sse?channel=a", &[]).await?;
    assert_eq!(refused.status, 401);
    let mut events = Events::open(node.address, "/sse?channel=a", &[("Cookie", "session=ann")]).await?;
    assert_eq!(events.status, 200);
    let post = |cookie: &str| {
        let body = r#"{"channel":"a","data":"hello"}"#;
        let length = body.len();
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{cookie}Content-Length: {length}\r\n\r\n{body}")
    };
    for (cookie, status) in [("", 401), ("Cookie: session=ann\r\n", 200)] {
        let mut stream = tokio::net::TcpStream::connect(node.address).await?;
        let answer = http::ask(&mut stream, &post(cookie)).await?;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert!(events.event().await?.data.contains("hello"));
    let paths: Vec<_> = backend.questions().iter().map(|question| question.json["path"].clone()).collect();
    assert_eq!(paths, ["/sse", "/sse", "/publish", "/publish"]);
    // A page of another site cannot use the cookie that its visitor's browser sends.
    let foreign = [("Cookie", "session=ann"), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(Events::open(node.address, "/sse?channel=a", &foreign).await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn clients_with_a_token_are_not_asked_about_also_if_it_comes_in_the_first_message() -> Result<()> {
    let backend = Backend::start(by_cookie).await?;
    let (variable, keys) = Issuer::keys();
    let node = node(&backend, &["connect"], &[(variable, &keys)]).await?;
    let token = Issuer::new()?.token("ann", &[])?;
    let (mut wire, _) = handshake(&node, Head::upgrade("/ws").with("Authorization", format!("Bearer {token}"))).await?;
    assert_eq!(wire.ask(&command(1, "connect", &json!({}))).await?["ok"]["user"], "ann");
    assert_eq!(backend.questions().len(), 0);
    // The backend refuses this one, so only its token counts.
    let mut wire = Wire::open(node.address, "/ws").await?;
    assert_eq!(wire.ask(&subscribe("a")).await?["error"]["code"], "unauthorised");
    let reply = wire.ask(&command(1, "connect", &json!({ "token": token }))).await?;
    assert_eq!(reply["ok"]["user"], "ann", "{reply}");
    let (mut wire, _) = handshake(&node, with_cookie("/ws", "bob")).await?;
    assert_eq!(wire.ask(&command(1, "connect", &json!({}))).await?["ok"]["user"], "bob");
    Ok(())
}

#[tokio::test]
async fn a_node_that_others_can_reach_starts_with_a_connect_hook_alone() -> Result<()> {
    let backend = Backend::start(by_cookie).await?;
    let mut node = node(&backend, &["connect"], &[("FANFARE__HTTP__LISTEN", "0.0.0.0:0")]).await?;
    node.address.set_ip([127, 0, 0, 1].into());
    let (_, response) = handshake(&node, Head::upgrade("/raw/a")).await?;
    assert_eq!(response.status, 401, "{response:?}");
    let (mut wire, response) = handshake(&node, with_cookie("/raw/a", "ann")).await?;
    assert_eq!(response.status, 101, "{response:?}");
    wire.send(Frame::text("hello").bytes()).await?;
    assert_eq!(wire.message().await?, "hello");
    Ok(())
}
