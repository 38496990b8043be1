//! A chat with rooms and a log-in.
//!
//! Run `cargo run --example chat`, open <http://127.0.0.1:3000/> in two browsers (or one private window), and log in as `ann` and
//! `bob`, both with the password `fanfare`.
//!
//! What to look at: `log_in` sets a cookie; `guard` lets only clients with this cookie open a socket, and attaches the name; `chat` serves
//! one socket. Sessions are in the memory of this process. With several processes (`--broker`), keep them in your database.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use fanfare::axum::extract::State;
use fanfare::axum::http::{StatusCode, header};
use fanfare::axum::response::{IntoResponse, Response};
use fanfare::axum::routing::post;
use fanfare::axum::{Json, Router};
use fanfare::{App, ExitCode, Html, Outcome, Socket, UpgradeRequest};

/// Names and passwords. A real app keeps hashes of passwords, in a database.
const USERS: [(&str, &str); 3] = [("ann", "fanfare"), ("bob", "fanfare"), ("eve", "fanfare")];

/// The session of each user. A new log-in ends the earlier session for new sockets.
type Sessions = Arc<Mutex<HashMap<String, String>>>;

/// The user of a socket, attached by the guard.
struct Member(String);

fn main() -> ExitCode {
    let sessions = Sessions::default();
    let mut app = App::new();
    app.get("/", async || Html(include_str!("chat.html")));
    app.router(Router::new().route("/login", post(log_in)).with_state(Arc::clone(&sessions)));
    app.ws("/rooms/{room}", chat).guard(async move |request: &UpgradeRequest| {
        let user = request.cookie("session").and_then(|session| user(&sessions, session));
        user.map(Member).ok_or((StatusCode::UNAUTHORIZED, "Log in first.\n"))
    });
    app.run("127.0.0.1:3000")
}

async fn chat(mut socket: Socket) -> Outcome {
    let name = socket.attached::<Member>().map_or_else(String::new, |member| member.0.clone());
    let room = socket.param("room").unwrap_or_default().to_owned();
    socket.join(&room)?;
    socket.send_to(&room, format!("{name} joined")).await?;
    while let Some(message) = socket.recv().await {
        socket.send_to(&room, format!("{name}: {message}")).await?;
    }
    // This client has gone; the others are still there.
    Ok(socket.send_to(&room, format!("{name} left")).await?)
}

/// Answers `{"name": …, "password": …}` with a cookie.
async fn log_in(State(sessions): State<Sessions>, Json(form): Json<HashMap<String, String>>) -> Response {
    let text = |field: &str| form.get(field).map_or("", String::as_str);
    if !USERS.contains(&(text("name"), text("password"))) {
        return (StatusCode::UNAUTHORIZED, "The name or the password is wrong.\n").into_response();
    }
    let session = match random() {
        Ok(session) => session,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    // Add `Secure` when the page is served over HTTPS.
    let cookie = format!("session={session}; Path=/; HttpOnly; SameSite=Strict");
    lock(&sessions).insert(text("name").to_owned(), session);
    ([(header::SET_COOKIE, cookie)], "Welcome.\n").into_response()
}

/// The user of a session.
fn user(sessions: &Sessions, session: &str) -> Option<String> {
    lock(sessions).iter().find(|(_, known)| *known == session).map(|(name, _)| name.clone())
}

/// 128 random bits, which cannot be guessed.
fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

fn lock(sessions: &Sessions) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
    sessions.lock().expect("no thread panics while it holds this lock")
}
