//! The demo app: every message goes to every client of every node.

use std::process::ExitCode;

use fanfare::{App, Html, Redirect, Socket};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut app = App::new();

    app.get("/", async || Redirect::to("/ws"));
    app.get("/ws", async || Html(include_str!("page.html")));

    app.ws("/ws/echo", async |mut socket: Socket| {
        // The page asks for the node's name with `?node`. All other clients receive only messages.
        if socket.query() == "node" {
            socket.send(format!("Connected to {}", socket.node()))?;
        }
        while let Some(message) = socket.recv().await {
            socket.broadcast(format!("Received: {message}")).await?;
        }
        Ok(())
    });

    app.run("127.0.0.1:3000").await
}
