//! A place for one connection, made when it is first needed and again when it has failed.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::link::{Dialer, Link};
use crate::broker::LinkError;

pub(super) struct Line {
    pub(super) dialer: Arc<Dialer>,
    state: Mutex<State>,
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
        Self { dialer, state: Mutex::default() }
    }

    /// The connection. An error means that nothing was sent.
    pub(super) async fn link(&self, deadline: Instant) -> Result<Arc<Link>, LinkError> {
        let asked = Instant::now();
        let late = |_| LinkError::new("no connection to RabbitMQ in time");
        let mut state = timeout_at(deadline, self.state.lock()).await.map_err(late)?;
        if state.closed {
            return Err(LinkError::new("closed"));
        }
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
