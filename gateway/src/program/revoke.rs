//! `fanfare revoke`: writes a revocation to the cluster's log, which every node obeys within a second.

use std::path::PathBuf;
use std::time::Duration;

use broker_adapters::{Budget, Log, Position, Resume, Settings, TailEvent, Timing, connect, wall_clock};
use clap::{ArgGroup, Args};
use tokio::time::{Instant, timeout};

use crate::auth::token_id;
use crate::cluster::{CHANNEL, Control, Revocation, publish};
use crate::config::Config;

/// How long the broker may take to be reached and to store the record.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to revoke.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct Options {
    /// The tokens of this user that were issued until now.
    #[arg(long, value_name = "USER", group = "what")]
    user: Option<String>,
    /// The one token with this id (claim `jti`).
    #[arg(long, value_name = "JTI", group = "what")]
    token_id: Option<String>,
    /// All tokens that were issued until now.
    #[arg(long, group = "what")]
    everyone: bool,
    /// Revoke the tokens that were issued until this time, in seconds since 1970, instead of until now.
    #[arg(long, value_name = "SECONDS", conflicts_with = "token_id")]
    issued_until: Option<u64>,
    /// Configuration file (TOML); variables FANFARE__SECTION__KEY override it.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// URL of the broker; overrides broker.url.
    #[arg(long, value_name = "URL")]
    pub(super) broker: Option<String>,
}

impl Options {
    /// The record's content. Times are seconds since 1970; `longest` is the longest life of a token.
    fn revocation(&self, now: u64, longest: u64) -> Revocation {
        match &self.token_id {
            Some(jti) => Revocation::of_token(token_id(jti), now, longest),
            None => Revocation::until(self.user.clone(), self.issued_until.unwrap_or(now), now, longest),
        }
    }
}

/// Writes the revocation. Returns a sentence for the operator.
pub(super) async fn run(options: &Options, config: &Config) -> anyhow::Result<String> {
    let set = &config.broker;
    anyhow::ensure!(
        set.url.expose() != "memory:",
        "broker.url is `memory:`, a log inside the node that this command cannot reach: use the node's HTTP API, POST \
         /v1/users/USER/revoke or /v1/revoke"
    );
    let settings =
        Settings { partitions: set.partitions, retention: usize::try_from(set.retention).unwrap_or(usize::MAX) };
    let broker = connect(set.url.expose(), settings)?;
    let budget = Budget { messages: 16, bytes: 1 << 20 };
    let log = Log::start(broker, set.partitions, Timing { heartbeat: set.heartbeat, clock: wall_clock }, budget);
    let now = wall_clock() / 1000;
    let control = Control { revoke: vec![options.revocation(now, config.auth.longest())], ..Control::default() };
    let stored = write(&log, &control).await;
    log.close(Instant::now() + PATIENCE).await;
    let at = stored?.map_or_else(String::new, |at| format!(" at {at}"));
    Ok(format!("revoked: the broker has stored it{at}, and every node closes these connections with 4401"))
}

/// A log acknowledges only what it can read, so the partition is read until the record is stored.
async fn write(log: &Log, control: &Control) -> anyhow::Result<Option<Position>> {
    let mut tail = log.tail(&[(log.partition_of(CHANNEL), Resume::Head)]);
    let mut why = None;
    let written = async {
        let publishing = publish(log, control);
        tokio::pin!(publishing);
        loop {
            tokio::select! {
                stored = &mut publishing => return stored,
                Some(events) = tail.next() => {
                    why = events.into_iter().find_map(|event| match event {
                        TailEvent::Down { why } => Some(why),
                        _ => None,
                    }).or(why.take());
                }
            }
        }
    };
    match timeout(PATIENCE, written).await {
        Ok(Ok(stored)) => Ok(stored),
        failed => {
            let outcome = failed.ok().and_then(Result::err).map_or("no answer".to_owned(), |error| error.to_string());
            anyhow::bail!(
                "not revoked, or not known to be: {outcome}{}",
                why.map_or_else(String::new, |why| format!(" ({why})"))
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_kept_for_as_long_as_a_token_may_live() {
        let options = |user: Option<&str>, token_id: Option<&str>, issued_until| Options {
            user: user.map(str::to_owned),
            token_id: token_id.map(str::to_owned),
            everyone: user.is_none() && token_id.is_none(),
            issued_until,
            config: None,
            broker: None,
        };
        let of = |options: Options| options.revocation(1_000, 60);
        let token = Some(format!("{:016x}", token_id("t1")));
        assert_eq!(of(options(None, Some("t1"), None)), Revocation { token, user: None, before: None, until: 1_180 });
        let user = Revocation { token: None, user: Some("ann".into()), before: Some(1_000), until: 1_180 };
        assert_eq!(of(options(Some("ann"), None, None)), user);
        let everyone = Revocation { user: None, before: Some(900), ..user };
        assert_eq!(of(options(None, None, Some(900))), everyone);
    }
}
