//! One hook: clients' questions on their way to the backend, and its answers on their way back.
//!
//! Workers ask, and never wait here; the requests run in one task on the node's main runtime, a bounded number at a time. Equal
//! questions are asked once. The queue has [`WAITING`] questions; when it is full, they are refused at once. Loses nothing: each
//! question is settled, in the end by its asker's own time limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ring::digest::{SHA256, digest};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::answer::{self, Answer, Invalid};
use super::breaker::{Breaker, Change, Outcome, Pass};
use super::cache::{Cache, Key};
use super::counters::{AllCounters, Came};
use crate::auth::Auth;
use crate::clock;
use crate::config::{Hook, HookUrl};
use crate::fetch::{Client, FetchError};
use crate::field::Shown;
use crate::sparingly::Sparingly;

/// The most questions that wait for their turn.
const WAITING: usize = 4096;
/// How long a question may wait for its turn.
const TURN: Duration = Duration::from_secs(1);
/// The shortest time between two lines of a kind in the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// What a hook's line is made of.
pub(super) struct Terms {
    pub(super) hook: Hook,
    pub(super) url: HookUrl,
    /// What every request has.
    pub(super) headers: HeaderMap,
    /// The time that the backend has.
    pub(super) time: Duration,
    /// Whether questions without a valid answer are allowed.
    pub(super) fails_open: bool,
    /// The most bytes of a message.
    pub(super) message: usize,
    pub(super) auth: Auth,
    /// Milliseconds since 1970.
    pub(super) clock: fn() -> u64,
    pub(super) counters: Arc<AllCounters>,
}

/// The questions of one hook.
pub(super) struct Line {
    pub(super) terms: Terms,
    state: Mutex<State>,
    queue: mpsc::Sender<Job>,
    failures: Sparingly,
    changes: Sparingly,
}

struct State {
    breaker: Breaker,
    cache: Cache,
    /// Who waits for the questions that are under way.
    flights: HashMap<Key, Vec<oneshot::Sender<Settled>>>,
}

/// A question that is to be asked.
pub(super) struct Job {
    question: Bytes,
    /// The most bytes of a message in the answer.
    message: usize,
    asker: Asker,
    pass: Pass,
    since: Instant,
}

/// Who waits for the answer.
enum Asker {
    One(oneshot::Sender<Settled>),
    /// All who asked the same.
    All(Key),
}

/// The end of a question.
#[derive(Clone)]
pub(super) enum Settled {
    /// An answer, and whether it was given to an earlier question.
    Answered(Arc<Answer>, bool),
    /// No valid answer. The time after which the backend is asked again, if it is not asked now.
    Failed(Option<Duration>),
    /// Not asked: there were too many questions.
    Overloaded,
}

/// A question's end, or the way to wait for it.
pub(super) enum Asked {
    Now(Settled),
    Later(oneshot::Receiver<Settled>),
}

/// Why there is no valid answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("its answer cannot be used: {0}")]
    Invalid(&'static str),
}

impl Line {
    /// Also returns the queue, for [`run`](Self::run).
    pub(super) fn new(terms: Terms) -> (Arc<Self>, mpsc::Receiver<Job>) {
        let (queue, jobs) = mpsc::channel(WAITING);
        terms.counters.of(terms.hook).set_used();
        let state = State { breaker: Breaker::new(clock::now()), cache: Cache::default(), flights: HashMap::new() };
        let (failures, changes) = (Sparingly::per(INTERVAL), Sparingly::per(INTERVAL));
        (Arc::new(Self { terms, state: Mutex::new(state), queue, failures, changes }), jobs)
    }

    /// Asks. A message in the answer may have `message` bytes. Does not block.
    pub(super) fn ask(&self, question: Bytes, message: usize) -> Asked {
        // Each message is its own question.
        let key = (self.terms.hook != Hook::Publish).then(|| key(&question));
        let (sender, receiver) = oneshot::channel();
        let now = clock::now();
        let mut state = self.lock();
        if let Some(key) = &key {
            if let Some(answer) = state.cache.find(key, now) {
                return Asked::Now(Settled::Answered(answer, true));
            }
            if let Some(askers) = state.flights.get_mut(key) {
                askers.push(sender);
                return Asked::Later(receiver);
            }
        }
        let Ok(place) = self.queue.try_reserve() else { return Asked::Now(Settled::Overloaded) };
        let pass = state.breaker.pass(now);
        if let Pass::Not(rest) = pass {
            return Asked::Now(Settled::Failed(Some(rest)));
        }
        let asker = match key {
            None => Asker::One(sender),
            Some(key) => {
                state.flights.insert(key, vec![sender]);
                Asker::All(key)
            }
        };
        place.send(Job { question, message, asker, pass, since: now });
        Asked::Later(receiver)
    }

    /// Waits for the end of a question, for as long as one can take.
    pub(super) async fn settled(&self, receiver: oneshot::Receiver<Settled>) -> Settled {
        let settled = timeout(TURN + self.terms.time, receiver).await;
        // Without a sender, the node stops.
        settled.map_or(Settled::Overloaded, |settled| settled.unwrap_or(Settled::Overloaded))
    }

    /// Asks the backend what is in the queue, at most so many questions at a time, for ever.
    pub(super) async fn run(&self, client: &Client, mut queue: mpsc::Receiver<Job>, most: usize) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = running.next() => {}
                job = queue.recv(), if running.len() < most => match job {
                    Some(job) => running.push(self.carry_out(client, job)),
                    None => return,
                },
            }
        }
    }

    async fn carry_out(&self, client: &Client, job: Job) {
        let (begin, counters) = (clock::now(), self.terms.counters.of(self.terms.hook));
        let late = begin.saturating_duration_since(job.since) > TURN;
        if late || self.is_abandoned(&job.asker) {
            return self.settle(job, Outcome::Unasked, Settled::Overloaded);
        }
        counters.begin();
        let answer = self.request(client, &job).await;
        let took = clock::now().saturating_duration_since(begin);
        counters.end(came(&answer), took);
        match answer {
            Ok((answer, bytes)) => {
                let answer = Arc::new(answer);
                if let (Asker::All(key), Some(ttl)) = (&job.asker, answer.ttl) {
                    self.lock().cache.keep(*key, Arc::clone(&answer), bytes, clock::now() + ttl);
                }
                self.settle(job, Outcome::Answered, Settled::Answered(answer, false));
            }
            Err(trouble) => {
                if let Some(times) = self.failures.due(clock::now()) {
                    let (hook, host) = (self.terms.hook.name(), Shown::of(self.terms.url.host().as_bytes()));
                    tracing::warn!(hook, %host, times, "the backend gives no valid answer: {trouble}");
                }
                self.settle(job, Outcome::Failed, Settled::Failed(None));
            }
        }
    }

    async fn request(&self, client: &Client, job: &Job) -> Result<(Answer, usize), Trouble> {
        let Terms { hook, url, headers, time, message, auth, clock, .. } = &self.terms;
        let most = answer::BYTES + 2 * message;
        let bytes = client.post(url.expose(), headers, job.question.clone(), (*time, most)).await?;
        let answer = Answer::read(*hook, &bytes, auth, clock() / 1000, job.message);
        Ok((answer.map_err(|Invalid(why)| Trouble::Invalid(why))?, bytes.len()))
    }

    /// Whether all who asked have gone.
    fn is_abandoned(&self, asker: &Asker) -> bool {
        match asker {
            Asker::One(sender) => sender.is_closed(),
            Asker::All(key) => {
                self.lock().flights.get(key).is_some_and(|all| all.iter().all(oneshot::Sender::is_closed))
            }
        }
    }

    /// Gives the end of a question to all who wait for it.
    fn settle(&self, job: Job, outcome: Outcome, settled: Settled) {
        let now = clock::now();
        let (askers, change) = {
            let mut state = self.lock();
            let change = state.breaker.report(now, job.pass, outcome);
            self.terms.counters.of(self.terms.hook).set_open(state.breaker.is_open());
            let askers = match job.asker {
                Asker::One(sender) => vec![sender],
                Asker::All(key) => state.flights.remove(&key).unwrap_or_default(),
            };
            (askers, change)
        };
        for asker in askers {
            // An error means that the client has gone.
            let _ = asker.send(settled.clone());
        }
        if let Some(change) = change
            && let Some(times) = self.changes.due(now)
        {
            let (hook, host) = (self.terms.hook.name(), Shown::of(self.terms.url.host().as_bytes()));
            match change {
                Change::Opened(pause) => {
                    tracing::warn!(hook, %host, ?pause, times, "the backend is not asked for a while, except for a test");
                }
                Change::Closed => tracing::info!(hook, %host, times, "the backend answers again"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(question: &[u8]) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(digest(&SHA256, question).as_ref());
    key
}

fn came(answer: &Result<(Answer, usize), Trouble>) -> Came {
    match answer {
        Ok(_) => Came::Answer,
        Err(Trouble::Invalid(_) | Trouble::Fetch(FetchError::Large(_))) => Came::Invalid,
        Err(Trouble::Fetch(FetchError::Slow(_))) => Came::Timeout,
        Err(Trouble::Fetch(FetchError::Status(_) | FetchError::Redirect(_))) => Came::Status,
        Err(Trouble::Fetch(FetchError::Unreachable | FetchError::OutOfReach | FetchError::Broken)) => Came::Unreachable,
    }
}
