//! A WebSocket endpoint that sends every message back, for Autobahn: `echo-endpoint --listen ADDR`, path `/echo`. The path
//! has a page too, and with `?protocol` the socket first says which subprotocol was agreed on.
//!
//! An app like any other, with room for the suite's largest messages (16 MiB) and most fragments (one per 64 bytes).

#![allow(clippy::print_stdout, reason = "it says where it listens")]

use std::time::Duration;

use anyhow::Context;
use fanfare::config::load;
use fanfare::node::Node;
use fanfare::program::cli;
use fanfare::{App, Socket};
use tokio::signal::unix::{SignalKind, signal};

/// What the suite needs beyond the defaults; the process's own environment wins.
const ROOM: [(&str, &str); 5] = [
    ("FANFARE__LIMITS__MESSAGE", "64MiB"),
    ("FANFARE__LIMITS__OUTBOX", "128MiB"),
    ("FANFARE__LIMITS__OUTBOX_TOTAL", "512MiB"),
    ("FANFARE__LIMITS__FRAGMENTS", "1000000"),
    // No message of the suite is published, but any could be.
    ("FANFARE__BROKER__IN_FLIGHT_BYTES", "256MiB"),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = cli::parse(&cli::Name::new(None, &arguments), arguments).unwrap_or_else(|error| error.exit());
    let cli::Command::Serve { file, overrides } = command else {
        anyhow::bail!("echo-endpoint only serves");
    };
    let room = ROOM.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = load(file.as_deref(), room.into_iter().chain(cli::environment()), overrides)?;
    let mut app = App::new();
    app.get("/echo", async || "a page\n");
    let socket = app.ws("/echo", async |mut socket: Socket| {
        if socket.query() == "protocol" {
            socket.send(socket.protocol().unwrap_or("none"))?;
        }
        while let Some(message) = socket.recv().await {
            socket.send(message)?;
        }
        Ok(())
    });
    socket.protocols(&["echo.v2", "echo.v1"]);
    let mut terminate = signal(SignalKind::terminate())?;
    let node = Node::start(app, config, "echo-endpoint".to_owned())?;
    println!("echo-endpoint listens on http://{}", node.address);
    terminate.recv().await.context("no signal will come")?;
    node.stop(Duration::ZERO, std::future::pending()).await;
    Ok(())
}
