//! Simulates whole clusters in memory. A seed determines a world completely, to the last byte.
//!
//! Real: log, cursor, dedup, publisher, relay, window, hub, outboxes, resume, codec, native protocol, tokens, gate.
//! Simulated: the broker, sockets, clients, time. It uses one thread, tokio's paused clock, and the seed for each choice.
//! Each world must keep the law: an acknowledged message is delivered once or announced as lost, in the same order for all
//! clients, never to a client whose right to it was withdrawn, and everything works again after the faults. The nodes then know which
//! of them live, and nodes and clients who is in which channel.

mod attendance;
mod broker;
mod chronicle;
mod client;
mod faults;
mod judge;
mod ledger;
mod membership;
mod node;
mod panics;
pub(crate) mod pipe;
mod scenarios;
mod tokens;
mod world;

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::time::Instant;

use self::node::Build;
use self::world::{RIGHT, live, live_with};
use crate::gate::{Backend, Decision, Identity, Judge, Policy, Question, Right, Rules};
use crate::presence::samples::FAULTS;
use crate::protocol::Failure;

/// The number of fixed seeds that each test run simulates.
const SEEDS: u64 = 3_000;
/// The number of random seeds on top.
const RANDOM: u64 = 200;
/// The real time after which a world counts as hung. A world takes milliseconds.
const HANG: Duration = Duration::from_secs(60);

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Starts the clock of this thread's world.
fn begin_of_time() {
    BEGAN.set(Some(Instant::now()));
}

/// The wall-clock time of this world, in milliseconds since 1970.
fn wall() -> u64 {
    let elapsed = BEGAN.get().map_or(0, |began| began.elapsed().as_millis());
    1_700_000_000_000 + u64::try_from(elapsed).unwrap_or(0)
}

/// The seeds from the environment: `FANFARE_SEED=7` or `FANFARE_SEEDS=0..20000`.
fn seeds() -> Option<Range<u64>> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("FANFARE_SEED") {
        return Some(number(&seed)..number(&seed) + 1);
    }
    let seeds = std::env::var("FANFARE_SEEDS").ok()?;
    let (from, to) = seeds.split_once("..").expect("FANFARE_SEEDS is FROM..TO");
    Some(number(from)..number(to))
}

/// Simulates worlds until one breaks the law, and returns the seed of that one.
fn first_unlawful(seeds: impl Iterator<Item = u64>) -> Option<u64> {
    panics::watch();
    let begun = watch_over();
    let (mut worlds, mut acked, mut delivered, mut duplicate, mut marks) = (0, 0, 0, 0, 0);
    for seed in seeds {
        // Cannot fail: the watching thread ends only when `begun` is dropped.
        let _ = begun.send(seed);
        let verdict = live(seed, false);
        if !verdict.breaches.is_empty() {
            return Some(seed);
        }
        worlds += 1;
        acked += verdict.report.acked;
        delivered += verdict.report.delivered;
        duplicate += verdict.report.duplicate;
        marks += verdict.report.lost_marked;
    }
    println!(
        "{worlds} worlds: acked {acked}, delivered {delivered}, duplicate {duplicate}, lost-marked {marks}, silent-loss 0"
    );
    None
}

/// Aborts the process if a world does not end, which happens if a task never yields. The returned sender takes the seed of
/// each world that begins.
fn watch_over() -> mpsc::Sender<u64> {
    let (sender, begun) = mpsc::channel();
    std::thread::spawn(move || {
        let mut seed = None;
        loop {
            match begun.recv_timeout(HANG) {
                Ok(next) => seed = Some(next),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    // Directly to stderr: the test harness would capture `eprintln`.
                    let _ = writeln!(
                        std::io::stderr(),
                        "the world of seed {seed:?} does not end: a task never yields\nreplay: {}",
                        replay(seed)
                    );
                    std::process::abort();
                }
            }
        }
    });
    sender
}

fn replay(seed: Option<u64>) -> String {
    let seed = seed.unwrap_or_default();
    format!("FANFARE_SEED={seed} cargo test --profile checked --workspace --lib simulation::every")
}

/// All lines of a seed's world, and its breaches of the law.
fn report(seed: u64) -> String {
    let verdict = live(seed, true);
    let mut out = verdict.lines.join("\n");
    let _ = write!(out, "\n\nseed {seed}: {}", verdict.report);
    for breach in &verdict.breaches {
        let _ = write!(out, "\n  {breach}");
    }
    let _ = write!(out, "\nreplay: {}", replay(Some(seed)));
    out
}

#[test]
fn every_world_keeps_the_law() {
    let random = fastrand::Rng::new().u64(1 << 20..1 << 60);
    let found = match seeds() {
        Some(seeds) => first_unlawful(seeds),
        None => first_unlawful((0..SEEDS).chain(random..random + RANDOM)),
    };
    if let Some(seed) = found {
        panic!("{}", report(seed));
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..20 {
        let (once, again) = (live(seed, false).digest, live(seed, false).digest);
        assert_eq!(once, again, "seed {seed}: a choice does not come from the seed");
        assert_ne!(once, live(seed + 1, false).digest);
    }
}

/// A gate that decides about subscriptions as if no token had limits.
struct Forgiving(Rules);

impl Judge for Forgiving {
    fn judge(&self, identity: &Arc<Identity>, question: Question<'_>) -> Decision {
        match question {
            Question::Subscribe { .. } => Decision::Now(Ok(Policy::default())),
            _ => self.0.judge(identity, question),
        }
    }

    fn judge_backend(&self, backend: &Backend, right: Right, channel: &str) -> Result<Option<usize>, Failure> {
        self.0.judge_backend(backend, right, channel)
    }
}

#[test]
fn a_withdrawal_that_a_node_ignores_is_found_by_the_rule_of_rights() {
    let found = (0..100).any(|seed| {
        let build = Build { gate: |config| Box::new(Forgiving(Rules::new(config))), ..RIGHT };
        let verdict = live_with(seed, false, build);
        verdict.breaches.iter().any(|breach| breach.contains("later than the withdrawal of the right allows"))
    });
    assert!(found);
}

#[test]
fn nodes_that_read_presence_wrongly_are_found_by_what_they_and_their_clients_see() {
    for (what, reading) in FAULTS {
        let found = (0..100).any(|seed| {
            let verdict = live_with(seed, false, Build { reading, ..RIGHT });
            verdict.breaches.iter().any(|breach| breach.contains("who is there"))
        });
        assert!(found, "a node that {what} passes");
    }
}
