//! The link between a node and the embedded log, and the ways in which it can fail.

use tokio::sync::watch;

use crate::broker::LinkError;

/// A link that tests can cut, stall and mend. Whole at first.
#[derive(Debug)]
pub struct Link {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    fault: Option<Fault>,
    /// How often the link was cut.
    session: u64,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut,
    Stalled,
}

/// How a request fared.
pub(super) enum Wire {
    Whole,
    Cut,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::default()) }
    }
}

impl Link {
    /// Every request and every reader fails at once, until mended.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.fault = Some(Fault::Cut);
            state.session += 1;
        });
    }

    /// Nothing fails and nothing answers, as when packets vanish, until mended.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.fault = Some(Fault::Stalled));
    }

    /// The link works again; readers that were cut stay so.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.fault = None);
    }

    /// Waits while the link is stalled.
    pub(super) async fn pass(&self) -> Wire {
        let mut watched = self.state.subscribe();
        match watched.wait_for(|state| !matches!(state.fault, Some(Fault::Stalled))).await.map(|state| state.fault) {
            Ok(None) => Wire::Whole,
            _ => Wire::Cut,
        }
    }

    pub(super) async fn whole(&self) -> Result<(), LinkError> {
        match self.pass().await {
            Wire::Whole => Ok(()),
            Wire::Cut => Err(LinkError::new("the link is cut")),
        }
    }

    /// The number of the present session.
    pub(super) fn session(&self) -> u64 {
        self.state.borrow().session
    }

    /// Waits until the session is over.
    pub(super) async fn ended(&self, session: u64) -> LinkError {
        let mut watched = self.state.subscribe();
        let _ = watched.wait_for(|state| state.session != session).await;
        LinkError::new("the link was cut")
    }
}
