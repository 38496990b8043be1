//! A client that records: everything that comes, in order, and how the connection ended.
//!
//! Native, raw, or a socket of the echo server, with the same words for all. Owns one connection and its task, which
//! reads for as long as the client lives. Never reconnects: that is for the test to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::PATIENCE;
use crate::door::{Door, Line};
use crate::history::Outcome;

/// The channel that all sockets of the echo server share.
pub const ECHO: &str = "/ws/echo";

/// Frames that wait for the connection; a sender waits while there are so many.
const OUTGOING: usize = 64;

/// Something that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message {
        /// Of this channel.
        channel: String,
        /// A text as it is, anything else as JSON.
        data: String,
        /// Its position, where the protocol tells it.
        at: Option<String>,
    },
    /// The word that messages of a channel are lost.
    Lost {
        /// The channel.
        channel: String,
        /// The last position before the gap.
        after: String,
        /// Why.
        reason: String,
    },
    /// Anything else.
    Other(String),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With a close frame, which had this code and this text.
    Closed(u16, String),
    /// Without one.
    Broken,
}

#[derive(Debug, Clone)]
enum Speaks {
    Native,
    Raw(String),
    Echo,
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    /// The node that the connection is on, where the balancer says so.
    pub node: String,
    speaks: Speaks,
    outgoing: mpsc::Sender<Message>,
    record: Arc<Record>,
}

#[derive(Debug, Default)]
struct Record {
    state: Mutex<State>,
    /// Grows with every change.
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    messages: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Frame>,
    /// The callers that wait for a reply, by its number.
    replies: HashMap<u64, oneshot::Sender<Value>>,
    /// The callers that wait for this message.
    heard: HashMap<String, oneshot::Sender<()>>,
    last_id: u64,
    ended: Option<Ended>,
}

impl Client {
    /// Connects to `/ws` with `fanfare.v1`; `url` is `http://HOST:PORT`.
    pub async fn native(url: &str) -> Result<Self> {
        Self::connect(url, "/ws", Speaks::Native).await
    }

    /// Connects to `/raw/{channel}`.
    pub async fn raw(url: &str, channel: &str) -> Result<Self> {
        Self::connect(url, &format!("/raw/{channel}"), Speaks::Raw(channel.to_owned())).await
    }

    /// Connects to the echo server's `/ws/echo`.
    pub async fn echo(url: &str) -> Result<Self> {
        Self::connect(url, ECHO, Speaks::Echo).await
    }

    /// Connects to `/ws` with `fanfare.v1`, through a balancer's door.
    pub async fn native_at(door: &Door) -> Result<Self> {
        Self::shake_hands(door, "/ws", Speaks::Native).await
    }

    async fn connect(url: &str, path: &str, speaks: Speaks) -> Result<Self> {
        let address = url.strip_prefix("http://").context("a URL begins with http://")?;
        Self::shake_hands(&Door::resolved(address).await?, path, speaks).await
    }

    async fn shake_hands(door: &Door, path: &str, speaks: Speaks) -> Result<Self> {
        let host = door.host();
        let mut request = format!("ws://{host}{path}").into_client_request()?;
        if matches!(speaks, Speaks::Native) {
            request.headers_mut().insert("sec-websocket-protocol", "fanfare.v1".parse()?);
        }
        let connected = async { Ok(client_async(request, door.open().await?).await?) };
        let connected: Result<_> = timeout(PATIENCE, connected).await.context("no answer")?;
        let (socket, response) = connected.with_context(|| format!("cannot connect to {host}{path}"))?;
        let node = response.headers().get("x-backend").map_or(Ok(""), |node| node.to_str())?.to_owned();
        let (outgoing, from) = mpsc::channel(OUTGOING);
        let record = Arc::new(Record::default());
        tokio::spawn(keep(socket, from, speaks.clone(), Arc::clone(&record)));
        Ok(Self { node, speaks, outgoing, record })
    }

    /// Sends a native command with a new number, and gives the reply.
    pub async fn ask(&self, mut command: Value) -> Result<Value> {
        let (sender, reply) = oneshot::channel();
        let id = {
            let mut state = self.record.lock();
            state.last_id += 1;
            let id = state.last_id;
            state.replies.insert(id, sender);
            id
        };
        command["id"] = id.into();
        self.send(command.to_string()).await?;
        let reply = timeout(PATIENCE, reply).await.with_context(|| format!("no reply to {command}"))?;
        reply.with_context(|| format!("the connection ended ({:?}) before the reply to {command}", self.ended_as()))
    }

    /// Subscribes (native), and gives the reply.
    pub async fn subscribe(&self, channel: &str) -> Result<Value> {
        self.accepted(json!({ "subscribe": { "channel": channel } })).await
    }

    /// Subscribes (native) to what comes after a position, and gives the reply.
    pub async fn resume(&self, channel: &str, since: &str) -> Result<Value> {
        self.accepted(json!({ "subscribe": { "channel": channel, "since": since } })).await
    }

    /// Unsubscribes (native), and gives the reply.
    pub async fn unsubscribe(&self, channel: &str) -> Result<Value> {
        self.accepted(json!({ "unsubscribe": { "channel": channel } })).await
    }

    async fn accepted(&self, command: Value) -> Result<Value> {
        let mut reply = self.ask(command).await?;
        if reply["ok"].is_null() {
            bail!("refused: {reply}");
        }
        Ok(reply["ok"].take())
    }

    /// Publishes, and says how it ended. A raw or an echo socket has its answer when it hears itself, so payloads must be
    /// unique there; any socket whose connection ends first has none.
    pub async fn publish(&self, channel: &str, data: &str) -> Result<Outcome> {
        match &self.speaks {
            Speaks::Native => {
                let command = json!({ "publish": { "channel": channel, "data": data } });
                let reply = self.ask(command).await;
                let reply = match reply {
                    Err(_) if !self.is_open() => return Ok(Outcome::Unknown),
                    reply => reply?,
                };
                match reply["error"]["code"].as_str() {
                    None if reply["ok"].is_object() => Ok(Outcome::Acknowledged),
                    Some("rejected" | "overloaded" | "unavailable") => Ok(Outcome::Failed),
                    Some("unknown") => Ok(Outcome::Unknown),
                    _ => bail!("an odd reply to a publish: {reply}"),
                }
            }
            Speaks::Raw(own) if own != channel => bail!("a socket on {own} cannot publish on {channel}"),
            Speaks::Raw(_) | Speaks::Echo => {
                let (sender, heard) = oneshot::channel();
                self.record.lock().heard.insert(data.to_owned(), sender);
                if self.send(data).await.is_err() {
                    return Ok(Outcome::Unknown);
                }
                let heard = timeout(PATIENCE, heard).await.with_context(|| format!("{data} never came back"))?;
                Ok(if heard.is_ok() { Outcome::Acknowledged } else { Outcome::Unknown })
            }
        }
    }

    /// Sends a text frame as it is.
    pub async fn send(&self, text: impl Into<String>) -> Result<()> {
        let sent = self.outgoing.send(Message::text(text.into())).await;
        sent.ok().with_context(|| format!("the connection ended: {:?}", self.ended_as()))
    }

    /// Closes, and waits for the end.
    pub async fn close(&self) -> Result<Ended> {
        // An error means that it has ended already.
        let _ = self.outgoing.send(Message::Close(None)).await;
        self.ended().await
    }

    /// All that came so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        self.record.lock().frames.clone()
    }

    /// How many messages came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.record.progress.borrow().messages
    }

    /// Whether the connection has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ended_as().is_none()
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn ended_as(&self) -> Option<Ended> {
        self.record.lock().ended.clone()
    }

    /// Waits for the end of the connection.
    pub async fn ended(&self) -> Result<Ended> {
        self.wait("the end of the connection", |_, progress| progress.ended.then_some(())).await?;
        self.ended_as().context("an end has a reason")
    }

    /// Waits for the end of the connection, however long it takes.
    pub async fn lives(&self) {
        // The receiver lives as long as this client.
        let _ = self.record.progress.subscribe().wait_for(|progress| progress.ended).await;
    }

    /// Waits until so many messages came.
    pub async fn messages(&self, count: usize) -> Result<()> {
        let enough = |_: &State, progress: Progress| (progress.messages >= count).then_some(());
        self.wait(&format!("{count} messages"), enough).await
    }

    /// The first frame, past or yet to come, that is as wanted.
    pub async fn meets(&self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let mut looked = 0;
        let find = |state: &State, _| {
            let found = state.frames[looked..].iter().find(|frame| wanted(frame)).cloned();
            looked = state.frames.len();
            found
        };
        let met = timeout(PATIENCE, self.wait(what, find)).await;
        met.with_context(|| format!("{what} did not come, but other things did, on {:?}", self.node))?
    }

    /// Waits for a message with this data.
    pub async fn sees(&self, data: &str) -> Result<()> {
        let wanted = |frame: &Frame| matches!(frame, Frame::Message { data: found, .. } if found == data);
        self.meets(&format!("the message {data:?}"), wanted).await.map(drop)
    }

    /// Looks again after every change, for as long as there are changes.
    async fn wait<T>(&self, what: &str, mut look: impl FnMut(&State, Progress) -> Option<T>) -> Result<T> {
        let mut progress = self.record.progress.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            let found = look(&self.record.lock(), now);
            match found {
                Some(found) => return Ok(found),
                None if now.ended => bail!("{what} will not come: the connection ended with {:?}", self.ended_as()),
                None => {}
            }
            let state = || format!("waiting for {what} on {:?}, after {now:?}", self.node);
            timeout(PATIENCE, progress.changed()).await.with_context(state)?.with_context(state)?;
        }
    }
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, State> {
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

enum Incoming {
    Frame(Frame),
    Reply(u64, Value),
}

fn native(text: &str) -> Incoming {
    let other = || Incoming::Frame(Frame::Other(text.to_owned()));
    let Ok(value) = serde_json::from_str::<Value>(text) else { return other() };
    let string = |value: &Value| value.as_str().map(str::to_owned);
    match (value["id"].as_u64(), string(&value["channel"])) {
        (Some(id), _) => Incoming::Reply(id, value),
        (None, Some(channel)) => match (&value["data"], &value["lost"]) {
            (Value::Null, Value::Object(lost)) => {
                let word = |name: &str| lost.get(name).and_then(string).unwrap_or_default();
                Incoming::Frame(Frame::Lost { channel, after: word("after"), reason: word("reason") })
            }
            (data, Value::Null) => {
                let at = string(&value["at"]);
                Incoming::Frame(Frame::Message { channel, data: string(data).unwrap_or_else(|| data.to_string()), at })
            }
            _ => other(),
        },
        _ => other(),
    }
}

/// Reads and writes until the connection or the client ends.
async fn keep(
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
