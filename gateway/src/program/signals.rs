//! The signals that a process handles.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks the process to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Stop,
    Interrupt,
    Reload,
}

/// Receives SIGTERM, SIGINT and SIGHUP. Signals between two calls of [`next`](Self::next) are kept.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Interrupt,
            _ = self.hangup.recv() => Request::Reload,
        }
    }
}
