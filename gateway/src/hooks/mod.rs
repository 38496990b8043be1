//! Hooks: the gate asks the application's backend about clients, subscriptions and messages.
//!
//! [`Gate`] is the judge of a node with hooks: the rules decide first, and what they leave to the backend is asked. Never logs a
//! question, nor an answer that cannot be used.

mod answer;
mod breaker;
mod cache;
mod counters;
mod gate;
mod line;
mod question;
mod warnings;

use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use futures_util::future::join_all;
use tokio::sync::mpsc;

pub(crate) use self::counters::AllCounters;
pub(crate) use self::gate::Gate;
use self::line::{Job, Line, Terms};
pub(crate) use self::warnings::warnings;
use crate::auth::Auth;
use crate::config::{Config, Hook, HookUrl};
use crate::fetch::{Client, NoRoots};

/// Why a backend cannot be asked with this configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HooksError {
    /// One of `hooks.headers` is not the name of a header.
    #[error("`hooks.headers` has {0:?}, which is not the name of a header")]
    Header(String),
    /// `hooks.secret` cannot stand in a header.
    #[error("`hooks.secret` has bytes that no header can carry: use letters and digits")]
    Secret,
    /// There are no CAs to check the backend with.
    #[error("`hooks`: no CA certificates in this system (is `ca-certificates` installed?); or set SSL_CERT_FILE")]
    NoRoots,
}

/// The hooks that have a URL.
pub(crate) struct Hooks {
    lines: [Option<Arc<Line>>; Hook::ALL.len()],
    /// The headers of clients that the backend gets.
    passed: Box<[HeaderName]>,
}

/// What asks the backend. Run it on the node's main runtime.
pub(crate) struct Asking {
    client: Client,
    queues: Vec<(Arc<Line>, mpsc::Receiver<Job>)>,
    most: usize,
}

impl Hooks {
    /// `None` if no hook has a URL. Uses no network. `clock` returns milliseconds since 1970.
    pub(crate) fn new(
        config: &Config,
        auth: &Auth,
        clock: fn() -> u64,
        counters: &Arc<AllCounters>,
    ) -> Result<Option<(Self, Asking)>, HooksError> {
        let hooks = &config.hooks;
        if Hook::ALL.iter().all(|hook| hooks.url(*hook).is_none()) {
            return Ok(None);
        }
        let header = |name: &String| name.parse().map_err(|_| HooksError::Header(name.clone()));
        let passed = hooks.headers.iter().map(header).collect::<Result<_, _>>()?;
        let mut headers = HeaderMap::new();
        if let Some(secret) = &hooks.secret {
            let value = HeaderValue::from_bytes(&[b"Bearer ", secret.expose()].concat());
            let mut value = value.map_err(|_| HooksError::Secret)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let over_tls = Hook::ALL.iter().any(|hook| hooks.url(*hook).is_some_and(HookUrl::is_private));
        let client = Client::new(over_tls, hooks.max_concurrent).map_err(|NoRoots| HooksError::NoRoots)?;
        let mut asking = Asking { client, queues: Vec::new(), most: hooks.max_concurrent };
        let lines = Hook::ALL.map(|hook| {
            let terms = Terms {
                hook,
                url: hooks.url(hook)?.clone(),
                headers: headers.clone(),
                time: hooks.timeout,
                fails_open: hooks.fail_open.contains(&hook),
                message: config.limits.message.bytes(),
                auth: auth.clone(),
                clock,
                counters: Arc::clone(counters),
            };
            let (line, queue) = Line::new(terms);
            asking.queues.push((Arc::clone(&line), queue));
            Some(line)
        });
        Ok(Some((Self { lines, passed }, asking)))
    }

    fn line(&self, hook: Hook) -> Option<&Arc<Line>> {
        self.lines[hook as usize].as_ref()
    }
}

impl Asking {
    /// Asks the backend, for ever.
    pub(crate) async fn run(self) {
        let Self { client, queues, most } = self;
        let all = queues.into_iter().map(|(line, queue)| {
            let client = &client;
            async move { line.run(client, queue, most).await }
        });
        join_all(all).await;
    }
}

#[cfg(test)]
mod tests;
