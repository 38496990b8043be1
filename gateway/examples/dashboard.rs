//! A live dashboard: what a backend posts appears in all open pages at once.
//!
//! Run `cargo run --example dashboard`, open <http://127.0.0.1:3000/>, and post values from a shell:
//! `curl -d 'orders 12' http://127.0.0.1:3000/metrics-in`.
//!
//! What to look at: `measured` is an HTTP handler that publishes to all sockets of the route `/live`; a new socket first gets the last
//! values from the shared state. This state is in the memory of this process: with several processes (`--broker`), pages of all of
//! them get each post, but only the process that received a post shows it to pages that open later.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use fanfare::axum::Router;
use fanfare::axum::extract::State;
use fanfare::axum::http::StatusCode;
use fanfare::axum::routing::post;
use fanfare::{App, ExitCode, Html, Publisher, Socket};

/// The most values on the dashboard.
const MOST: usize = 50;

/// The last value of each name.
#[derive(Default)]
struct Board {
    /// Rises with each change, so that pages can leave out a message that was overtaken by a later one.
    version: u64,
    values: BTreeMap<String, f64>,
}

type Shared = Arc<Mutex<Board>>;

impl Board {
    /// The version, and a line for each value.
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.version);
        for (name, value) in &self.values {
            writeln!(text, "{name} {value}").expect("writing to a text succeeds");
        }
        text
    }
}

fn main() -> ExitCode {
    let board = Shared::default();
    let mut app = App::new();
    app.get("/", async || Html(include_str!("dashboard.html")));
    let state = (Arc::clone(&board), app.publisher());
    app.router(Router::new().route("/metrics-in", post(measured)).with_state(state));
    app.ws("/live", async move |mut socket: Socket| {
        let now = board.lock().expect("no thread panics while it holds this lock").text();
        socket.send(now)?;
        while socket.recv().await.is_some() {}
        Ok(())
    });
    app.run("127.0.0.1:3000")
}

/// Takes `NAME VALUE`, such as `orders 12`. Protect this route in a real app.
async fn measured(State((board, publisher)): State<(Shared, Publisher)>, body: String) -> (StatusCode, String) {
    let Some((name, value)) = parsed(&body) else {
        return (StatusCode::BAD_REQUEST, "Post NAME VALUE, such as `orders 12`.\n".to_owned());
    };
    let text = {
        let mut board = board.lock().expect("no thread panics while it holds this lock");
        if board.values.len() >= MOST && !board.values.contains_key(name) {
            return (StatusCode::BAD_REQUEST, format!("The dashboard has room for {MOST} names.\n"));
        }
        board.values.insert(name.to_owned(), value);
        board.version += 1;
        board.text()
    };
    match publisher.broadcast("/live", text).await {
        Ok(()) => (StatusCode::OK, "Published.\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}. Post again.\n")),
    }
}

fn parsed(body: &str) -> Option<(&str, f64)> {
    let (name, value) = body.trim().split_once(' ')?;
    let value = value.parse().ok().filter(|value: &f64| value.is_finite())?;
    (1..=40).contains(&name.len()).then_some((name, value))
}
