//! All that came over one connection, in order, with its time, and the callers that wait for something to come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::frame::{Ended, Frame, Incoming, native};
use super::{ECHO, Speaks};
use crate::door::Line;

/// What one connection has brought so far.
#[derive(Debug, Default)]
pub(super) struct Record {
    state: Mutex<State>,
    /// Grows with every change.
    pub(super) progress: watch::Sender<Progress>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Progress {
    pub(super) messages: usize,
    pub(super) ended: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) frames: Vec<Frame>,
    /// When each of them came.
    pub(super) came: Vec<Instant>,
    /// The callers that wait for a reply, by its number.
    pub(super) replies: HashMap<u64, oneshot::Sender<Value>>,
    /// The callers that wait for this message.
    pub(super) heard: HashMap<String, oneshot::Sender<()>>,
    pub(super) last_id: u64,
    pub(super) ended: Option<Ended>,
}

impl Record {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self, speaks: &Speaks, text: &str) {
        let frame = match speaks {
            Speaks::Native => match native(text) {
                Incoming::Frame(frame) => frame,
                Incoming::Reply(id, reply) => {
                    if let Some(asked) = self.lock().replies.remove(&id) {
                        // The caller may have given up.
                        let _ = asked.send(reply);
                    }
                    return;
                }
            },
            Speaks::Raw(channel) => Frame::Message { channel: channel.clone(), data: text.to_owned(), at: None },
            Speaks::Echo => match text.strip_prefix("Received: ") {
                Some(data) => Frame::Message { channel: ECHO.to_owned(), data: data.to_owned(), at: None },
                None => Frame::Other(text.to_owned()),
            },
        };
        let mut state = self.lock();
        let is_message = match &frame {
            Frame::Message { data, .. } => {
                if let Some(waiting) = state.heard.remove(data) {
                    let _ = waiting.send(());
                }
                true
            }
            _ => false,
        };
        state.frames.push(frame);
        state.came.push(Instant::now());
        drop(state);
        self.progress.send_modify(|progress| progress.messages += usize::from(is_message));
    }

    fn ended(&self, ended: Ended) {
        let mut state = self.lock();
        state.ended = Some(ended);
        // Callers that still wait get no reply.
        state.replies.clear();
        state.heard.clear();
        drop(state);
        self.progress.send_modify(|progress| progress.ended = true);
    }
}

/// Reads and writes until the connection or the client ends.
pub(super) async fn keep(
    mut socket: WebSocketStream<Box<dyn Line>>,
    mut outgoing: mpsc::Receiver<Message>,
    speaks: Speaks,
    record: Arc<Record>,
) {
    let mut ended = Ended::Broken;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => record.text(&speaks, &text),
                Some(Ok(Message::Close(frame))) => {
                    ended = frame.map_or(Ended::Closed(1005, String::new()), |frame| {
                        Ended::Closed(frame.code.into(), frame.reason.to_string())
                    });
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            message = outgoing.recv() => match message {
                Some(message) => {
                    // A socket that cannot be written to is about to say so to its reader.
                    let _ = socket.send(message).await;
                }
                None => return,
            },
        }
    }
    // First, so that whatever was sent is among what the end takes back.
    drop(outgoing);
    record.ended(ended);
}
