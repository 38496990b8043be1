//! One world: a broker, nodes, clients and faults, all drawn from a seed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use law::Report;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::attendance::{self, Attendance};
use super::broker::{Flakiness, Model, Traits};
use super::chronicle::Chronicle;
use super::client::Client;
use super::faults::{Fault, Plan};
use super::judge::{Expected, judge};
use super::node::{Build, Node};
use super::pipe::End;
use super::tokens::{self, Tokens};
use crate::cluster::publish;
use crate::config::{ByteSize, Config};
use crate::gate::{Identity, Rules};

/// How long after the last fault all clients must receive all messages again.
const RECOVERY: Duration = Duration::from_secs(60);

/// The result of a world.
pub(super) struct Verdict {
    pub(super) breaches: Vec<String>,
    pub(super) lines: Vec<String>,
    pub(super) digest: u64,
    pub(super) report: Report,
}

pub(super) struct World {
    pub(super) config: Config,
    pub(super) channels: Vec<String>,
    pub(super) chronicle: Chronicle,
    pub(super) expected: Expected,
    /// The longest pause between two actions of a client, in milliseconds.
    pub(super) pace: u64,
    /// Faults are over, and clients start nothing new.
    pub(super) calm: Cell<bool>,
    /// For each client, whether it has received a final message on each channel that it wants.
    pub(super) done: RefCell<Vec<bool>>,
    pub(super) tokens: RefCell<Tokens>,
    pub(super) attendance: RefCell<Attendance>,
    pub(super) model: Arc<Model>,
    pub(super) nodes: RefCell<Vec<Option<Node>>>,
    rng: RefCell<Rng>,
    faultless: bool,
    build: Build,
}

/// Simulates the world of this seed. With `keep_lines`, the verdict has a line for each event.
pub(super) fn live(seed: u64, keep_lines: bool) -> Verdict {
    live_with(seed, keep_lines, RIGHT)
}

/// Nodes as they are.
pub(super) const RIGHT: Build = Build { gate: |config| Box::new(Rules::new(config)), reading: |_| {} };

/// The same with other nodes.
pub(super) fn live_with(seed: u64, keep_lines: bool, build: Build) -> Verdict {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs no system resources");
    LocalSet::new().block_on(&runtime, async move {
        super::begin_of_time();
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        let world = World::draw(&mut rng, &plan, keep_lines, build);
        world.run(plan, &mut rng).await
    })
}

impl World {
    fn draw(rng: &mut Rng, plan: &Plan, keep_lines: bool, build: Build) -> Rc<Self> {
        let faultless = plan.faults.is_empty();
        let config = draw_config(rng, faultless);
        let traits = Traits {
            entries_have_epochs: rng.bool(),
            entries_have_previous: rng.bool(),
            acks_have_positions: rng.bool(),
            chunks: rng.u8(0..4) == 0,
            pipeline: rng.usize(1..=8),
        };
        let nodes = rng.usize(2..=3);
        let model = Model::new(config.broker.partitions, nodes, traits, rng.fork());
        let chronicle = Chronicle::new(keep_lines);
        chronicle.note(format_args!(
            "{nodes} nodes of {} workers, {} partitions, {traits:?}, heartbeat {:?}, {:?}, outbox {}, faults {:?}",
            config.node.workers,
            config.broker.partitions,
            config.broker.heartbeat,
            config.window,
            config.limits.outbox,
            plan.kinds
        ));
        Rc::new(Self {
            channels: (0..rng.u32(1..=4)).map(|n| format!("channel-{n}")).collect(),
            chronicle,
            expected: Expected { nothing_lost: plan.loses_nothing(), nobody_gone: plan.hides_no_node() },
            pace: rng.u64(60..500),
            calm: Cell::new(false),
            done: RefCell::new(vec![false; rng.usize(2..=5)]),
            tokens: RefCell::new(Tokens::new(&config)),
            attendance: RefCell::default(),
            model,
            nodes: RefCell::new((0..nodes).map(|_| None).collect()),
            rng: RefCell::new(rng.fork()),
            faultless,
            build,
            config,
        })
    }

    async fn run(self: Rc<Self>, plan: Plan, rng: &mut Rng) -> Verdict {
        (0..self.size()).for_each(|node| self.start_node(node));
        let mut clients = JoinSet::new();
        for number in 0..self.done.borrow().len() {
            clients.spawn_local(Client::new(Rc::clone(&self), number, rng.fork()).run());
        }
        let began = Instant::now();
        for (at, fault) in plan.faults {
            sleep_until(began + Duration::from_millis(at)).await;
            self.chronicle.note(format_args!("FAULT {fault:?}"));
            Rc::clone(&self).start_fault(fault);
        }
        sleep_until(began + Duration::from_millis(plan.length)).await;
        self.heal().await;
        if let Some(error) = clients.try_join_next().and_then(Result::err) {
            self.chronicle.breach(format!("a client failed: {error}"));
        }
        clients.shutdown().await;
        self.nodes.borrow_mut().clear();
        let report = judge(&self.chronicle, &self.model.lock().ledger, self.expected);
        for panic in super::panics::take() {
            self.chronicle.breach(format!("a panic: {panic}"));
        }
        let (breaches, lines, digest) = self.chronicle.close();
        Verdict { breaches, lines, digest, report }
    }

    /// Ends all faults and waits until all clients receive all messages.
    async fn heal(&self) {
        self.model.join();
        self.model.change(|state| {
            state.flakiness = Flakiness { delay: 3, ..Flakiness::default() };
            for link in &mut state.links {
                (link.reach, link.skip) = (Default::default(), false);
            }
        });
        (0..self.size()).filter(|node| !self.is_up(*node)).for_each(|node| self.start_node(node));
        self.nodes.borrow().iter().flatten().for_each(|node| node.stand_still(false));
        self.calm.set(true);
        self.chronicle.note(format_args!("CALM"));
        let (begin, end) = (Instant::now(), Instant::now() + RECOVERY);
        loop {
            let clients: Vec<_> =
                (0..).zip(self.done.borrow().iter()).filter(|(_, done)| !**done).map(|(n, _)| n).collect();
            let ready = |node: &Option<Node>| node.as_ref().is_some_and(Node::is_ready);
            let nodes: Vec<_> =
                (0..).zip(self.nodes.borrow().iter()).filter(|(_, node)| !ready(node)).map(|(n, _)| n).collect();
            // A log that loses records may lose a revocation with them, if no node knows it any more.
            let revoked = if self.expected.nothing_lost { self.tokens.borrow().revoked() } else { Vec::new() };
            let misled = self.misled();
            let is_well = clients.is_empty() && nodes.is_empty() && revoked.is_empty();
            if is_well && !misled.is_empty() && begin.elapsed() > self.longest_misled() {
                self.chronicle.breach(format!("nodes {misled:?} do not know which nodes live"));
                return;
            }
            let wrong = self.wrong_views().filter(|_| is_well && misled.is_empty());
            if let Some(wrong) = &wrong
                && begin.elapsed() > self.longest_wrong()
            {
                return self.chronicle.breach(format!("who is there is not known: {wrong}"));
            }
            if (is_well && misled.is_empty() && wrong.is_none()) || Instant::now() > end {
                self.check_lives();
                if !revoked.is_empty() {
                    self.chronicle.breach(format!("clients {revoked:?} are still connected with a revoked token"));
                }
                self.end(&clients, &nodes);
                return if is_well {
                    self.check_views().await
                };
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn end(&self, clients: &[u32], nodes: &[u32]) {
        if !clients.is_empty() || !nodes.is_empty() {
            let what = format!("clients {clients:?} do not receive all messages, nodes {nodes:?} are not ready");
            self.chronicle.breach(format!("{RECOVERY:?} after the last fault, {what}"));
        }
    }

    /// The number of nodes.
    pub(super) fn size(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// The number of clients.
    pub(super) fn clients(&self) -> usize {
        self.done.borrow().len()
    }

    /// Whether this world has no faults at all.
    pub(super) fn is_faultless(&self) -> bool {
        self.faultless
    }

    pub(super) fn connect(&self, node: usize, end: End, identity: Arc<Identity>) -> bool {
        self.nodes.borrow()[node].as_ref().is_some_and(|node| node.connect(end, identity))
    }

    /// Revokes the tokens of a client that were issued until now, through the log of a node.
    pub(super) fn revoke(self: &Rc<Self>, node: usize, client: usize) {
        let Some(log) = self.nodes.borrow()[node].as_ref().and_then(Node::log) else { return };
        let before = super::wall() / 1000;
        self.chronicle.note(format_args!("node {node} revokes client {client}"));
        let world = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if publish(&log, &tokens::revocation(client, before)).await.is_ok() {
                world.chronicle.note(format_args!("client {client} is revoked"));
                world.tokens.borrow_mut().revoke(client, before);
            }
        });
    }

    /// Since when a node has been running; now, if it does not.
    pub(super) fn runs_since(&self, node: usize) -> Instant {
        self.nodes.borrow()[node].as_ref().map_or_else(Instant::now, Node::runs_since)
    }

    fn is_up(&self, node: usize) -> bool {
        self.nodes.borrow()[node].is_some()
    }

    fn start_node(&self, number: usize) {
        let node = Node::start(&self.model, number, &self.config, self.build, &mut self.rng.borrow_mut());
        self.nodes.borrow_mut()[number] = Some(node);
    }

    /// Stops the node of a pause, or lets it go on.
    fn pause(&self, fault: Fault, stands: bool) {
        if let Fault::Pause { node, .. } = fault
            && let Some(node) = &self.nodes.borrow()[node % self.size()]
        {
            node.stand_still(stands);
        }
    }

    /// Starts a fault, which ends by itself.
    fn start_fault(self: Rc<Self>, fault: Fault) {
        if let Fault::Crash { node, .. } = fault {
            let number = node % self.size();
            self.nodes.borrow_mut()[number] = None;
        }
        self.pause(fault, true);
        let rng = self.rng.borrow_mut().fork();
        tokio::task::spawn_local(async move {
            fault.run(&self.model, self.size(), rng).await;
            self.pause(fault, false);
            if let Fault::Crash { node, .. } = fault
                && !self.is_up(node % self.size())
            {
                self.start_node(node % self.size());
            }
        });
    }
}

fn draw_config(rng: &mut Rng, faultless: bool) -> Config {
    let auth = toml::from_str(tokens::KEYS).expect("a section of a configuration");
    let mut linger = Rng::with_seed(rng.clone().u64(..));
    let mut config: Config = toml::from_str(attendance::RULES).expect("rules of a configuration");
    config.auth = auth;
    config.presence.linger = Duration::from_millis(linger.u64(100..3_000));
    let millis = |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    config.node.workers = rng.usize(1..=2);
    config.broker.partitions = rng.u16(1..=3);
    config.broker.heartbeat = millis(rng, 300, 2_000);
    config.broker.publish_timeout = millis(rng, 500, 3_000);
    config.timing.ping = millis(rng, 1_000, 10_000);
    config.timing.pong = config.timing.ping / 2;
    config.window.age = millis(rng, 500, 20_000);
    config.cluster.lease = millis(rng, 4_000, 10_000);
    if !faultless {
        config.window.bytes = ByteSize::kib(1 << rng.u32(2..16));
        config.limits.outbox = ByteSize::kib(1 << rng.u32(3..11));
        config.broker.in_flight = 1 << rng.u32(1..14);
    }
    config
}
