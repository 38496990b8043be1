//! `fanfare explain`: which rule decides what a client may do, and what it decides.
//!
//! It asks no hook: a question may cost the backend something, and here the client is not connected.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::config::Config;
use crate::gate::{self, Answer, Identity};
use crate::program::credential::token;

/// The exit code if a hook decides.
pub const UNDECIDED: u8 = 3;
/// The exit codes of `fanfare explain`, for its help.
pub const EXIT: &str = "Exit code: 0 the client may; 1 it may not, or the token is refused; 2 a mistake in this command line; 3 a hook \
                        decides: the rule asks your backend each time, which this command does not.";

/// A hook decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hook decides")]
pub struct Undecided;

/// What to explain.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Options {
    /// Configuration file (TOML); variables FANFARE__SECTION__KEY override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Token of the client: - reads it from stdin, @FILE from a file, so that other users of this machine do not see it
    /// [default: an anonymous client].
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Name of the channel.
    pub channel: String,
    /// What the client wants to do there.
    pub verb: Verb,
}

/// What a client can do on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Receive its messages.
    Subscribe,
    /// Publish on it.
    Publish,
    /// Read its older messages.
    History,
    /// See who is subscribed.
    Presence,
}

/// Explains a decision. `identify` verifies the token. Returns the explanation and the answer.
pub(super) fn explain(
    options: &Options,
    config: &Config,
    identify: impl Fn(&str) -> Result<Arc<Identity>, String>,
) -> anyhow::Result<(String, Answer)> {
    let identity = match &options.token {
        None => Identity::anonymous(),
        Some(given) => identify(&token(given, io::stdin())?).map_err(anyhow::Error::msg)?,
    };
    let verb = match options.verb {
        Verb::Subscribe => gate::Verb::Subscribe,
        Verb::Publish => gate::Verb::Publish,
        Verb::History => gate::Verb::History,
        Verb::Presence => gate::Verb::Presence,
    };
    let explanation = gate::explain(config, &identity, verb, &options.channel);
    Ok((explanation.to_string(), explanation.answer()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_token_the_client_is_anonymous_and_with_one_it_is_identified() {
        let mut options = Options { config: None, token: None, channel: "news".to_owned(), verb: Verb::Publish };
        let refuse = |_: &str| Err("the token has expired".to_owned());
        let (text, answer) = explain(&options, &Config::default(), refuse).expect("no token to refuse");
        assert!(answer == Answer::Yes && text.contains("anonymous"), "{text}");
        options.token = Some("canary".to_owned());
        let error = explain(&options, &Config::default(), refuse).expect_err("it is refused");
        assert_eq!(format!("{error:#}"), "the token has expired");
        let ann = |_: &str| Ok(Arc::new(Identity { user: Some("ann".into()), ..Identity::default() }));
        let (text, _) = explain(&options, &Config::default(), ann).expect("identified");
        assert!(text.contains("user \"ann\"") && !text.contains("canary"), "{text}");
    }
}
