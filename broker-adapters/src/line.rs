//! A place for one connection, made when it is first needed and again when it has failed.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::broker::LinkError;
use crate::turns::{Turn, Turns};

/// Makes an adapter's connections.
pub(crate) trait Dial: Send + Sync {
    /// One connection. Dropping it closes it.
    type Link: Send + Sync;
    /// The broker's name, for people.
    const BROKER: &'static str;

    /// Makes a connection, which may be used at once.
    fn dial(&self) -> impl Future<Output = Result<Self::Link, LinkError>> + Send;

    /// Whether a connection may be used for a new request.
    fn serves(&self, link: &Self::Link) -> bool;

    /// Closes a connection that others may still hold.
    fn hang_up(link: &Self::Link) -> impl Future<Output = ()> + Send;
}

/// The place, for all who use the connection at the same time.
pub(crate) struct Line<D: Dial> {
    pub(crate) dialer: Arc<D>,
    state: Mutex<State<D::Link>>,
    turns: Turns,
}

struct State<L> {
    link: Option<Arc<L>>,
    /// The last failure, shared by all who waited for it.
    failed: Option<(Instant, LinkError)>,
    closed: bool,
}

impl<D: Dial> Line<D> {
    pub(crate) fn new(dialer: Arc<D>) -> Self {
        let state = State { link: None, failed: None, closed: false };
        Self { dialer, state: Mutex::new(state), turns: Turns::default() }
    }

    /// The connection. An error means that nothing was sent.
    pub(crate) async fn link(&self, deadline: Instant) -> Result<Arc<D::Link>, LinkError> {
        let asked = Instant::now();
        let mut state = self.lock(deadline).await?;
        self.connect(&mut state, asked, deadline).await
    }

    /// The connection, for an append that must not overtake those before it. An error means that nothing was sent.
    pub(crate) async fn turn(&self, deadline: Instant) -> Result<(Arc<D::Link>, Turn), LinkError> {
        let asked = Instant::now();
        let mut state = self.lock(deadline).await?;
        if !state.link.as_ref().is_some_and(|link| self.dialer.serves(link)) {
            // Appends on a connection that is given up end now: to wait for their answers would keep this node at a server
            // that it has to leave.
            if let Some(link) = state.link.take() {
                D::hang_up(&link).await;
            }
            timeout_at(deadline, self.turns.all_ended(asked)).await.map_err(Self::late)??;
        }
        let link = self.connect(&mut state, asked, deadline).await?;
        Ok((link, self.turns.take(asked).await?))
    }

    async fn lock(&self, deadline: Instant) -> Result<MutexGuard<'_, State<D::Link>>, LinkError> {
        let state = timeout_at(deadline, self.state.lock()).await.map_err(Self::late)?;
        if state.closed { Err(LinkError::new("closed")) } else { Ok(state) }
    }

    async fn connect(
        &self,
        state: &mut State<D::Link>,
        asked: Instant,
        deadline: Instant,
    ) -> Result<Arc<D::Link>, LinkError> {
        if let Some(link) = state.link.as_ref().filter(|link| self.dialer.serves(link)) {
            return Ok(Arc::clone(link));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        state.link = None;
        match timeout_at(deadline, self.dialer.dial()).await.map_err(Self::late)? {
            Ok(link) => Ok(Arc::clone(state.link.insert(Arc::new(link)))),
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn late(_: Elapsed) -> LinkError {
        LinkError::new(format!("no connection to {} in time", D::BROKER))
    }

    /// The next request makes a new connection. Requests under way may still be answered.
    pub(crate) async fn renew(&self) {
        self.state.lock().await.link = None;
    }

    /// Later requests fail.
    pub(crate) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        if let Some(link) = state.link.take() {
            D::hang_up(&link).await;
        }
    }
}
