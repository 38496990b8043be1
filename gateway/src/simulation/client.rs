//! A client as the protocol's document tells it to be: resumes from what it has handled, retries under its key.
//!
//! Whatever it does at whatever time comes from its own part of the seed.

mod hear;
pub(super) mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use broker_adapters::Position;
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use self::wire::masked;
use super::law::Outcome;
use super::pipe::{End, pipe};
use super::world::World;

/// Tries of one publish under one key.
const TRIES: u32 = 4;
/// How much later than it should an answer to a publish may come: workers are busy for 200 ms at most.
const LATE: Duration = Duration::from_millis(500);

/// A channel that the client wants to hear.
#[derive(Default)]
struct Ear {
    wanted: bool,
    /// The command under way.
    asked: Option<u64>,
    joined: bool,
    /// Messages may come of an earlier subscription: a command to leave it is under way.
    blurred: bool,
    /// The last position handled, and the story that it belongs to.
    since: Option<(Position, usize)>,
    story: usize,
    /// The final messages that were heard.
    finals: u32,
}

/// A publish under way.
struct Publishing {
    wish: usize,
    channel: String,
    payload: String,
    key: Option<String>,
    tries: u32,
    /// An earlier try may have been stored.
    perhaps: bool,
}

enum Asked {
    Subscribe { channel: String, since: Option<Position>, again: bool },
    Unsubscribe,
    Publish { publishing: Publishing, due: Instant },
}

struct Connection {
    end: End,
    node: usize,
    /// Bytes read that are no whole frame yet.
    input: VecDeque<u8>,
    /// The client does not read until then.
    deaf: Instant,
}

pub(super) struct Client {
    world: Rc<World>,
    number: usize,
    rng: Rng,
    ears: BTreeMap<String, Ear>,
    connection: Option<Connection>,
    asked: BTreeMap<u64, Asked>,
    retries: Vec<Publishing>,
    said: u32,
    ids: u64,
}

impl Client {
    pub(super) fn new(world: Rc<World>, number: usize, mut rng: Rng) -> Self {
        let ears = world.channels.iter().map(|name| (name.clone(), Ear { wanted: rng.u8(0..3) > 0, ..Ear::default() }));
        let ears = ears.collect();
        Self {
            world,
            number,
            rng,
            ears,
            connection: None,
            asked: BTreeMap::new(),
            retries: Vec::new(),
            said: 0,
            ids: 0,
        }
    }

    /// Lives until the world ends.
    pub(super) async fn run(mut self) {
        loop {
            let pause = Duration::from_millis(self.rng.u64(5..self.world.pace));
            let next = Instant::now() + pause;
            loop {
                let reading = self.connection.as_ref().is_some_and(|connection| connection.deaf <= Instant::now());
                let mut buffer = [0; 4096];
                let read = async {
                    match (&self.connection, reading) {
                        (Some(connection), true) => poll_fn(|cx| connection.end.poll_read(&mut buffer, cx)).await,
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = sleep_until(next) => break,
                    count = read => self.take(&buffer[..count]),
                }
            }
            self.overdue();
            if self.connection.is_none() {
                self.connect();
            } else if self.world.calm.get() {
                self.settle();
            } else {
                self.act();
            }
            if self.connection.is_some() {
                self.join();
            }
        }
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        self.world.chronicle.tell(format_args!("client {}: {what}", self.number));
    }

    fn breach(&self, what: String) {
        self.world.chronicle.breach(format!("client {}: {what}", self.number));
    }

    /// Does one of the things that clients do.
    fn act(&mut self) {
        match self.rng.u8(0..100) {
            0..45 => self.publish(),
            45..52 => self.retry(),
            52..58 => self.drop_connection("goes away"),
            58..62 => self.stall(),
            62..70 => self.change_mind(),
            70..73 => self.leave(),
            73..77 => self.hesitate(),
            _ => {}
        }
    }

    /// Faults are over: reads, and ends what it has begun.
    fn settle(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.deaf = Instant::now();
        }
        self.retry();
        if self.number == 0 && self.asked.is_empty() {
            self.publish_final();
        }
    }

    fn connect(&mut self) {
        let (room, first) = (self.rng.usize(200..20_000), self.rng.usize(0..self.world.size()));
        let (mine, theirs) = pipe(room);
        if self.world.connect(first, theirs) {
            self.tell(format_args!("connects to node {first}"));
            self.connection = Some(Connection { end: mine, node: first, input: VecDeque::new(), deaf: Instant::now() });
        }
    }

    /// Asks for all channels that it wants and has not got.
    fn join(&mut self) {
        let missing = |(name, ear): (&String, &Ear)| {
            (ear.wanted && !ear.joined && ear.asked.is_none()).then(|| (name.clone(), ear.since))
        };
        let missing: Vec<_> = self.ears.iter().filter_map(missing).collect();
        for (channel, since) in missing {
            let since = since.filter(|_| self.rng.u8(0..12) > 0).map(|(since, _)| since);
            self.subscribe(&channel, since, false);
            if self.rng.u8(0..20) == 0 {
                // Once more before the first answer, which comes first.
                let since = since.filter(|_| self.rng.bool());
                self.subscribe(&channel, since, true);
            }
        }
    }

    fn subscribe(&mut self, channel: &str, since: Option<Position>, again: bool) {
        let command = match since {
            Some(since) => json!({ "channel": channel, "since": since.to_string() }),
            None => json!({ "channel": channel }),
        };
        let asked = Asked::Subscribe { channel: channel.to_owned(), since, again };
        let id = self.ask("subscribe", &command, asked);
        if let (Some(ear), false) = (self.ears.get_mut(channel), again) {
            ear.asked = id;
        }
    }

    fn change_mind(&mut self) {
        let index = self.rng.usize(0..self.ears.len());
        if let Some(ear) = self.ears.values_mut().nth(index).filter(|ear| !ear.joined && ear.asked.is_none()) {
            ear.wanted = !ear.wanted;
        }
    }

    /// Leaves a channel, perhaps to come back to it over the same connection.
    fn leave(&mut self) {
        let joined = |(name, ear): (&String, &Ear)| (ear.joined && ear.asked.is_none()).then(|| name.clone());
        let joined: Vec<_> = self.ears.iter().filter_map(joined).collect();
        if joined.is_empty() {
            return;
        }
        let channel = joined[self.rng.usize(0..joined.len())].clone();
        let id = self.ask("unsubscribe", &json!({ "channel": channel }), Asked::Unsubscribe);
        let comes_back = self.rng.bool();
        if let Some(ear) = self.ears.get_mut(&channel) {
            (ear.joined, ear.wanted, ear.asked, ear.blurred) = (false, comes_back, id, true);
        }
    }

    /// Leaves a channel that it has yet to be told to be in, perhaps to ask for it again at once.
    fn hesitate(&mut self) {
        let pending = |(name, ear): (&String, &Ear)| (!ear.joined && ear.asked.is_some()).then(|| name.clone());
        let pending: Vec<_> = self.ears.iter().filter_map(pending).collect();
        if pending.is_empty() {
            return;
        }
        let channel = pending[self.rng.usize(0..pending.len())].clone();
        let id = self.ask("unsubscribe", &json!({ "channel": channel }), Asked::Unsubscribe);
        let since = match self.ears.get_mut(&channel) {
            Some(ear) if id.is_some() => {
                (ear.asked, ear.blurred) = (id, true);
                ear.since.map(|(since, _)| since)
            }
            _ => return,
        };
        if self.rng.bool() {
            self.subscribe(&channel, since, false);
        }
    }

    fn stall(&mut self) {
        let pause = Duration::from_millis(self.rng.u64(100..6_000));
        self.tell(format_args!("does not read for {pause:?}"));
        if let Some(connection) = &mut self.connection {
            connection.deaf = Instant::now() + pause;
        }
    }

    fn publish(&mut self) {
        self.said += 1;
        let channel = self.rng.choice(&self.world.channels).cloned().unwrap_or_default();
        let mut payload = format!("{}.{}", self.number, self.said);
        if self.rng.u8(0..8) == 0 {
            payload = format!("{payload} {}", "x".repeat(self.rng.usize(0..2_000)));
        }
        let key = (self.rng.u8(0..3) > 0).then(|| format!("key {}.{}", self.number, self.said));
        self.begin(channel, payload, key);
    }

    fn publish_final(&mut self) {
        self.said += 1;
        let channel = self.world.channels[self.said as usize % self.world.channels.len()].clone();
        self.begin(channel, format!("final {}", self.said), None);
    }

    fn begin(&mut self, channel: String, payload: String, key: Option<String>) {
        let wish = self.world.chronicle.wish(&channel, &payload);
        self.send(Publishing { wish, channel, payload, key, tries: 0, perhaps: false });
    }

    fn send(&mut self, mut publishing: Publishing) {
        publishing.tries += 1;
        let mut command = json!({ "channel": publishing.channel, "data": publishing.payload });
        if let Some(key) = &publishing.key {
            command["key"] = key.as_str().into();
        }
        let due = Instant::now() + self.world.config.broker.publish_timeout + LATE;
        self.ask("publish", &command, Asked::Publish { publishing, due });
    }

    fn retry(&mut self) {
        if self.connection.is_some() && !self.retries.is_empty() {
            let publishing = self.retries.swap_remove(self.rng.usize(0..self.retries.len()));
            self.send(publishing);
        }
    }

    /// A try ended.
    fn tried(&mut self, mut publishing: Publishing, outcome: Outcome) {
        if publishing.tries > TRIES {
            return;
        }
        let chronicle = &self.world.chronicle;
        publishing.perhaps |= outcome == Outcome::Unknown;
        match outcome {
            Outcome::Acknowledged => {
                // Once more, harmlessly: but a log that was rolled back has forgotten it.
                let again = publishing.tries == 1 && self.world.expected.nothing_lost && self.rng.u8(0..8) == 0;
                chronicle.end(publishing.wish, Outcome::Acknowledged);
                if again && publishing.key.is_some() {
                    publishing.tries = TRIES;
                    self.retries.push(publishing);
                }
            }
            _ if publishing.key.is_some() && publishing.tries < TRIES => self.retries.push(publishing),
            _ if publishing.perhaps => chronicle.end(publishing.wish, Outcome::Unknown),
            outcome => chronicle.end(publishing.wish, outcome),
        }
    }

    /// Sends a command; gives its number if there is a connection.
    fn ask(&mut self, command: &str, body: &Value, asked: Asked) -> Option<u64> {
        self.ids += 1;
        let id = self.ids;
        let text = json!({ "id": id, command: body }).to_string();
        let shown: String = text.chars().take(100).collect();
        self.tell(format_args!("→ {shown}"));
        self.asked.insert(id, asked);
        let sent = self.connection.as_ref().is_some_and(|connection| connection.end.try_write(&masked(&text)).is_ok());
        if !sent {
            self.drop_connection("finds its connection closed");
        }
        sent.then_some(id)
    }

    /// Every publish is answered in time, as long as the client listens.
    fn overdue(&mut self) {
        let now = Instant::now();
        let late = |asked: &Asked| matches!(asked, Asked::Publish { due, .. } if *due < now);
        let listened = self.connection.as_ref().is_some_and(|connection| connection.deaf + LATE < now);
        if listened && let Some((id, _)) = self.asked.iter().find(|(_, asked)| late(asked)) {
            self.breach(format!("no answer to publish {id} in time"));
            self.drop_connection("gives up");
        }
    }

    fn drop_connection(&mut self, why: &str) {
        if let Some(connection) = self.connection.take() {
            self.tell(format_args!("{why} (node {})", connection.node));
        }
        for asked in std::mem::take(&mut self.asked).into_values() {
            if let Asked::Publish { publishing, .. } = asked {
                self.tried(publishing, Outcome::Unknown);
            }
        }
        for ear in self.ears.values_mut() {
            (ear.joined, ear.asked, ear.blurred) = (false, None, false);
        }
    }
}
