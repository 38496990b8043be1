//! The demo app: every message goes to every client of every node.

use fanfare::{App, ExitCode, Html, Redirect};

fn main() -> ExitCode {
    let mut app = App::new();

    app.get("/", async || Redirect::to("/ws"));
    app.get("/ws", async || Html(include_str!("page.html")));

    app.ws("/ws/echo", async |socket| {
        socket.each(async |socket, message| socket.broadcast(format!("Received: {message}")).await).await
    })
    .resumable();

    app.run("127.0.0.1:3000")
}
