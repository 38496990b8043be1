//! An application's backend that answers hooks: a real HTTP server in this process, whose behaviour the test chooses.
//!
//! Keeps connections, as real servers do. Ends when dropped.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::PATIENCE;

/// A question as it came.
#[derive(Debug, Clone)]
pub struct Question {
    /// The request's head.
    pub head: String,
    /// The request's body.
    pub json: Value,
    /// The same as it came.
    pub body: Vec<u8>,
    /// The number of the connection that it came on, from 0.
    pub connection: usize,
}

/// What the backend answers: a status and a body.
pub type Reply = (u16, String);

type Answers = dyn Fn(&Question) -> Reply + Send + Sync;

/// The backend.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    answers: Mutex<Arc<Answers>>,
    questions: watch::Sender<Vec<Question>>,
    /// While this is true, no question is answered.
    held: watch::Sender<bool>,
}

/// An answer with status 200.
#[must_use]
pub fn ok(json: &Value) -> Reply {
    (200, json.to_string())
}

impl Backend {
    /// Starts a backend that answers like this.
    pub async fn start(answers: impl Fn(&Question) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into(), answers).await
    }

    /// The same on an address where another one has stopped.
    pub async fn start_at(
        address: SocketAddr,
        answers: impl Fn(&Question) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (questions, held) = (watch::Sender::new(Vec::new()), watch::Sender::new(false));
        let state = Arc::new(State { answers: Mutex::new(Arc::new(answers)), questions, held });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state, accepting })
    }

    /// The URL of its hooks.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// Answers like this from now on.
    pub fn answer(&self, answers: impl Fn(&Question) -> Reply + Send + Sync + 'static) {
        *self.state.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
    }

    /// From now on answers no question, until [`release`](Self::release).
    pub fn hold(&self) {
        self.state.held.send_replace(true);
    }

    /// Answers all questions.
    pub fn release(&self) {
        self.state.held.send_replace(false);
    }

    /// All questions so far.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        self.state.questions.borrow().clone()
    }

    /// Waits until so many questions have come.
    pub async fn asked(&self, count: usize) -> Result<Vec<Question>> {
        let mut questions = self.state.questions.subscribe();
        let enough = timeout(PATIENCE, questions.wait_for(|all| all.len() >= count)).await;
        Ok(enough.with_context(|| format!("{count} questions do not come"))??.clone())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut open = JoinSet::new();
    for connection in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let state = Arc::clone(&state);
        // An error means that the node has closed the connection, or that the backend has stopped.
        open.spawn(async move { serve(stream, &state, connection).await.is_ok() });
    }
}

async fn serve(mut stream: TcpStream, state: &State, connection: usize) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the connection ended");
        };
        let rest = bytes.split_off(head);
        let head = String::from_utf8(std::mem::replace(&mut bytes, rest))?;
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.context("a body has a length")?;
        while bytes.len() < length {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the connection ended");
        }
        let rest = bytes.split_off(length);
        let body = std::mem::replace(&mut bytes, rest);
        let question = Question { head, json: serde_json::from_slice(&body)?, body, connection };
        state.questions.send_modify(|all| all.push(question.clone()));
        state.held.subscribe().wait_for(|held| !held).await?;
        let answers = Arc::clone(&state.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let (status, body) = answers(&question);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Status\r\nLocation: /other\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await?;
    }
}
