//! Everyone on a board sees the mice of all others.
//!
//! Run `cargo run --example cursors`, open <http://127.0.0.1:3000/> in two windows beside each other, and move the mouse.
//! `/#plans` is another board. With `--broker redis://localhost` several processes are one app.
//!
//! What to look at: `cursors` checks what a client sends before others get it; the page sends at most 20 positions a second, and
//! derives each client's colour from its id. The broker stores each position as a message, so send only what people can see.

use std::sync::atomic::{AtomicU64, Ordering};

use fanfare::{App, ExitCode, Html, Outcome, Socket};

/// How many clients this process has had.
static CLIENTS: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let mut app = App::new();
    app.get("/", async || Html(include_str!("cursors.html")));
    app.ws("/boards/{board}", cursors);
    app.run("127.0.0.1:3000")
}

async fn cursors(mut socket: Socket) -> Outcome {
    let board = socket.param("board").unwrap_or_default().to_owned();
    // The node's name makes the id differ from those of other processes.
    let id = format!("{}-{}", socket.node(), CLIENTS.fetch_add(1, Ordering::Relaxed));
    socket.send(format!("you {id}"))?;
    socket.join(&board)?;
    socket.send_to(&board, format!("joined {id}")).await?;
    while let Some(message) = socket.recv().await {
        match position(&message.to_string()) {
            Some((x, y)) => socket.send_to(&board, format!("at {id} {x:.4} {y:.4}")).await?,
            None => socket.close_with(4400, "send two numbers from 0 to 1, such as `0.5 0.25`"),
        }
    }
    Ok(socket.send_to(&board, format!("left {id}")).await?)
}

/// A position as parts of the board's width and height.
fn position(text: &str) -> Option<(f64, f64)> {
    let (x, y) = text.split_once(' ')?;
    let part = |text: &str| text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    Some((part(x)?, part(y)?))
}
