//! Holds three connections for a while, to see what ends idle ones.
//!
//! *Quiet* only answers the server's pings, as a page in a browser does. *Pinged* also sends a ping every second.
//! *Mute* answers nothing at all. When the time is over, each connection sends one ping to see whether it is alive.
//! Only records what happened; [`judge`](super::judge) draws the conclusions.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};

use crate::client::{Door, End, Incoming, STEP, Socket, Trouble};
use crate::codec::Opcode;

/// Time between the pings of *pinged*. It must be shorter than every realistic time-out: a time-out between two pings
/// would look like one that traffic does not prevent.
pub(super) const PING: Duration = Duration::from_secs(1);

/// Connections to open, at most, until three are on one node. After that, any three are used.
const MOST: usize = 40;

/// What happened on one connection.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Watch {
    /// Its node, if known.
    pub(super) node: Option<String>,
    /// From the 101 to its end, or to the end of the watch.
    #[serde(rename = "life_ms", serialize_with = "milliseconds")]
    pub(super) life: Duration,
    /// Time without traffic in either direction when it ended.
    #[serde(rename = "silence_ms", serialize_with = "milliseconds")]
    pub(super) silence: Duration,
    /// How it ended.
    #[serde(serialize_with = "words")]
    pub(super) end: Ending,
    /// Time from the 101 to the server's first ping.
    #[serde(rename = "first_ping_ms", serialize_with = "some_milliseconds")]
    pub(super) first_ping: Option<Duration>,
    /// At the end, how long a ping of the server had been unanswered.
    #[serde(rename = "unanswered_ms", serialize_with = "some_milliseconds")]
    pub(super) unanswered: Option<Duration>,
    /// Messages received.
    pub(super) messages: u32,
}

/// How a watch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The server answered at the end.
    Open,
    /// It was not closed, but the server did not answer: something on the way has forgotten it.
    Silent,
    /// It was closed.
    Ended(End),
}

/// The three connections.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Held {
    pub(super) quiet: Watch,
    pub(super) pinged: Watch,
    pub(super) mute: Watch,
}

fn milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn some_milliseconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => milliseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

fn words<S: serde::Serializer>(end: &Ending, serializer: S) -> Result<S::Ok, S::Error> {
    match end {
        Ending::Open => serializer.serialize_str("open"),
        Ending::Silent => serializer.serialize_str("dead"),
        Ending::Ended(End::Close(frame)) => {
            serializer.collect_str(&format_args!("close {}", frame.as_ref().map_or(1005, |frame| frame.code)))
        }
        Ending::Ended(End::Fin) => serializer.serialize_str("fin"),
        Ending::Ended(End::Reset) => serializer.serialize_str("reset"),
        Ending::Ended(End::Broken(_) | End::Violation(_)) => serializer.serialize_str("error"),
    }
}

/// Opens the three connections and holds them for `idle`.
pub(super) async fn hold(door: &Door<'_>, idle: Duration) -> Result<Held, Trouble> {
    let [quiet, pinged, mute] = three(door).await?;
    let (quiet, pinged, mute) = tokio::join!(
        watch(quiet, idle, true, None),
        watch(pinged, idle, true, Some(PING.min(idle / 4))),
        watch(mute, idle, false, None)
    );
    Ok(Held { quiet, pinged, mute })
}

/// Opens three connections, on one node if nodes can be distinguished. A node that restarts then ends all three. If it
/// ended only one, the restart would look like a time-out.
async fn three(door: &Door<'_>) -> Result<[Socket; 3], Trouble> {
    let mut sockets = Vec::new();
    let node = loop {
        let socket = door.socket().await?;
        let node = socket.node.clone();
        sockets.push(socket);
        if sockets.iter().filter(|socket| socket.node == node).count() == 3 || sockets.len() == MOST {
            break node;
        }
    };
    sockets.sort_by_key(|socket| socket.node != node);
    for other in sockets.split_off(3) {
        other.leave().await;
    }
    let Ok(three) = sockets.try_into() else { unreachable!("the loop ends with three or more") };
    Ok(three)
}

async fn watch(mut socket: Socket, idle: Duration, answers: bool, pings: Option<Duration>) -> Watch {
    let begin = socket.opened;
    let (mut last, mut unanswered) = (begin, None);
    let mut seen = Watch {
        node: socket.node.take(),
        life: idle,
        silence: Duration::ZERO,
        end: Ending::Open,
        first_ping: None,
        unanswered: None,
        messages: 0,
    };
    let mut due = pings.map(|every| begin + every);
    let mut ended = None;
    while ended.is_none() && begin.elapsed() < idle {
        let wake = due.unwrap_or(begin + idle).min(begin + idle);
        ended = match timeout_at(wake, socket.next()).await {
            Err(_) if due.is_some_and(|due| Instant::now() >= due) => {
                due = pings.map(|every| Instant::now() + every);
                last = Instant::now();
                send(&mut socket, Opcode::Ping, b"").await.err()
            }
            Err(_) => None,
            Ok(Err(end)) => Some(end),
            Ok(Ok(incoming)) => {
                last = Instant::now();
                match incoming {
                    Incoming::Ping(payload) => {
                        seen.first_ping.get_or_insert(begin.elapsed());
                        unanswered.get_or_insert(last);
                        if answers {
                            unanswered = None;
                            send(&mut socket, Opcode::Pong, &payload).await.err()
                        } else {
                            None
                        }
                    }
                    Incoming::Text(text) if !text.starts_with(r#"{"ping":"#) => {
                        seen.messages += 1;
                        None
                    }
                    Incoming::Binary => {
                        seen.messages += 1;
                        None
                    }
                    Incoming::Text(_) | Incoming::Pong => None,
                }
            }
        };
    }
    (seen.life, seen.silence) = (begin.elapsed(), last.elapsed());
    seen.unanswered = unanswered.map(|since| since.elapsed());
    seen.end = match ended {
        Some(end) => Ending::Ended(end),
        None => alive(socket).await,
    };
    seen
}

/// Sends a ping and waits for the answer. A FIN or reset that comes only now counts as [`Ending::Silent`]: a device that has
/// forgotten a connection rejects its packets when it is used again.
async fn alive(mut socket: Socket) -> Ending {
    let answer = async {
        socket.send(Opcode::Ping, b"alive?").await?;
        loop {
            match socket.next().await? {
                Incoming::Pong => return Ok(()),
                Incoming::Ping(payload) => socket.send(Opcode::Pong, &payload).await?,
                Incoming::Text(_) | Incoming::Binary => {}
            }
        }
    };
    match timeout(STEP, answer).await {
        Ok(Ok(())) => {
            socket.leave().await;
            Ending::Open
        }
        Ok(Err(end @ End::Close(_))) => Ending::Ended(end),
        Ok(Err(_)) | Err(_) => Ending::Silent,
    }
}

async fn send(socket: &mut Socket, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
    let late = |_| End::Broken("nothing can be sent".to_owned());
    timeout(STEP, socket.send(opcode, payload)).await.map_err(late)?
}
