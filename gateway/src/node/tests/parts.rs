//! Parts of a node that panic, end, or hang: each has its bounded effect and is named.

use std::task::{Wake, Waker};

use tokio::io::AsyncReadExt;

use super::*;
use crate::app::socket::Socket;
use crate::node::health::NotReady;

/// Panics when it is woken.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a fault in a connection's task");
    }
}

#[tokio::test]
async fn a_panic_in_a_connections_task_closes_only_that_socket_with_1011() {
    let mut app = App::new();
    app.ws("/bomb", async |mut socket: Socket| {
        let waker = Waker::from(Arc::new(Bomb));
        let mut receiving = Box::pin(socket.recv());
        assert!(receiving.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        std::future::pending().await
    });
    app.ws("/echo", async |mut socket: Socket| {
        while let Some(message) = socket.recv().await {
            socket.send(message)?;
        }
        Ok(())
    });
    let (node, _) = start(app).await;
    let (mut bomb, mut other) = (connect(&node, "/bomb").await, connect(&node, "/echo").await);
    say(&mut bomb, "boom").await;
    let end = rest(&mut bomb).await;
    assert_eq!(end.get(2..4), Some(&1011_u16.to_be_bytes()[..]), "{end:?}");
    say(&mut other, "still here").await;
    let mut echo = [0; 12];
    other.read_exact(&mut echo).await.expect("it is open");
    assert!(echo.ends_with(b"still here"));
    assert_eq!(node.core.health.ready(), Ok(()));
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}

#[tokio::test]
async fn a_worker_that_hangs_makes_the_node_not_ready_and_is_named() {
    let mut app = App::new();
    app.ws("/sleep", async |_socket: Socket| {
        std::thread::sleep(2 * vitals::PATIENCE + 4 * vitals::ROUND);
        Ok(())
    });
    let (node, _) = start(app).await;
    let _sleeper = connect(&node, "/sleep").await;
    let named = |why: NotReady| matches!(why, NotReady::Part(why) if why.contains("worker-0 has not answered"));
    until(|| node.core.health.ready().is_err_and(named)).await;
    until(|| node.core.health.ready().is_ok()).await;
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}

#[tokio::test]
async fn a_tail_that_panics_ends_the_node_and_its_clients_are_asked_to_reconnect() {
    let (node, faulty) = start(App::gateway()).await;
    let mut client = connect(&node, "/ws").await;
    faulty.reads_panic.store(true, Ordering::Relaxed);
    assert_eq!(timeout(PATIENT, node.failed()).await.expect("it is noticed"), "the broker's tail has ended");
    assert_eq!(node.core.health.ready(), Err(NotReady::Part("the broker's tail has ended".to_owned())));
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
    let end = rest(&mut client).await;
    let code = 1012_u16.to_be_bytes();
    assert!(end.windows(2).any(|bytes| bytes == code), "{}", String::from_utf8_lossy(&end));
}

#[tokio::test]
async fn a_publisher_that_panics_ends_the_node() {
    let (node, faulty) = start(App::gateway()).await;
    let mut client = connect(&node, "/raw/news").await;
    faulty.appends_panic.store(true, Ordering::Relaxed);
    say(&mut client, "a message").await;
    assert_eq!(timeout(PATIENT, node.failed()).await.expect("it is noticed"), "the publisher has ended");
    assert!(node.stop(Duration::ZERO, std::future::pending()).await);
}
