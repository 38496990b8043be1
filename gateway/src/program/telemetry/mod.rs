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

use anyhow::Context;
use broker_adapters::HANDLED;
use tracing_subscriber::EnvFilter;

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
    pub(crate) fn start(filter: EnvFilter) -> io::Result<Self> {
        let stderr = io::stderr();
        let sink = Sink::start("log", duplicate(&stderr)?)?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(stderr.is_terminal());
        let _ = log.log_internal_errors(false).with_writer(sink.clone()).try_init();
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

/// The filter for a value of `log.level`.
///
/// # Errors
/// Fails if the value is not a valid filter.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    // Later directives override earlier ones, so the operator's come last.
    EnvFilter::try_new(format!("{HANDLED},{level}")).with_context(|| format!("`log.level` = {level:?}"))
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

    fn filtered(level: &str) -> String {
        filter(level).map_or_else(|error| format!("{error:#}"), |filter| filter.to_string())
    }

    #[test]
    fn errors_that_adapters_handle_are_logged_only_if_the_level_names_their_crate() {
        assert_eq!(filtered("info"), "lapin=off,info");
        assert_eq!(filtered("lapin=debug,info"), "lapin=debug,info");
        assert!(
            filtered("gateway=loud").starts_with("`log.level` = \"gateway=loud\": "),
            "{}",
            filtered("gateway=loud")
        );
    }
}
