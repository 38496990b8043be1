//! `fanfare subscribe`: prints the messages of channels, and goes on from the last one after a cut.
//!
//! Messages go to stdout, everything else to stderr. A slow reader of stdout slows down this client, not the node.

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::credential::token;
use super::signals::Signals;
use super::telemetry::print_error;
use crate::client::{Backoff, End, Endpoint, Frame, Session, tame};
use crate::close::CloseReason;

/// The exit codes of `fanfare subscribe`, for its help.
pub const EXIT: &str = "Exit code: 0 after --count messages, a signal, or the end of stdout's reader; 1 the node cannot be reached \
                        at first, or refuses; 2 a mistake in this command line.";

/// How long to wait before a subscription that was refused for now is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long to wait for another token in the file of --token.
const RENEWED: Duration = Duration::from_secs(30);

/// What to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// The node or the balancer.
    #[command(flatten)]
    endpoint: Endpoint,
    /// Names of the channels.
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,
    /// Begin after this position, with the messages since then. Only with one channel.
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Begin with the last N messages of each channel.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    last: Option<u16>,
    /// Token of the client: - reads it from stdin, @FILE from a file, again at each connect.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Stop after N messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print each message, and each notice of the node, as the JSON object that came.
    #[arg(long)]
    json: bool,
}

/// A channel, and the position after which its next message comes.
#[derive(Debug)]
struct Place {
    /// Of the command that subscribes to it.
    id: u64,
    channel: String,
    at: Option<String>,
    /// When to subscribe again after a refusal that may pass.
    again: Option<Instant>,
}

/// Why a connection is no longer followed.
enum Ending {
    /// All that was asked for has been printed, or nobody reads it.
    Done,
    /// The connection ended; another one may go on.
    Cut { why: String },
    /// The token is no longer good.
    Token,
    /// Going on makes no sense.
    Refused(String),
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        match &end {
            End::Close(Some(frame)) if frame.code == 4401 => Self::Token,
            End::Close(Some(frame)) if !CloseReason::reconnect_after(frame.code) => {
                Self::Refused(format!("the node ended the connection {}", end.words()))
            }
            _ => Self::Cut { why: format!("the connection was ended {}", end.words()) },
        }
    }
}

struct Subscriber<'a, W> {
    options: &'a Options,
    places: Vec<Place>,
    printed: u64,
    /// Whether it has been said that the node gives messages.
    subscribed: bool,
    out: W,
    /// Whether `out` is a terminal, which obeys control characters.
    tame: bool,
    backoff: Backoff,
}

/// Prints messages until there is a reason to stop.
pub(super) async fn run(options: &Options) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let (out, tame) = (io::stdout(), io::stdout().is_terminal());
    let first = (options.channels.len() == 1).then(|| options.since.clone()).flatten();
    if options.since.is_some() && first.is_none() {
        bail!("--since is a position of one channel: name one channel only");
    }
    let mut places: Vec<Place> = Vec::new();
    for (id, channel) in (0..).zip(&options.channels) {
        if places.iter().all(|place| place.channel != *channel) {
            places.push(Place { id, channel: channel.clone(), at: first.clone(), again: None });
        }
    }
    let mut subscriber =
        Subscriber { options, places, printed: 0, subscribed: false, out, tame, backoff: Backoff::default() };
    tokio::select! {
        result = subscriber.follow() => result,
        _ = signals.next() => Ok(()),
    }
}

impl<W: Write> Subscriber<'_, W> {
    /// Connects again and again. Fails if the first attempt fails, or the node refuses.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let (mut connected, mut down) = (false, false);
        let mut token = self.token()?;
        loop {
            let why = match Session::open(&self.options.endpoint, token.as_deref()).await {
                Ok(mut session) => {
                    if down {
                        print_error("connected again\n");
                    }
                    (connected, down) = (true, false);
                    match self.session(&mut session).await {
                        Ending::Done => {
                            session.leave().await;
                            return Ok(());
                        }
                        Ending::Refused(why) => bail!(why),
                        Ending::Cut { why } => why,
                        Ending::Token => self.renew(&mut token).await?,
                    }
                }
                Err(closed) if connected && closed.needs_token() => self.renew(&mut token).await?,
                Err(closed) if !connected || !closed.may_pass() => bail!("{closed}"),
                Err(closed) => closed.to_string(),
            };
            if !down {
                print_error(&format!("{why}; connecting again\n"));
                down = true;
            }
            sleep(self.backoff.next()).await;
        }
    }

    fn token(&self) -> anyhow::Result<Option<String>> {
        self.options.token.as_deref().map(|given| token(given, io::stdin())).transpose()
    }

    /// Replaces a token that the node refuses. Only a file can come to hold another one.
    async fn renew(&self, old: &mut Option<String>) -> anyhow::Result<String> {
        let end = Instant::now() + RENEWED;
        while self.options.token.as_ref().is_some_and(|given| given.starts_with('@')) && Instant::now() < end {
            let new = self.token()?;
            if new != *old {
                *old = new;
                return Ok("the node refused the token".to_owned());
            }
            sleep(AGAIN).await;
        }
        bail!("the node refuses the token: give a new one, best in a file that is kept current, as --token @FILE")
    }

    /// Subscribes on a new connection, and prints what comes.
    async fn session(&mut self, session: &mut Session) -> Ending {
        for index in 0..self.places.len() {
            if let Err(end) = self.subscribe(session, index).await {
                return end.into();
            }
        }
        loop {
            let soonest = self.places.iter().filter_map(|place| place.again).min();
            let later = async {
                match soonest {
                    Some(time) => sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = session.next() => match frame {
                    Ok(frame) => match self.take(&frame) {
                        Ok(None) => {}
                        Ok(Some(ending)) => return ending,
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ending::Done,
                        Err(error) => return Ending::Refused(format!("cannot print to stdout: {error}")),
                    },
                    Err(end) => return end.into(),
                },
                () = later => {
                    let now = Instant::now();
                    let due = |place: &Place| place.again.is_some_and(|time| time <= now);
                    if let Some(index) = self.places.iter().position(due)
                        && let Err(end) = self.subscribe(session, index).await
                    {
                        return end.into();
                    }
                }
            }
        }
    }

    async fn subscribe(&mut self, session: &mut Session, index: usize) -> Result<(), End> {
        let place = &mut self.places[index];
        place.again = None;
        let mut what = json!({ "channel": place.channel });
        if let Some(at) = &place.at {
            what["since"] = json!(at);
        } else if let Some(last) = self.options.last {
            what["last"] = json!(last);
        }
        session.send(&json!({ "id": place.id, "subscribe": what }).to_string()).await
    }

    /// Takes what the node sent. `Some` if that is the end.
    fn take(&mut self, frame: &Frame) -> io::Result<Option<Ending>> {
        if let Some(id) = frame.id {
            return Ok(self.reply(id, frame));
        }
        if let Some(ping) = &frame.ping {
            for place in &mut self.places {
                if let Some(at) = ping.at.get(&place.channel) {
                    place.at = Some(at.clone());
                }
            }
            return Ok(None);
        }
        if let Some(reconnect) = &frame.reconnect {
            self.backoff.obey(Duration::from_millis(reconnect.after_ms));
            return Ok(None);
        }
        if let (Some(channel), Some(at)) = (&frame.channel, &frame.at) {
            self.print(channel, frame)?;
            self.printed += 1;
            if let Some(place) = self.places.iter_mut().find(|place| place.channel == *channel) {
                place.at = Some(at.clone());
            }
            return Ok((self.options.count == Some(self.printed)).then_some(Ending::Done));
        }
        if self.options.json {
            writeln!(self.out, "{}", frame.text)?;
        }
        if let Some(gone) = &frame.unsubscribed {
            self.places.retain(|place| place.channel != gone.channel);
            let what = format!("{} may no longer be read: {}", tame(&gone.channel), tame(&gone.reason));
            if self.places.is_empty() {
                return Ok(Some(Ending::Refused(what)));
            }
            print_error(&format!("{what}\n"));
        } else if let Some(notice) = notice(frame).filter(|_| !self.options.json) {
            print_error(&format!("{notice}\n"));
        }
        Ok(None)
    }

    /// Takes the reply to a `subscribe`, whose `id` is the channel's place.
    fn reply(&mut self, id: u64, frame: &Frame) -> Option<Ending> {
        let place = self.places.iter_mut().find(|place| place.id == id)?;
        let channel = tame(&place.channel);
        if let Some(refused) = &frame.error {
            if !refused.retry {
                return Some(Ending::Refused(format!("{channel}: {refused}")));
            }
            let wait = refused.retry_after_ms.map_or(AGAIN, Duration::from_millis);
            place.again = Some(Instant::now() + wait);
            return None;
        }
        self.backoff.reset();
        let ok = frame.ok.as_ref()?;
        if ok["recovered"] == Value::Bool(false) {
            let since = place.at.as_deref().map(tame).unwrap_or_default();
            print_error(&format!("{channel}: messages after {since} may be missing: they are no longer kept\n"));
        }
        place.at = ok["at"].as_str().map(str::to_owned).or(place.at.take());
        if !self.subscribed {
            self.subscribed = true;
            print_error(&format!("subscribed to {}\n", self.options.channels.join(", ")));
        }
        None
    }

    fn print(&mut self, channel: &str, frame: &Frame) -> io::Result<()> {
        let text = match &frame.data {
            _ if self.options.json => frame.text.clone(),
            Some(data) => serde_json::from_str::<String>(data.get()).unwrap_or_else(|_| data.get().to_owned()),
            None => frame.base64.clone().unwrap_or_else(|| "null".to_owned()),
        };
        let text = if self.tame { text.replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ") } else { text };
        if self.options.channels.len() > 1 && !self.options.json {
            write!(self.out, "{}\t", tame(channel))?;
        }
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }
}

/// What a person should know of a frame that is not a message.
fn notice(frame: &Frame) -> Option<String> {
    let channel = tame(frame.channel.as_deref().unwrap_or_default());
    match frame {
        Frame { lost: Some(lost), .. } => {
            Some(format!("{channel}: messages after {} may be missing: {}", tame(&lost.after), tame(&lost.reason)))
        }
        Frame { skipped: Some(count), .. } => Some(format!("{channel}: {count} messages were skipped")),
        Frame { degraded: Some(true), .. } => Some("the node has lost its broker: no messages come".to_owned()),
        Frame { degraded: Some(false), .. } => Some("the node has its broker again".to_owned()),
        Frame { error: Some(refused), .. } => Some(refused.to_string()),
        _ => None,
    }
}
