//! Keeps appends in their order while a line replaces its connection.
//!
//! Shared by the adapters' lines. An append holds a [`Turn`] from the moment it is given a connection until its outcome
//! is known. A new connection is used only after all turns have ended. If one of them failed meanwhile, an append that
//! waited is not sent, because its publisher has to send the failed one first. It fails for the same reason.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::Instant;

use crate::broker::{AppendError, LinkError, Stored};

/// The appends under way on one line.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    under_way: Arc<RwLock<()>>,
    failed: Failed,
}

/// When an append failed last, and why.
type Failed = Arc<Mutex<Option<(Instant, LinkError)>>>;

/// An append under way. It counts as failed unless [`Turn::end`] says otherwise.
#[derive(Debug)]
pub(crate) struct Turn {
    failed: Failed,
    outcome: Result<(), LinkError>,
    _under_way: OwnedRwLockReadGuard<()>,
}

impl Turns {
    /// A turn for an append that was `asked` for at this time; an error if another one failed since then.
    pub(crate) async fn take(&self, asked: Instant) -> Result<Turn, LinkError> {
        let under_way = Arc::clone(&self.under_way).read_owned().await;
        self.check(asked)?;
        let outcome = Err(LinkError::new("it was given up"));
        Ok(Turn { failed: Arc::clone(&self.failed), outcome, _under_way: under_way })
    }

    /// Waits until every turn has ended; an error if one has failed since the time `asked`.
    pub(crate) async fn all_ended(&self, asked: Instant) -> Result<(), LinkError> {
        drop(self.under_way.write().await);
        self.check(asked)
    }

    fn check(&self, asked: Instant) -> Result<(), LinkError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*failed {
            Some((at, why)) if *at >= asked => {
                Err(LinkError::of(why.kind, format!("an earlier append failed on the same connection: {why}")))
            }
            _ => Ok(()),
        }
    }
}

impl Turn {
    /// The append has ended like this.
    pub(crate) fn end(mut self, outcomes: &[Result<Stored, AppendError>]) {
        let failure = |outcome: &Result<Stored, AppendError>| match outcome {
            Ok(_) | Err(AppendError::Rejected(_)) => None,
            Err(AppendError::NotStored(why)) => Some(why.clone()),
            Err(AppendError::Unknown(why)) => Some(LinkError::new(why)),
        };
        self.outcome = outcomes.iter().find_map(failure).map_or(Ok(()), Err);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Err(why) = std::mem::replace(&mut self.outcome, Ok(())) {
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, timeout};

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_waits_for_the_appends_on_the_old_one() {
        let (turns, asked) = (Turns::default(), Instant::now());
        let turn = turns.take(asked).await.expect("nothing has failed");
        assert!(timeout(SHORT, turns.all_ended(asked)).await.is_err());
        turn.end(&[Ok(Stored { at: None }), Err(AppendError::Rejected("too large".into()))]);
        turns.all_ended(asked).await.expect("nothing has to be sent again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_before_a_failure_is_not_sent_and_fails_for_the_same_reason() {
        let turns = Turns::default();
        let full = AppendError::NotStored(LinkError::refused("full"));
        for (outcome, why) in [
            (Some(full), LinkError::refused("an earlier append failed on the same connection: full")),
            (
                Some(AppendError::Unknown("late".into())),
                LinkError::new("an earlier append failed on the same connection: late"),
            ),
            (None, LinkError::new("an earlier append failed on the same connection: it was given up")),
        ] {
            let asked = Instant::now();
            let turn = turns.take(asked).await.expect("asked after the last failure");
            match outcome {
                Some(error) => turn.end(&[Ok(Stored { at: None }), Err(error)]),
                None => drop(turn),
            }
            assert_eq!(turns.take(asked).await.expect_err("not sent"), why);
            assert_eq!(turns.all_ended(asked).await.expect_err("not sent"), why);
            advance(SHORT).await;
        }
    }
}
