//! The keys behind one URL: fetched in the background, kept while the URL is down, and fetched early for an unknown key.
//!
//! Owns the last keys. One fetch at a time serves all who wait, and unknown keys cause at most one per [`EARLY`]. Loses its
//! keys when the URL has been down for `auth.jwks_keep`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::jwk;
use super::key::Key;
use crate::config::JwksUrl;
use crate::fetch::Client;
use crate::field::Shown;

/// The shortest time between a fetch and one for an unknown key.
pub(super) const EARLY: Duration = Duration::from_secs(30);
/// How long keys are fresh if the answer has no `max-age`, and the bounds of that.
const FRESH: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The longest pause between attempts while the URL is down; the first is 1 s.
const PAUSE: Duration = Duration::from_secs(60);
/// How long a token waits for a fetch: longer than one takes.
const PATIENCE: Duration = Duration::from_secs(6);

/// A URL and its keys.
pub(super) struct Source {
    url: JwksUrl,
    keep: Duration,
    state: watch::Sender<State>,
    wanted: Notify,
}

#[derive(Clone, Default)]
struct State {
    keys: Arc<[Key]>,
    /// Until when the keys may be used, also if the URL is down.
    until: Option<Instant>,
    /// When the last attempt began.
    began: Option<Instant>,
    /// Whether an attempt is under way.
    fetching: bool,
    /// The number of attempts that have ended.
    ended: u64,
}

impl State {
    /// Whether a token with an unknown key may cause a fetch now, or wait for the one that is under way.
    fn may_wait(&self) -> bool {
        self.fetching || self.began.is_none_or(|began| began.elapsed() >= EARLY)
    }
}

impl Source {
    pub(super) fn new(url: JwksUrl, keep: Duration) -> Self {
        Self { url, keep, state: watch::Sender::new(State::default()), wanted: Notify::new() }
    }

    /// The keys that may be used now; `None` if there are none.
    pub(super) fn keys(&self) -> Option<Arc<[Key]>> {
        let state = self.state.borrow();
        state.until.is_some_and(|until| Instant::now() < until).then(|| Arc::clone(&state.keys))
    }

    /// Asks for a fetch because of an unknown key. `None` if the last one is too recent; otherwise await the returned value,
    /// which ends with the fetch, or after [`PATIENCE`].
    pub(super) fn refresh(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut states = self.state.subscribe();
        let ended = {
            let state = states.borrow();
            state.may_wait().then_some(state.ended)?
        };
        self.wanted.notify_one();
        Some(async move {
            // Both errors mean that the keys stay as they are, which the caller finds out.
            let _ = timeout(PATIENCE, states.wait_for(|state| state.ended > ended)).await;
        })
    }

    /// Keeps the keys up to date, for ever.
    pub(super) async fn run(&self, client: &Client) {
        let mut failures = 0_u32;
        loop {
            let begin = Instant::now();
            self.state.send_modify(|state| (state.fetching, state.began) = (true, Some(begin)));
            let fetched = self.fetch(client).await;
            let host = Shown::of(self.url.host().as_bytes());
            let pause = match &fetched {
                Ok((keys, fresh)) => {
                    if failures > 0 || self.state.borrow().keys.len() != keys.len() {
                        tracing::info!(%host, keys = keys.len(), "the keys for tokens have been fetched");
                    }
                    failures = 0;
                    *fresh
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    // The first failures, then fewer and fewer lines.
                    if failures.is_power_of_two() {
                        tracing::warn!(%host, failures, "the keys for tokens cannot be fetched: {why}");
                    }
                    PAUSE.min(Duration::from_secs(1 << (failures - 1).min(6)))
                }
            };
            self.state.send_modify(|state| {
                (state.fetching, state.ended) = (false, state.ended + 1);
                if let Ok((keys, fresh)) = fetched {
                    (state.keys, state.until) = (keys.into(), Some(begin + fresh + self.keep));
                }
            });
            self.pause(Instant::now() + pause).await;
        }
    }

    /// The keys, and how long they are fresh.
    async fn fetch(&self, client: &Client) -> Result<(Vec<Key>, Duration), String> {
        let page = client.get(self.url.expose()).await.map_err(|error| error.to_string())?;
        let keys = jwk::keys(&page.body)?;
        Ok((keys, page.max_age.unwrap_or(FRESH).clamp(SHORTEST, LONGEST)))
    }

    /// Waits until the next fetch is due, or an unknown key needs one.
    async fn pause(&self, due: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.wanted.notified() => {
                    if self.state.borrow().may_wait() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
