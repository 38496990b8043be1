//! `fanfare publish`: publishes a message, or each line of stdin, one after the other.
//!
//! Each message has a key, so a repeat after a cut or an unknown outcome is delivered once. The next message is sent only
//! when the last one is stored, so messages keep their order.

use std::io::{self, BufRead as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::credential::token;
use super::print_line;
use super::telemetry::print_error;
use crate::client::{Backoff, Closed, End, Endpoint, Session};
use crate::close::CloseReason;
use crate::config::parse_duration;

/// The exit code if a message is stored or not.
pub const UNKNOWN: u8 = 3;
/// The exit codes of `fanfare publish`, for its help.
pub const EXIT: &str = "Exit code: 0 the broker has stored all messages; 1 the last one is surely not stored; 2 a mistake in this \
                        command line; 3 the last one is stored or not.";
/// Lines of stdin that are read before they are sent.
const LINES: usize = 64;

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// The node or the balancer.
    #[command(flatten)]
    endpoint: Endpoint,
    /// Name of the channel.
    #[arg(value_name = "CHANNEL")]
    channel: String,
    /// The message; without it, or with -, each line of stdin is one.
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// The messages are JSON; otherwise they are texts.
    #[arg(long)]
    json: bool,
    /// Key of the message: it is delivered once, however often it is published with this key. Only with TEXT [default: random].
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Token of the client: - reads it from stdin, @FILE from a file.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// How long to try for each message, such as 30s.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    /// Print the node's reply for each message, with its position.
    #[arg(long)]
    verbose: bool,
}

/// A message whose outcome is not known.
#[derive(Debug, thiserror::Error)]
#[error(
    "not confirmed within --timeout, so it is stored or not: {why}. Publish it again with --key {key}: it is delivered once"
)]
pub struct Unknown {
    key: String,
    why: String,
}

/// Publishes all messages, or fails with the first one that is not stored.
pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let stdin = options.text.as_deref().is_none_or(|text| text == "-");
    if stdin && options.key.is_some() {
        bail!("--key is the key of one message: give the message as TEXT");
    }
    if stdin && options.token.as_deref() == Some("-") {
        bail!("stdin has the messages: give the token as --token @FILE");
    }
    let token = options.token.as_deref().map(|given| token(given, io::stdin())).transpose()?;
    let mut publisher = Publisher { options, token, session: None, backoff: Backoff::default(), noted: false };
    if let (false, Some(text)) = (stdin, &options.text) {
        publisher.publish(text).await?;
        publisher.leave().await;
        return Ok(());
    }
    let mut lines = lines();
    let mut number = 0_u64;
    while let Some(line) = publisher.line(&mut lines).await {
        number += 1;
        let line = line.context("cannot read stdin")?;
        publisher.publish(&line).await.with_context(|| format!("line {number}"))?;
    }
    publisher.leave().await;
    Ok(())
}

/// The lines of stdin, read on a thread of their own: the end of the program does not wait for it.
fn lines() -> mpsc::Receiver<io::Result<String>> {
    let (sender, lines) = mpsc::channel(LINES);
    thread::spawn(move || io::stdin().lock().lines().try_for_each(|line| sender.blocking_send(line)));
    lines
}

struct Publisher<'a> {
    options: &'a Options,
    token: Option<String>,
    session: Option<Session>,
    backoff: Backoff,
    /// Whether the first failure has been printed.
    noted: bool,
}

/// One attempt to publish a message.
enum Attempt {
    Stored(Value),
    /// Another attempt may succeed, after a wait if the node names one. `sent` is whether the message may be stored.
    Again {
        why: String,
        sent: bool,
        wait: Option<Duration>,
    },
    /// No attempt will succeed. `sent` is whether this one may be stored.
    Refused {
        why: String,
        sent: bool,
    },
}

/// The command's content. `data` is passed on as it is.
#[derive(Serialize)]
struct Publish<'a> {
    channel: &'a str,
    data: &'a RawValue,
    key: &'a str,
}

impl Publisher<'_> {
    /// The next line. Until it comes, the connection answers the node's pings.
    async fn line(&mut self, lines: &mut mpsc::Receiver<io::Result<String>>) -> Option<io::Result<String>> {
        loop {
            let Some(session) = &mut self.session else { return lines.recv().await };
            tokio::select! {
                biased;
                line = lines.recv() => return line,
                frame = session.next() => if frame.is_err() {
                    self.session = None;
                },
            }
        }
    }

    /// Publishes a message, and repeats that with the same key until the outcome is certain or the time is over.
    async fn publish(&mut self, text: &str) -> anyhow::Result<()> {
        let options = self.options;
        let data = match options.json {
            true => RawValue::from_string(text.to_owned()).context("the message is not JSON")?,
            false => serde_json::value::to_raw_value(text)?,
        };
        let key = options.key.clone().unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
        let publish = Publish { channel: &options.channel, data: &data, key: &key };
        let command = format!(r#"{{"id":1,"publish":{}}}"#, serde_json::to_string(&publish)?);
        let end = Instant::now() + options.timeout;
        let mut may_be_stored = false;
        let failed = |why, may_be_stored| match may_be_stored {
            true => Err(Unknown { key: key.clone(), why }.into()),
            false => Err(anyhow!("not stored: {why}")),
        };
        loop {
            let (why, wait) = match self.attempt(&command, end).await {
                Attempt::Stored(ok) => {
                    self.backoff.reset();
                    return if options.verbose { print_line(&ok) } else { Ok(()) };
                }
                Attempt::Refused { why, sent } => return failed(why, may_be_stored || sent),
                Attempt::Again { why, sent, wait } => {
                    may_be_stored |= sent;
                    (why, wait)
                }
            };
            let wait = wait.unwrap_or_else(|| self.backoff.next());
            if Instant::now() + wait >= end {
                return failed(why, may_be_stored);
            }
            if !self.noted {
                self.noted = true;
                print_error(&format!("{why}; trying again until --timeout\n"));
            }
            sleep(wait).await;
        }
    }

    async fn attempt(&mut self, command: &str, end: Instant) -> Attempt {
        if self.session.is_none() {
            let opened = timeout_at(end, Session::open(&self.options.endpoint, self.token.as_deref())).await;
            let late = |_| Attempt::Again { why: "no connection in time".to_owned(), sent: false, wait: None };
            match opened.map_err(late) {
                Ok(Ok(session)) => self.session = Some(session),
                Ok(Err(closed)) => return refused(&closed),
                Err(late) => return late,
            }
        }
        let Some(session) = &mut self.session else { unreachable!("it was opened above") };
        match timeout_at(end, exchange(session, command)).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(end)) => {
                self.session = None;
                ended(&end)
            }
            Err(_) => Attempt::Again { why: "no reply in time".to_owned(), sent: true, wait: None },
        }
    }

    async fn leave(self) {
        if let Some(session) = self.session {
            session.leave().await;
        }
    }
}

/// Sends the command and waits for its reply.
async fn exchange(session: &mut Session, command: &str) -> Result<Attempt, End> {
    session.send(command).await?;
    loop {
        let frame = session.next().await?;
        if frame.id != Some(1) {
            continue;
        }
        return Ok(match frame.error {
            None => Attempt::Stored(frame.ok.unwrap_or_default()),
            Some(error) if !error.retry => Attempt::Refused { why: error.to_string(), sent: false },
            Some(error) => Attempt::Again {
                why: error.to_string(),
                sent: error.code == "unknown",
                wait: error.retry_after_ms.map(Duration::from_millis),
            },
        });
    }
}

/// What the end of the connection says of the message that was sent on it.
fn ended(end: &End) -> Attempt {
    let why = format!("the connection was ended {}", end.words());
    match end {
        // The node has not taken such a message.
        End::Close(Some(frame)) if matches!(frame.code, 1003 | 1007 | 1009) => Attempt::Refused { why, sent: false },
        End::Close(Some(frame)) if frame.code == 4401 || !CloseReason::reconnect_after(frame.code) => {
            Attempt::Refused { why, sent: true }
        }
        _ => Attempt::Again { why, sent: true, wait: None },
    }
}

fn refused(closed: &Closed) -> Attempt {
    match closed.may_pass() {
        true => Attempt::Again { why: closed.to_string(), sent: false, wait: None },
        false => Attempt::Refused { why: closed.to_string(), sent: false },
    }
}
