//! Three connections that are held for a while, to see what ends idle ones.
//!
//! *Quiet* sends nothing of its own and answers the server's pings, as a page in a browser does. *Pinged* also sends a ping every
//! second. *Mute* answers nothing at all. At the end of the time each is asked once whether it is still alive.
//! Decides nothing: [`judge`](super::judge) does.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};

use super::door::{Door, STEP};
use super::socket::{End, Heard, Socket};
use super::step::Trouble;
use crate::codec::Opcode;

/// Time between the pings of the connection that sends some: shorter than any time-out that is worth a name, since a
/// cut between two pings would look like one that traffic does not prevent.
pub(super) const PING: Duration = Duration::from_secs(1);

/// Connections that are opened at most until three are on one node; beyond that any three will do.
const MOST: usize = 40;

/// What was seen of one connection.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Watch {
    /// Where it was, where that is known.
    pub(super) node: Option<String>,
    /// From the 101 to its end, or to the end of the watch.
    #[serde(rename = "life_ms", serialize_with = "milliseconds")]
    pub(super) life: Duration,
    /// How long no byte had gone either way when it ended.
    #[serde(rename = "silence_ms", serialize_with = "milliseconds")]
    pub(super) silence: Duration,
    /// How it ended.
    #[serde(serialize_with = "words")]
    pub(super) end: Ending,
    /// The server's first ping, after so long.
    #[serde(rename = "first_ping_ms", serialize_with = "some_milliseconds")]
    pub(super) first_ping: Option<Duration>,
    /// Since when, at the end, a ping of the server had no answer.
    #[serde(rename = "unanswered_ms", serialize_with = "some_milliseconds")]
    pub(super) unanswered: Option<Duration>,
    /// Messages that came.
    pub(super) messages: u32,
}

/// How a watch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The server answered at the end.
    Open,
    /// Nobody had ended it, and nobody answered: something on the way has forgotten it.
    Silent,
    /// It was ended.
    Ended(End),
}

/// The three of them.
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
        Ending::Ended(End::Broken(_) | End::Nonsense(_)) => serializer.serialize_str("error"),
    }
}

/// Opens the three and holds them.
pub(super) async fn hold(door: &Door<'_>, idle: Duration) -> Result<Held, Trouble> {
    let [quiet, pinged, mute] = three(door).await?;
    let (quiet, pinged, mute) = tokio::join!(
        watch(quiet, idle, true, None),
        watch(pinged, idle, true, Some(PING.min(idle / 4))),
        watch(mute, idle, false, None)
    );
    Ok(Held { quiet, pinged, mute })
}

/// Three connections, on one node where nodes can be told apart: a node that restarts then ends all of them, and does not
/// look like a time-out of the one that it had.
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
    let (mut last, mut asked) = (begin, None);
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
                tell(&mut socket, Opcode::Ping, b"").await.err()
            }
            Err(_) => None,
            Ok(Err(end)) => Some(end),
            Ok(Ok(heard)) => {
                last = Instant::now();
                match heard {
                    Heard::Ping(payload) => {
                        seen.first_ping.get_or_insert(begin.elapsed());
                        asked.get_or_insert(last);
                        if answers {
                            asked = None;
                            tell(&mut socket, Opcode::Pong, &payload).await.err()
                        } else {
                            None
                        }
                    }
                    Heard::Text(text) if !text.starts_with(r#"{"ping":"#) => {
                        seen.messages += 1;
                        None
                    }
                    Heard::Binary => {
                        seen.messages += 1;
                        None
                    }
                    Heard::Text(_) | Heard::Pong => None,
                }
            }
        };
    }
    (seen.life, seen.silence) = (begin.elapsed(), last.elapsed());
    seen.unanswered = asked.map(|asked| asked.elapsed());
    seen.end = match ended {
        Some(end) => Ending::Ended(end),
        None => alive(socket).await,
    };
    seen
}

/// Whether a ping is answered. An end that shows only now was there before: whoever has forgotten a connection says so,
/// if at all, when it is used.
async fn alive(mut socket: Socket) -> Ending {
    let answer = async {
        socket.send(Opcode::Ping, b"alive?").await?;
        loop {
            match socket.next().await? {
                Heard::Pong => return Ok(()),
                Heard::Ping(payload) => socket.send(Opcode::Pong, &payload).await?,
                Heard::Text(_) | Heard::Binary => {}
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

async fn tell(socket: &mut Socket, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
    let late = |_| End::Broken("nothing can be sent".to_owned());
    timeout(STEP, socket.send(opcode, payload)).await.map_err(late)?
}
