//! A client that records: everything that comes, in order, and how the connection ended.
//!
//! Native, raw, or a socket of the echo server, with the same words for all. Owns one connection and its task, which
//! reads for as long as the client lives. Never reconnects: that is for the test to do.

mod frame;
mod record;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

pub use self::frame::{Ended, Frame};
use self::record::{Progress, Record, State, keep};
use crate::PATIENCE;
use crate::door::Door;
use crate::history::Outcome;

/// The channel that all sockets of the echo server share.
pub const ECHO: &str = "/ws/echo";

/// Frames that wait for the connection; a sender waits while there are so many.
const OUTGOING: usize = 64;

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

impl Client {
    /// Connects to `/ws` with `fanfare.v1`; `url` is `http://HOST:PORT`.
    pub async fn native(url: &str) -> Result<Self> {
        Self::connect(url, "/ws", Speaks::Native, None).await
    }

    /// The same with a token.
    pub async fn with_token(url: &str, token: &str) -> Result<Self> {
        Self::connect(url, "/ws", Speaks::Native, Some(token)).await
    }

    /// Connects to `/raw/{channel}`.
    pub async fn raw(url: &str, channel: &str) -> Result<Self> {
        Self::connect(url, &format!("/raw/{channel}"), Speaks::Raw(channel.to_owned()), None).await
    }

    /// Connects to the echo server's `/ws/echo`.
    pub async fn echo(url: &str) -> Result<Self> {
        Self::connect(url, ECHO, Speaks::Echo, None).await
    }

    /// Connects to `/ws` with `fanfare.v1`, through a balancer's door.
    pub async fn native_at(door: &Door) -> Result<Self> {
        Self::shake_hands(door, "/ws", Speaks::Native, None).await
    }

    async fn connect(url: &str, path: &str, speaks: Speaks, token: Option<&str>) -> Result<Self> {
        let address = url.strip_prefix("http://").context("a URL begins with http://")?;
        Self::shake_hands(&Door::resolved(address).await?, path, speaks, token).await
    }

    async fn shake_hands(door: &Door, path: &str, speaks: Speaks, token: Option<&str>) -> Result<Self> {
        let host = door.host();
        let mut request = format!("ws://{host}{path}").into_client_request()?;
        if matches!(speaks, Speaks::Native) {
            request.headers_mut().insert("sec-websocket-protocol", "fanfare.v1".parse()?);
        }
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
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

    /// Gives the node a new token (native), and gives the reply.
    pub async fn refresh(&self, token: &str) -> Result<Value> {
        self.accepted(json!({ "refresh": { "token": token } })).await
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

    /// All that came so far, and when.
    #[must_use]
    pub fn arrivals(&self) -> Vec<(Instant, Frame)> {
        let state = self.record.lock();
        state.came.iter().copied().zip(state.frames.iter().cloned()).collect()
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

    /// The milliseconds after which it was asked to come back, as the last that came.
    pub fn hint(&self) -> Result<u64> {
        let frames = self.frames();
        let Some(Frame::Other(last)) = frames.last() else { bail!("no hint, but {:?}", frames.last()) };
        let hint: Value = serde_json::from_str(last)?;
        hint["reconnect"]["after_ms"].as_u64().with_context(|| format!("no hint, but {last}"))
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

    /// Looks again after every change, for as long as messages come. Pings, which come for ever, are no reason to wait on.
    async fn wait<T>(&self, what: &str, mut look: impl FnMut(&State, Progress) -> Option<T>) -> Result<T> {
        let mut progress = self.record.progress.subscribe();
        let (mut messages, mut deadline) = (0, Instant::now() + PATIENCE);
        loop {
            let now = *progress.borrow_and_update();
            if now.messages > messages {
                (messages, deadline) = (now.messages, Instant::now() + PATIENCE);
            }
            let found = look(&self.record.lock(), now);
            match found {
                Some(found) => return Ok(found),
                None if now.ended => bail!("{what} will not come: the connection ended with {:?}", self.ended_as()),
                None => {}
            }
            let state = || format!("waiting for {what} on {:?}, after {now:?}", self.node);
            timeout_at(deadline.into(), progress.changed()).await.with_context(state)?.with_context(state)?;
        }
    }
}
