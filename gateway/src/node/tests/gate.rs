//! Decisions that take time delay later commands of the same connection, and nothing else.

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::*;
use crate::gate::{Backend, Decision, Identity, Policy, Question, Right};
use crate::protocol::Failure;

/// Waits for a permit before it decides about channels named `slow…` and about the path `/raw/late`. Then it allows all
/// of them whose name does not end in `no`.
struct Slow(Arc<Semaphore>);

impl Judge for Slow {
    fn judge(&self, _identity: &Arc<Identity>, question: Question<'_>) -> Decision {
        let allowed = match question {
            Question::Subscribe { channel } | Question::Publish { channel, .. } if channel.starts_with("slow") => {
                !channel.ends_with("no")
            }
            Question::Connect { path: "/raw/late" } => true,
            _ => return Decision::Now(Ok(Policy::default())),
        };
        let permits = Arc::clone(&self.0);
        Decision::Later(Box::pin(async move {
            permits.acquire().await.expect("never closed").forget();
            if allowed { Ok(Policy::default().into()) } else { Err(Failure::new("forbidden", "not this channel")) }
        }))
    }

    fn judge_backend(&self, _backend: &Backend, _right: Right, _channel: &str) -> Result<Option<usize>, Failure> {
        Ok(None)
    }
}

async fn start_slow() -> (Node, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let (node, _) = start_with(App::gateway(), Some(Box::new(Slow(Arc::clone(&permits))))).await;
    (node, permits)
}

#[tokio::test]
async fn commands_after_a_pending_decision_wait_in_order_and_other_connections_go_on() {
    let (node, permits) = start_slow().await;
    let (mut waiting, mut other) = (connect(&node, "/ws").await, connect(&node, "/ws").await);
    for command in [
        r#"{"id":1,"subscribe":{"channel":"slow"}}"#,
        r#"{"id":2,"publish":{"channel":"slow","data":1}}"#,
        r#"{"id":3,"subscribe":{"channel":"slow-no"}}"#,
        r#"{"id":4,"ping":{}}"#,
    ] {
        say(&mut waiting, command).await;
    }
    say(&mut other, r#"{"id":5,"ping":{}}"#).await;
    assert_eq!(next(&mut other).await, r#"{"id":5,"ok":{}}"#);
    assert!(waiting.try_read(&mut [0; 1]).is_err(), "commands are not answered before the decision");
    permits.add_permits(3);
    let mut answers = Vec::new();
    while answers.len() < 5 {
        answers.push(next(&mut waiting).await);
    }
    // The reply to the publish and the message itself may come in either order.
    let place = |what: &str| answers.iter().position(|answer| answer.contains(what)).expect(what);
    assert!(place(r#"{"id":1,"ok":"#) == 0 && place(r#""data":1"#) > 0 && place(r#"{"id":2,"ok":"#) > 0);
    let (refused, pong) = (place(r#"{"id":3,"error":{"code":"forbidden""#), place(r#"{"id":4,"ok":"#));
    assert!(0 < refused && refused < pong, "{answers:?}");
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}

#[tokio::test]
async fn a_handshake_waits_for_its_decision() {
    let (node, permits) = start_slow().await;
    let mut late = Box::pin(connect(&node, "/raw/late"));
    assert!(late.as_mut().now_or_never().is_none());
    let mut other = connect(&node, "/raw/now").await;
    say(&mut other, "hello").await;
    assert_eq!(next(&mut other).await, "hello");
    assert!(late.as_mut().now_or_never().is_none(), "the decision is still pending");
    permits.add_permits(1);
    let mut late = late.await;
    say(&mut late, "here").await;
    assert_eq!(next(&mut late).await, "here");
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}

#[tokio::test]
async fn a_handshake_that_is_not_allowed_gets_403_with_the_reason() {
    let (node, permits) = start_slow().await;
    permits.add_permits(1);
    let mut stream = TcpStream::connect(node.address).await.expect("it listens");
    let request = handshake("/raw/slow-no").replace("Upgrade\r\n", "Upgrade, close\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is open");
    let answer = String::from_utf8_lossy(&rest(&mut stream).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("not this channel\n"), "{answer}");
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}

#[tokio::test]
async fn a_draining_node_answers_pending_commands_before_it_closes_the_connection() {
    let (node, permits) = start_slow().await;
    let mut client = connect(&node, "/ws").await;
    say(&mut client, r#"{"id":1,"publish":{"channel":"slow","data":1}}"#).await;
    let stopping = node.stop(Duration::ZERO, std::future::pending());
    let (in_order, all) = tokio::join!(stopping, async {
        sleep(Duration::from_millis(50)).await;
        permits.add_permits(1);
        rest(&mut client).await
    });
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(in_order && all.contains(r#"{"id":1,"ok":{"#) && all.contains("reconnect"), "{all}");
}
