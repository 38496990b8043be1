//! A place for one connection, made when it is first needed and again when it has failed.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::link::{Dialer, Link};
use crate::broker::LinkError;
use crate::turns::{Turn, Turns};

pub(super) struct Line {
    pub(super) dialer: Arc<Dialer>,
    state: Mutex<State>,
    turns: Turns,
}

#[derive(Default)]
struct State {
    link: Option<Arc<Link>>,
    /// The last failure, shared by all who waited for it.
    failed: Option<(Instant, LinkError)>,
    closed: bool,
}

impl Line {
    pub(super) fn new(dialer: Arc<Dialer>) -> Self {
        Self { dialer, state: Mutex::default(), turns: Turns::default() }
    }

    /// The connection. An error means that nothing was sent.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Arc<Link>, LinkError> {
        let asked = Instant::now();
        let mut state = self.lock(deadline).await?;
        self.connect(&mut state, asked, deadline).await
    }

    /// The connection, for an append that must not overtake those before it. An error means that nothing was sent.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<(Arc<Link>, Turn), LinkError> {
        let asked = Instant::now();
        let mut state = self.lock(deadline).await?;
        if !state.link.as_ref().is_some_and(|link| link.usable()) {
            timeout_at(deadline, self.turns.all_ended(asked)).await.map_err(late)??;
        }
        let link = self.connect(&mut state, asked, deadline).await?;
        Ok((link, self.turns.take(asked).await?))
    }

    async fn lock(&self, deadline: Instant) -> Result<MutexGuard<'_, State>, LinkError> {
        let state = timeout_at(deadline, self.state.lock()).await.map_err(late)?;
        if state.closed { Err(LinkError::new("closed")) } else { Ok(state) }
    }

    async fn connect(&self, state: &mut State, asked: Instant, deadline: Instant) -> Result<Arc<Link>, LinkError> {
        if let Some(link) = state.link.as_ref().filter(|link| link.usable()) {
            return Ok(Arc::clone(link));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        state.link = None;
        match timeout_at(deadline, self.dialer.dial()).await.map_err(late)? {
            Ok(link) => Ok(Arc::clone(state.link.insert(Arc::new(link)))),
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The next request makes a new connection; those under way may still be answered.
    pub(super) async fn hang_up(&self) {
        self.state.lock().await.link = None;
    }

    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        if let Some(link) = state.link.take() {
            link.close().await;
        }
    }
}

fn late(_: Elapsed) -> LinkError {
    LinkError::new("no connection to RabbitMQ in time")
}
