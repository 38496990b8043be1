//! A client that behaves as docs/protocol.md says: it resumes from the last position it handled and retries under its key.
//!
//! Its part of the seed decides each action and its time.

mod publish;
mod receive;
mod rights;
pub(super) mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use broker_adapters::Position;
use fastrand::Rng;
use law::Outcome;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use self::publish::Publishing;
use self::wire::masked;
use super::pipe::{End, pipe};
use super::tokens::Token;
use super::world::World;

/// What the client knows of one channel.
#[derive(Default)]
struct Interest {
    wanted: bool,
    /// The id of the subscribe or unsubscribe command under way.
    asked: Option<u64>,
    joined: bool,
    /// An unsubscribe is under way. Messages of the old subscription may still arrive.
    leaving: bool,
    /// A token that does not allow the channel has ended the subscription.
    withdrawn: bool,
    /// The last position handled, and its trace.
    since: Option<(Position, usize)>,
    trace: usize,
    /// The number of final messages received.
    finals: u32,
}

enum Asked {
    Subscribe { channel: String, since: Option<Position>, again: bool },
    Unsubscribe,
    History,
    Refresh { token: Token, rights: BTreeSet<String> },
    Publish { publishing: Publishing, due: Instant },
}

struct Connection {
    end: End,
    node: usize,
    /// Bytes read that are not a whole frame yet.
    input: VecDeque<u8>,
    /// The client does not read before this time.
    paused_until: Instant,
}

pub(super) struct Client {
    world: Rc<World>,
    number: usize,
    rng: Rng,
    /// For what concerns older messages, so that all else is drawn as without them.
    past: Rng,
    /// The same for what tokens allow.
    rights: Rng,
    /// The same for who else is there.
    others: Rng,
    /// The channels that the token of the connection allows.
    allowed: BTreeSet<String>,
    interests: BTreeMap<String, Interest>,
    connection: Option<Connection>,
    asked: BTreeMap<u64, Asked>,
    retries: Vec<Publishing>,
    published: u32,
    ids: u64,
}

impl Client {
    pub(super) fn new(world: Rc<World>, number: usize, mut rng: Rng) -> Self {
        let past = Rng::with_seed(rng.clone().u64(..));
        let rights = Rng::with_seed(past.clone().u64(..));
        let others = Rng::with_seed(rights.clone().u64(..));
        let interests = world
            .channels
            .iter()
            .map(|name| (name.clone(), Interest { wanted: rng.u8(0..3) > 0, ..Interest::default() }));
        let interests = interests.collect();
        Self {
            world,
            number,
            rng,
            past,
            rights,
            others,
            allowed: BTreeSet::new(),
            interests,
            connection: None,
            asked: BTreeMap::new(),
            retries: Vec::new(),
            published: 0,
            ids: 0,
        }
    }

    /// Acts until the world ends.
    pub(super) async fn run(mut self) {
        loop {
            let pause = Duration::from_millis(self.rng.u64(5..self.world.pace));
            let next = Instant::now() + pause;
            loop {
                let reading =
                    self.connection.as_ref().is_some_and(|connection| connection.paused_until <= Instant::now());
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

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.chronicle.note(format_args!("client {}: {what}", self.number));
    }

    fn breach(&self, what: String) {
        self.world.chronicle.breach(format!("client {}: {what}", self.number));
    }

    /// Does one random action, or nothing.
    fn act(&mut self) {
        match self.rng.u8(0..100) {
            0..45 => self.publish(),
            45..52 => self.retry(),
            52..58 => self.drop_connection("goes away"),
            58..62 => self.stall(),
            62..70 => self.change_mind(),
            70..73 => self.leave(),
            73..77 => self.hesitate(),
            77..79 => {
                let (node, client) = (self.rng.usize(0..self.world.size()), self.rng.usize(0..self.world.clients()));
                self.world.revoke(node, client);
            }
            79..84 => self.look_back(),
            84..90 => self.refresh(),
            _ => {}
        }
    }

    /// After the faults: reads, and finishes its retries. Client 0 also publishes final messages.
    fn settle(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.paused_until = Instant::now();
        }
        if !self.may_all() {
            self.refresh();
        }
        self.retry();
        if self.number == 0 && self.asked.is_empty() {
            self.publish_final();
        }
    }

    fn connect(&mut self) {
        let (room, first) = (self.rng.usize(200..20_000), self.rng.usize(0..self.world.size()));
        let (mine, theirs) = pipe(room);
        let rights = self.draw_rights();
        let token = self.world.tokens.borrow().issue(self.number, &rights);
        let identity = self.world.tokens.borrow().identity(&token);
        if self.world.connect(first, theirs, identity) {
            self.note(format_args!("connects to node {first}"));
            self.connection =
                Some(Connection { end: mine, node: first, input: VecDeque::new(), paused_until: Instant::now() });
            self.accepted(&token, rights);
        }
    }

    /// Subscribes to all channels that it wants and is not subscribed to.
    fn join(&mut self) {
        let missing = |(name, interest): (&String, &Interest)| {
            (interest.wanted && !interest.joined && interest.asked.is_none() && self.may(name))
                .then(|| (name.clone(), interest.since))
        };
        let missing: Vec<_> = self.interests.iter().filter_map(missing).collect();
        for (channel, since) in missing {
            let since = since.filter(|_| self.rng.u8(0..12) > 0).map(|(since, _)| since);
            self.subscribe(&channel, since, false);
            if self.rng.u8(0..20) == 0 {
                // Once more before the reply to the first command. The replies must arrive in order.
                let since = since.filter(|_| self.rng.bool());
                self.subscribe(&channel, since, true);
            }
        }
    }

    fn subscribe(&mut self, channel: &str, since: Option<Position>, again: bool) {
        let mut command = match since {
            Some(since) => json!({ "channel": channel, "since": since.to_string() }),
            None => json!({ "channel": channel }),
        };
        if self.past.u8(0..4) == 0 {
            command["last"] = self.past.u32(1..40).into();
        }
        if self.others.bool() {
            command["presence"] = true.into();
        }
        let asked = Asked::Subscribe { channel: channel.to_owned(), since, again };
        let id = self.ask("subscribe", &command, asked);
        if let (Some(interest), false) = (self.interests.get_mut(channel), again) {
            interest.asked = id;
        }
    }

    fn change_mind(&mut self) {
        let index = self.rng.usize(0..self.interests.len());
        if let Some(interest) =
            self.interests.values_mut().nth(index).filter(|interest| !interest.joined && interest.asked.is_none())
        {
            interest.wanted = !interest.wanted;
        }
    }

    /// Unsubscribes from a channel. Half of the time it subscribes again later, over the same connection.
    fn leave(&mut self) {
        let joined = |(name, interest): (&String, &Interest)| {
            (interest.joined && interest.asked.is_none()).then(|| name.clone())
        };
        let joined: Vec<_> = self.interests.iter().filter_map(joined).collect();
        if joined.is_empty() {
            return;
        }
        let channel = joined[self.rng.usize(0..joined.len())].clone();
        let id = self.ask("unsubscribe", &json!({ "channel": channel }), Asked::Unsubscribe);
        let comes_back = self.rng.bool();
        self.world.attendance.borrow_mut().end(self.number, &channel);
        if let Some(interest) = self.interests.get_mut(&channel) {
            (interest.joined, interest.wanted, interest.asked, interest.leaving) = (false, comes_back, id, true);
        }
    }

    /// Unsubscribes from a channel before the reply to its subscribe. Half of the time it subscribes again at once.
    fn hesitate(&mut self) {
        let pending = |(name, interest): (&String, &Interest)| {
            (!interest.joined && interest.asked.is_some()).then(|| name.clone())
        };
        let pending: Vec<_> = self.interests.iter().filter_map(pending).collect();
        if pending.is_empty() {
            return;
        }
        let channel = pending[self.rng.usize(0..pending.len())].clone();
        let id = self.ask("unsubscribe", &json!({ "channel": channel }), Asked::Unsubscribe);
        let since = match self.interests.get_mut(&channel) {
            Some(interest) if id.is_some() => {
                (interest.asked, interest.leaving) = (id, true);
                interest.since.map(|(since, _)| since)
            }
            _ => return,
        };
        if self.rng.bool() && self.may(&channel) {
            self.subscribe(&channel, since, false);
        }
    }

    /// Asks for older messages of a channel, from the last position handled or from the end.
    fn look_back(&mut self) {
        let index = self.past.usize(0..self.interests.len());
        let Some((channel, interest)) = self.interests.iter().nth(index) else { return };
        let mut command = json!({ "channel": channel, "limit": self.past.u32(1..40) });
        if let Some((at, _)) = interest.since {
            match self.past.u8(0..3) {
                0 => command["since"] = at.to_string().into(),
                1 => command["before"] = at.to_string().into(),
                _ => {}
            }
        }
        self.ask("history", &command, Asked::History);
    }

    fn stall(&mut self) {
        let pause = Duration::from_millis(self.rng.u64(100..6_000));
        self.note(format_args!("does not read for {pause:?}"));
        if let Some(connection) = &mut self.connection {
            connection.paused_until = Instant::now() + pause;
        }
    }

    /// Sends a command and returns its id; `None` without a connection.
    fn ask(&mut self, command: &str, body: &Value, asked: Asked) -> Option<u64> {
        self.ids += 1;
        let id = self.ids;
        let text = json!({ "id": id, command: body }).to_string();
        let shown: String = text.chars().take(100).collect();
        self.note(format_args!("→ {shown}"));
        self.asked.insert(id, asked);
        let sent = self.connection.as_ref().is_some_and(|connection| connection.end.try_write(&masked(&text)).is_ok());
        if !sent {
            self.drop_connection("finds its connection closed");
        }
        sent.then_some(id)
    }

    fn drop_connection(&mut self, why: &str) {
        self.world.tokens.borrow_mut().drop(self.number);
        self.world.attendance.borrow_mut().end_all(self.number);
        if let Some(connection) = self.connection.take() {
            self.note(format_args!("{why} (node {})", connection.node));
        }
        for asked in std::mem::take(&mut self.asked).into_values() {
            if let Asked::Publish { publishing, .. } = asked {
                self.tried(publishing, Outcome::Unknown);
            }
        }
        for interest in self.interests.values_mut() {
            (interest.joined, interest.asked, interest.leaving) = (false, None, false);
        }
    }
}
