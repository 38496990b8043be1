//! What a node says to its operator: the log on stderr, the banner on stdout, the last words of a program that fails.
//!
//! All of it leaves through a [`Sink`], so that nothing here waits for whoever reads it, and nothing fails without a reader.

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

/// How long the end of a program may wait for the reader of its last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// The running log. Dropping it writes what is left, for a second at most.
pub(crate) struct Telemetry {
    sink: Sink,
}

impl Telemetry {
    /// Starts the log of this process. An app that has set up a `tracing` subscriber of its own keeps that one.
    pub(crate) fn start(filter: EnvFilter) -> io::Result<Self> {
        let stderr = io::stderr();
        let sink = Sink::start("log", duplicate(&stderr)?)?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(stderr.is_terminal());
        let _ = log.log_internal_errors(false).with_writer(sink.clone()).try_init();
        panic::set_hook(Box::new(log_panic));
        Ok(Self { sink })
    }

    /// The lines that were dropped so far.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        self.sink.dropped()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.sink.finish(FLUSH);
    }
}

/// The default hook would write to stderr itself, and wait there.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let why = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(thread = thread.name().unwrap_or_default(), at, ?why, "a panic");
}

/// The filter for a level as `log.level` gives it.
pub(crate) fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    // Later directives win, so the operator's do.
    EnvFilter::try_new(format!("{HANDLED},{level}")).with_context(|| format!("`log.level` = {level:?}"))
}

/// Prints to stdout, without waiting for a reader.
pub(crate) fn print(text: &str) {
    write(duplicate(&io::stdout()), text, Duration::ZERO);
}

/// Prints to stderr why the program fails; waits for a reader, but not for long.
pub(crate) fn complain(text: &str) {
    write(duplicate(&io::stderr()), text, FLUSH);
}

/// Without a descriptor or a thread there is no one left to say it to.
fn write(file: io::Result<File>, text: &str, within: Duration) {
    if let Ok(sink) = file.and_then(|file| Sink::start("print", file)) {
        sink.put(text.as_bytes());
        sink.finish(within);
    }
}

/// A descriptor of its own: a write that waits holds no lock that others need.
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
    fn what_adapters_handle_is_not_logged_unless_asked_for_by_name() {
        assert_eq!(filtered("info"), "lapin=off,info");
        assert_eq!(filtered("lapin=debug,info"), "lapin=debug,info");
        assert!(
            filtered("gateway=loud").starts_with("`log.level` = \"gateway=loud\": "),
            "{}",
            filtered("gateway=loud")
        );
    }
}
