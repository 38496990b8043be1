//! A protocol that is added with one file and one line in the list works like the others.

use super::*;

#[tokio::test]
async fn a_new_protocol_needs_no_change_elsewhere() {
    let (node, faulty) = start(App::gateway()).await;
    let (mut shout, mut raw) = (connect(&node, "/shout/news").await, connect(&node, "/raw/news").await);
    say(&mut shout, "hello").await;
    assert_eq!(next(&mut shout).await, "HELLO");
    assert_eq!(next(&mut raw).await, "hello");
    faulty.memory.wipe();
    assert_eq!(next(&mut shout).await, "LOST MESSAGES OF NEWS (RESET)");
    let end = rest(&mut raw).await;
    assert_eq!(
        end.get(2..4),
        Some(&4411_u16.to_be_bytes()[..]),
        "the raw protocol cannot report lost messages: {end:?}"
    );
    say(&mut shout, "still here").await;
    assert_eq!(next(&mut shout).await, "STILL HERE");
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}
