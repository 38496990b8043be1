//! Backends that are down, slow, wrong or overloaded, and what happens to everyone else meanwhile.

use std::time::Duration;

use futures_util::future::try_join_all;
use tests::backend::{Reply, ok};
use tests::latency::Beat;
use tests::wire::Frame;

use super::*;

fn yes() -> Reply {
    ok(&json!({ "allow": true }))
}

/// Asks a node until the reply is as wanted.
async fn until(wire: &mut Wire, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let asked = async {
        loop {
            let reply = wire.ask(what).await?;
            if wanted(&reply) {
                return anyhow::Ok(reply);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(tests::PATIENCE, asked).await.with_context(|| format!("no such reply to {what}"))?
}

#[tokio::test]
async fn answers_that_are_none_keep_the_fail_rule_and_are_logged_without_what_was_said() -> Result<()> {
    for (reply, words) in [
        ((500, "canary".to_owned()), "status 500"),
        ((403, "canary".to_owned()), "status 403"),
        ((302, "canary".to_owned()), "redirects"),
        ((200, "{\"allow\":\"canary\"}".to_owned()), "cannot be used"),
        ((200, "{\"allow\":true,\"canary\":1}".to_owned()), "cannot be used"),
        ((200, "x".repeat(1 << 20)), "larger than"),
    ] {
        let backend = Backend::start(move |_| reply.clone()).await?;
        let node = asking(&backend, &[("FANFARE__HOOKS__FAIL_OPEN", "subscribe")]).await?;
        let mut wire = Wire::open(node.address, "/ws").await?;
        assert!(wire.ask(&subscribe("room")).await?["ok"].is_object(), "{words}");
        let error = wire.ask(&publish("room", "canary")).await?["error"].take();
        assert_eq!((&error["code"], &error["retry"]), (&"unavailable".into(), &true.into()), "{words}: {error}");
        let line = node.line("no valid answer").await?;
        assert!(line.contains(words), "{line}");
        assert!(!node.output().contains("canary"), "{}", node.output());
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_that_is_down_is_left_alone_after_some_failures_and_asked_again_when_it_is_back() -> Result<()> {
    let backend = Backend::start(|_| yes()).await?;
    let node = asking(&backend, &[]).await?;
    let mut wire = Wire::open(node.address, "/ws").await?;
    assert!(wire.ask(&subscribe("room")).await?["ok"].is_object());
    for round in 0..2 {
        backend.answer(|_| (503, String::new()));
        let open = "fanfare_hook_breaker_open{hook=\"publish\"}";
        let mut refused = 0;
        while metric(&node, open).await? == 0 {
            assert_eq!(wire.ask(&publish("room", 1)).await?["error"]["code"], "unavailable");
            refused += 1;
            assert!(refused <= 100, "it never opens");
        }
        let asked = backend.questions().len();
        let begin = std::time::Instant::now();
        for _ in 0..50 {
            assert_eq!(wire.ask(&publish("room", 1)).await?["error"]["code"], "unavailable");
        }
        // A test may be due within that time, then after twice as long, and so on.
        let tests = begin.elapsed().as_secs() as usize + 1;
        assert!(backend.questions().len() <= asked + tests, "it is not left alone");
        backend.answer(|_| yes());
        until(&mut wire, &publish("free", 1), |reply| reply["ok"].is_object()).await?;
        let mut other = Wire::open(node.address, "/ws").await?;
        until(&mut other, &publish("room", 1), |reply| reply["ok"].is_object()).await?;
        assert_eq!(metric(&node, open).await?, 0, "round {round}");
        // What was published meanwhile.
        wire = Wire::open(node.address, "/ws").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_that_does_not_listen_is_asked_again_when_it_does() -> Result<()> {
    let backend = Backend::start(|_| yes()).await?;
    let node = asking(&backend, &[]).await?;
    let mut wire = Wire::open(node.address, "/ws").await?;
    assert!(wire.ask(&publish("room", 1)).await?["ok"].is_object());
    let address = backend.address;
    drop(backend);
    until(&mut wire, &publish("room", 1), |reply| reply["error"]["code"] == "unavailable").await?;
    let _backend = Backend::start_at(address, |_| yes()).await?;
    until(&mut wire, &publish("room", 1), |reply| reply["ok"].is_object()).await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_backend_delays_only_those_that_ask_it() -> Result<()> {
    let backend = Backend::start(|_| yes()).await?;
    let node = asking(&backend, &[("FANFARE__HOOKS__TIMEOUT", "10s")]).await?;
    let beat = Beat { channel: "free", messages: 100, pace: Duration::from_millis(5), size: 64 };
    let others = try_join_all((0..20).map(|_| Wire::open(node.address, "/raw/free"))).await?;
    // The first messages also warm up both sides.
    let (others, _) = beat.p99(node.address, others).await?;
    let (others, before) = beat.p99(node.address, others).await?;
    backend.hold();
    // As many as the backend gets at a time, and some that wait for their turn.
    let mut asking = try_join_all((0..120).map(|_| Wire::open(node.address, "/ws"))).await?;
    for wire in &mut asking {
        wire.send(Frame::text(publish("room", 1)).bytes()).await?;
    }
    backend.asked(100).await?;
    assert_eq!(metric(&node, "fanfare_hook_requests_in_flight{hook=\"publish\"}").await?, 100);
    let (_, meanwhile) = beat.p99(node.address, others).await?;
    println!("the p99 of others: {before:?}, while the backend is slow: {meanwhile:?}");
    // The machine may be busy with something else; the backend's slowness would add seconds.
    assert!(meanwhile <= 3 * before + Duration::from_millis(200), "{before:?}, then {meanwhile:?}");
    backend.release();
    for wire in &mut asking {
        let reply: Value = serde_json::from_str(&wire.message().await?)?;
        assert!(reply["ok"].is_object() || reply["error"]["code"] == "overloaded", "{reply}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_none_and_too_many_questions_are_refused_also_if_they_fail_open() -> Result<()>
{
    let backend = Backend::start(|_| yes()).await?;
    let slow = [
        ("FANFARE__HOOKS__TIMEOUT", "3s"),
        ("FANFARE__HOOKS__MAX_CONCURRENT", "1"),
        ("FANFARE__HOOKS__FAIL_OPEN", "publish"),
    ];
    let node = asking(&backend, &slow).await?;
    let (mut first, mut second) = (Wire::open(node.address, "/ws").await?, Wire::open(node.address, "/ws").await?);
    backend.hold();
    first.send(Frame::text(publish("room", 1)).bytes()).await?;
    backend.asked(1).await?;
    let what = publish("room", 2);
    let (reply, second) = tokio::try_join!(first.message(), second.ask(&what))?;
    let first: Value = serde_json::from_str(&reply)?;
    assert!(first["ok"].is_object(), "it fails open: {first}");
    assert_eq!(second["error"]["code"], "overloaded", "{second}");
    assert_eq!(metric(&node, "fanfare_hook_requests_total{hook=\"publish\",came=\"timeout\"}").await?, 1);
    assert_eq!(metric(&node, "fanfare_hook_questions_total{hook=\"publish\",outcome=\"failed_open\"}").await?, 1);
    Ok(())
}
