//! An app and its sockets: handlers that panic, that are slow, or that send more than a client reads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use fanfare::config::{ByteSize, Config, Http, Limits, Node as Workers, Timing};
use fanfare::node::Node;
use fanfare::{App, Message, Socket, SocketError};
use tests::wire::{self, Frame, PING, Wire};
use tokio::sync::Semaphore;

#[tokio::test]
async fn a_handler_that_panics_ends_its_own_socket_with_1011_and_no_other() -> Result<()> {
    let mut app = App::new();
    app.ws("/echo", async |mut socket: Socket| {
        while let Some(message) = socket.recv().await {
            assert!(message != Message::from("panic"), "as the client wishes");
            socket.send(message)?;
        }
        Ok(())
    });
    app.ws("/at-once", async |socket: Socket| panic!("before {} says anything", socket.peer()));
    app.ws("/error", async |_: Socket| Err("it went wrong".into()));
    let node = Node::start(app, quiet(), "panics".into())?;
    wire::ready(node.address).await?;
    let mut other = Wire::open(node.address, "/echo").await?;
    for path in ["/echo", "/at-once", "/error", "/echo"] {
        let mut wire = Wire::open(node.address, path).await?;
        let _ = wire.send(Frame::text("panic").bytes()).await;
        let end = wire.end().await?;
        assert_eq!((end.code, end.reset), (Some(1011), false), "{path}: {end:?}");
        other.send(Frame::text(path).bytes()).await?;
        assert_eq!(other.message().await?, path, "the other socket is served");
    }
    let closed = wire::get(node.address, "/metrics").await?.body;
    assert!(closed.contains("fanfare_connections_closed_total{reason=\"internal\"} 4\n"), "{closed}");
    drop(other);
    node.stop(Duration::ZERO, std::future::pending()).await;
    Ok(())
}

#[tokio::test]
async fn a_client_that_must_wait_for_the_app_is_not_blamed_for_its_silence() -> Result<()> {
    const MESSAGES: usize = 1_000;
    let gate = Arc::new(Semaphore::new(0));
    let mut app = App::new();
    let shut = Arc::clone(&gate);
    app.ws("/slow", async move |mut socket: Socket| {
        let _open = shut.acquire().await?;
        while let Some(message) = socket.recv().await {
            socket.send(message)?;
        }
        Ok(())
    });
    let second = Duration::from_secs(1);
    let timing = Timing { ping: second, pong: second / 2, ..Timing::default() };
    let limits = Limits { message_time: second, ..Limits::default() };
    let node = Node::start(app, Config { timing, limits, ..quiet() }, "slow".into())?;
    wire::ready(node.address).await?;
    let mut wire = Wire::open(node.address, "/slow").await?;
    let messages: Vec<u8> = (0..MESSAGES).flat_map(|n| Frame::text(n.to_string()).bytes()).collect();
    // All but the end of the last: it is under way for as long as the app is busy.
    let (first, last) = messages.split_at(messages.len() - 1);
    wire.send(first).await?;
    for _ in 0..3 {
        while wire.frame().await?.opcode != PING {}
    }
    gate.add_permits(1);
    wire.send(last).await?;
    for n in 0..MESSAGES {
        assert_eq!(wire.message().await?, n.to_string());
    }
    drop(wire);
    node.stop(Duration::ZERO, std::future::pending()).await;
    Ok(())
}

#[tokio::test]
async fn an_app_that_sends_more_than_an_outbox_waits_for_its_reader() -> Result<()> {
    const MESSAGES: usize = 2_000;
    let refused = Arc::new(Semaphore::new(0));
    let mut app = App::new();
    let full = Arc::clone(&refused);
    app.ws("/much", async move |socket: Socket| {
        let filler = "x".repeat(4 << 10);
        for number in 0..MESSAGES {
            while let Err(error) = socket.send(format!("{number} {filler}")) {
                if error != SocketError::Full {
                    return Err(error.into());
                }
                full.add_permits(1);
                socket.ready().await;
            }
        }
        Ok(())
    });
    let limits = Limits { outbox: ByteSize::kib(128), ..Limits::default() };
    let node = Node::start(app, Config { limits, ..quiet() }, "much".into())?;
    wire::ready(node.address).await?;
    let mut wire = Wire::open(node.address, "/much").await?;
    // The app gets the end before its reader begins.
    let _permit = refused.acquire().await?;
    for number in 0..MESSAGES {
        let message = wire.message().await?;
        assert_eq!(message.split(' ').next(), Some(number.to_string().as_str()));
    }
    assert_eq!(wire.end().await?.code, Some(1000));
    node.stop(Duration::ZERO, std::future::pending()).await;
    Ok(())
}

/// An own node's configuration.
fn quiet() -> Config {
    Config {
        node: Workers { workers: 1, ..Workers::default() },
        http: Http { listen: ([127, 0, 0, 1], 0).into(), ..Http::default() },
        ..Config::default()
    }
}
