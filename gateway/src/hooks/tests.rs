//! What the gate makes of a backend that does not answer, and of settings that cannot be used.

use std::cell::Cell;
use std::net::TcpListener;

use broker_adapters::Payload;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::gate::{Decision, Identity, Judge, Question, Rules, Visitor};
use crate::protocol::Failure;

/// A configuration whose backend is a port of this machine that nothing listens on.
fn unreachable(lines: &str) -> Config {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    backend_at(port, lines)
}

fn backend_at(port: u16, lines: &str) -> Config {
    let url = format!("http://127.0.0.1:{port}/");
    let rules = "[[channels]]\nmatch = \"free\"\nsubscribe = \"anyone\"\n\
                 [[channels]]\nmatch = \"*\"\nsubscribe = \"hook\"\npublish = \"hook\"\n";
    let text = format!("[hooks]\nconnect = {url:?}\nsubscribe = {url:?}\npublish = {url:?}\n{lines}\n{rules}");
    toml::from_str(&text).expect("valid")
}

/// A gate, and what asks its backend.
fn gate(config: &Config) -> Result<(Gate, Asking), HooksError> {
    let auth = Auth::new(config).expect("no keys");
    let made = Hooks::new(config, &auth, || 1_800_000_000_000, &Arc::default())?.expect("there are hooks");
    Ok((Gate::new(Rules::new(config), made.0, 1000), made.1))
}

async fn ask(gate: &Gate, question: Question<'_>) -> Result<(), Failure> {
    match gate.judge(&Identity::anonymous(), question) {
        Decision::Now(verdict) => verdict.map(drop),
        Decision::Later(pending) => pending.await.map(drop),
    }
}

async fn introduce(gate: &Gate) -> Result<Arc<Identity>, Failure> {
    let address = [127, 0, 0, 1].into();
    let visitor = Visitor { path: "/ws", query: None, address, headers: &HeaderMap::new(), cookies: true };
    gate.introduce(&visitor).expect("it has the hook").await
}

#[tokio::test]
async fn without_a_backend_what_fails_closed_is_refused_for_now_and_what_fails_open_is_allowed() {
    let (gate, asking) = gate(&unreachable("fail_open = [\"connect\", \"subscribe\"]")).expect("usable");
    let payload = &Payload::Text("hi".into());
    let asked = async {
        // More often than the breaker waits for.
        for _ in 0..10 {
            let refused = ask(&gate, Question::Publish { channel: "chat", payload }).await.expect_err("it is closed");
            assert!(refused.code == "unavailable" && refused.retry, "{refused:?}");
            assert_eq!(ask(&gate, Question::Subscribe { channel: "chat" }).await, Ok(()));
            assert!(introduce(&gate).await.is_ok_and(|identity| identity.user().is_none()));
        }
        let decided = gate.judge(&Identity::anonymous(), Question::Publish { channel: "chat", payload });
        assert!(matches!(decided, Decision::Now(Err(_))), "the breaker is open");
        assert_eq!(ask(&gate, Question::Subscribe { channel: "free" }).await, Ok(()));
        let refused = ask(&gate, Question::History { channel: "chat" }).await.expect_err("by the rules");
        assert_eq!(refused.code, "unauthorised");
    };
    tokio::select! {
        () = asking.run() => unreachable!("it runs for ever"),
        () = asked => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_asks_the_backend_ends_by_its_own_time_also_if_it_fails_open() {
    let (gate, _asking) = gate(&unreachable("fail_open = [\"subscribe\"]")).expect("usable");
    let begin = tokio::time::Instant::now();
    let refused = ask(&gate, Question::Subscribe { channel: "chat" }).await.expect_err("nothing is asked");
    assert_eq!((refused.code, begin.elapsed().as_secs()), ("overloaded", 3));
}

/// Answers all questions about `chat`, for ever, and counts them.
async fn answering(listener: tokio::net::TcpListener, count: &Cell<usize>, answer: &str) {
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut bytes = Vec::new();
        // The node may close a connection that it does not need.
        while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
            if bytes.ends_with(b"\"channel\":\"chat\"}") {
                bytes.clear();
                count.set(count.get() + 1);
                stream.write_all(reply.as_bytes()).await.expect("it is read");
            }
        }
    }
}

#[tokio::test]
async fn equal_questions_at_one_time_are_one_request_though_no_answer_is_kept() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = backend_at(listener.local_addr().expect("a port").port(), "");
    let (gate, asking) = gate(&config).expect("usable");
    let question = Question::Subscribe { channel: "chat" };
    // Nothing is sent before all have asked.
    let all = (0..100).map(|_| gate.judge(&Identity::anonymous(), question)).map(|decision| match decision {
        Decision::Later(pending) => pending,
        Decision::Now(verdict) => panic!("decided without the backend: {verdict:?}"),
    });
    let all: Vec<_> = all.collect();
    let count = Cell::new(0);
    let asked = async {
        assert!(join_all(all).await.iter().all(Result::is_ok));
        assert_eq!(count.get(), 1);
        assert_eq!(ask(&gate, question).await, Ok(()));
        assert_eq!(count.get(), 2, "the answer was not kept");
    };
    tokio::select! {
        () = asking.run() => unreachable!("it runs for ever"),
        () = answering(listener, &count, "{\"allow\":true,\"ttl\":0}") => unreachable!("it runs for ever"),
        () = asked => {}
    }
}

#[test]
fn settings_that_no_request_can_carry_are_refused() {
    for (lines, expected) in [
        ("headers = [\"x y\"]", HooksError::Header("x y".to_owned())),
        ("secret = \"base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"", HooksError::Secret),
    ] {
        assert_eq!(gate(&unreachable(lines)).map(drop), Err(expected), "{lines}");
    }
}
