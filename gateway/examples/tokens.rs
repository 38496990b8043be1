//! A language model's answer, word by word, which goes on after a reload and in a second tab.
//!
//! Run `cargo run --example tokens`, open <http://127.0.0.1:3000/>, and ask. While the text comes, load the page again, and copy its
//! address into a second tab.
//!
//! What to look at: `answer` stores each token before it publishes it; a new socket joins the answer's room before it reads what is
//! stored. So a socket can get a token twice but never miss one, and the number of each token lets the page skip a repeat. The answers
//! are in the memory of this process. A cluster uses the gateway's channels instead, which keep the tokens: docs/ai-streams.md.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare::axum::Router;
use fanfare::axum::extract::State;
use fanfare::axum::http::StatusCode;
use fanfare::axum::routing::post;
use fanfare::{App, ExitCode, Html, Outcome, Publisher, Socket};

/// The number of answers that are kept, finished or not. The oldest makes room for a new one.
const KEPT: usize = 100;

/// What the stand-in for a model says.
const TEXT: &str = "A gateway holds the connections, so that your backend need not. The backend publishes a message once; \
    the broker stores it and gives it a place in the log; every node passes it on: “à tous”, “для всех”, 🎺. That is all.";

struct Answer {
    id: String,
    tokens: Vec<String>,
    done: bool,
}

#[derive(Clone, Default)]
struct Answers(Arc<Mutex<VecDeque<Answer>>>);

impl Answers {
    /// What `look` returns for an answer; `None` if it is not kept.
    fn with<T>(&self, id: &str, look: impl FnOnce(&mut Answer) -> T) -> Option<T> {
        let mut answers = self.0.lock().expect("no thread panics while it holds this lock");
        answers.iter_mut().find(|answer| answer.id == id).map(look)
    }

    fn add(&self, id: String) {
        let mut answers = self.0.lock().expect("no thread panics while it holds this lock");
        answers.truncate(KEPT - 1);
        answers.push_front(Answer { id, tokens: Vec::new(), done: false });
    }
}

fn main() -> ExitCode {
    let answers = Answers::default();
    let mut app = App::new();
    app.get("/", async || Html(include_str!("tokens.html")));
    let state = (answers.clone(), app.publisher());
    app.router(Router::new().route("/ask", post(ask)).with_state(state));
    app.ws("/answers/{id}", async move |socket: Socket| listen(socket, &answers).await);
    app.run("127.0.0.1:3000")
}

/// Starts an answer and returns its id.
async fn ask(State((answers, publisher)): State<(Answers, Publisher)>) -> Result<String, (StatusCode, String)> {
    let id = random().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    answers.add(id.clone());
    tokio::spawn(answer(answers, publisher, id.clone()));
    Ok(id)
}

/// Writes an answer, as a model does. Ends early when the answer is no longer kept.
async fn answer(answers: Answers, publisher: Publisher, id: String) {
    for token in TEXT.split_inclusive(' ') {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let stored = answers.with(&id, |answer| {
            answer.tokens.push(token.to_owned());
            answer.tokens.len()
        });
        let Some(number) = stored else { return };
        // If this fails, the page notices the gap at the next token, and connects again.
        let _ = publisher.send_to(&id, format!("token {number}\n{token}")).await;
    }
    if let Some(count) = answers.with(&id, |answer| {
        answer.done = true;
        answer.tokens.len()
    }) {
        let _ = publisher.send_to(&id, format!("end {count}\n")).await;
    }
}

/// Sends what is written so far. The room brings the rest.
async fn listen(mut socket: Socket, answers: &Answers) -> Outcome {
    let id = socket.param("id").unwrap_or_default().to_owned();
    socket.join(&id)?;
    let so_far = answers.with(&id, |answer| (answer.tokens.len(), answer.tokens.concat(), answer.done));
    let Some((count, text, done)) = so_far else {
        socket.close_with(4404, "this answer is not kept");
        return Ok(());
    };
    socket.send(format!("text {count}\n{text}"))?;
    if done {
        socket.send(format!("end {count}\n"))?;
    }
    while socket.recv().await.is_some() {}
    Ok(())
}

/// 128 random bits, which cannot be guessed.
fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
