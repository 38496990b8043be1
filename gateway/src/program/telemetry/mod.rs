//! Output for the operator: the log on stderr, the banner on stdout, and the error of a program that fails.
//!
//! All output goes through a [`Sink`], so a slow or missing reader neither blocks nor fails the node.

mod sink;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use broker_adapters::HANDLED;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use sink::Sink;

/// How long the end of a program waits for a slow reader of its last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// The running log. Dropping it writes the remaining lines, and waits at most [`FLUSH`] for that.
pub(crate) struct Telemetry {
    sink: Sink,
}

impl Telemetry {
    /// Starts the log of this process. If the app has already installed a `tracing` subscriber, that one stays.
    ///
    /// # Errors
    /// Fails without a descriptor or a thread for the log.
    pub(crate) fn start(filter: Targets) -> io::Result<Self> {
        let stderr = io::stderr();
        let sink = Sink::start("log", duplicate(&stderr)?)?;
        let lines = layer().with_ansi(stderr.is_terminal()).log_internal_errors(false).with_writer(sink.clone());
        let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
        panic::set_hook(Box::new(log_panic));
        Ok(Self { sink })
    }

    /// The number of lines dropped so far.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        self.sink.dropped()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.sink.finish(FLUSH);
    }
}

/// Logs a panic. The default hook would write to stderr directly, and might block there.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let why = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(thread = thread.name().unwrap_or_default(), at, ?why, "a panic");
}

/// The filter for a value of `log.level`: levels for all targets and for single ones, separated by commas.
///
/// # Errors
/// Fails if a part of the value is neither a level nor `TARGET=LEVEL`.
pub(crate) fn filter(value: &str) -> anyhow::Result<Targets> {
    let mut filter = Targets::new();
    // Later parts override earlier ones, so the operator's come last.
    for part in HANDLED.split(',').chain(value.split(',')).map(str::trim) {
        let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        let level = Some(level).filter(|level| !level.is_empty()).and_then(|level| level.parse::<LevelFilter>().ok());
        filter = match (target, level) {
            (None, Some(level)) => filter.with_default(level),
            (Some(target), Some(level)) if !target.is_empty() && !target.contains('[') => {
                filter.with_target(target, level)
            }
            _ => bail!(
                "`log.level` = {value:?}: `{part}` is neither a level (off, error, warn, info, debug or trace) nor the level of \
                 a target, such as fanfare=debug"
            ),
        };
    }
    Ok(filter)
}

/// Prints to stdout without waiting for a slow reader.
pub(crate) fn print(text: &str) {
    write(duplicate(&io::stdout()), text, Duration::ZERO);
}

/// Prints to stderr why the program fails. Waits at most [`FLUSH`] for a slow reader.
pub(crate) fn print_error(text: &str) {
    write(duplicate(&io::stderr()), text, FLUSH);
}

/// Writes `text` to `file` through a sink. Does nothing if there is no descriptor or thread left for it.
fn write(file: io::Result<File>, text: &str, within: Duration) {
    if let Ok(sink) = file.and_then(|file| Sink::start("print", file)) {
        sink.put(text.as_bytes());
        sink.finish(within);
    }
}

/// Duplicates the descriptor, so that a blocked write does not hold the lock of `stdout` or `stderr`.
fn duplicate(stream: &impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(|owned: OwnedFd| File::from(owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    use tracing::Level;

    fn logs(value: &str, target: &str, level: Level) -> bool {
        filter(value).expect("a good value").would_enable(target, &level)
    }

    #[test]
    fn a_level_is_for_all_targets_or_for_one() {
        for (value, target, lowest) in [
            ("info", "fanfare::worker", Level::INFO),
            ("WARN", "fanfare::worker", Level::WARN),
            ("info,fanfare=debug", "fanfare::worker", Level::DEBUG),
            ("info,fanfare=debug", "broker_adapters", Level::INFO),
            ("fanfare=debug, info", "broker_adapters", Level::INFO),
            ("warn,fanfare::http=trace", "fanfare::http", Level::TRACE),
            ("warn,fanfare::http=trace", "fanfare::worker", Level::WARN),
        ] {
            for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                assert_eq!(logs(value, target, level), level <= lowest, "{value}: {target} at {level}");
            }
        }
        assert!(!logs("off", "fanfare", Level::ERROR) && !logs("fanfare=info", "broker_adapters", Level::ERROR));
    }

    #[test]
    fn errors_that_adapters_handle_are_logged_only_if_the_level_names_their_crate() {
        assert!(!logs("info", "lapin", Level::ERROR));
        assert!(logs("lapin=debug,info", "lapin", Level::DEBUG));
    }

    #[test]
    fn a_value_that_is_no_filter_is_refused_with_what_is_wrong() {
        for (value, part) in [
            ("loud", "loud"),
            ("fanfare=loud", "fanfare=loud"),
            ("info,fanfare", "fanfare"),
            ("info,fanfare=", "fanfare="),
            ("info,=debug", "=debug"),
            ("info,", ""),
            ("", ""),
            ("a=b=info", "a=b=info"),
            ("fanfare[connection]=debug", "fanfare[connection]=debug"),
        ] {
            let why = filter(value).map_or_else(|error| error.to_string(), |_| "it was taken".into());
            assert!(why.starts_with(&format!("`log.level` = {value:?}: `{part}` is neither a level")), "{why}");
        }
    }
}
