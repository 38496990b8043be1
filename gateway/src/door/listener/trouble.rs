//! Handles errors of `accept` (accept(2), Linux).

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::sparingly::Sparingly;

/// Time to wait for descriptors or memory to become free.
const PAUSE: Duration = Duration::from_millis(100);

/// The interval between two warnings about an exhausted resource.
pub(crate) const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The connection or its network failed before it was accepted. Other connections are not affected.
    Client,
    /// A resource is exhausted, with advice for the operator. New clients wait in the accept queue.
    Exhausted(&'static str),
    /// The listening socket cannot be used any more.
    Broken,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(24) => Self::Exhausted("raise the limit of open files (ulimit -n; systemd: LimitNOFILE)"), // EMFILE
            Some(23) => Self::Exhausted("this machine has no descriptors left: sysctl fs.file-max"),        // ENFILE
            Some(105 | 12) => Self::Exhausted("the kernel has no memory left for sockets"), // ENOBUFS, ENOMEM
            Some(9 | 14 | 22 | 88) => Self::Broken, // EBADF, EFAULT, EINVAL, ENOTSOCK
            // EPERM comes from a firewall; EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET and EOPNOTSUPP from the client's network.
            Some(1 | 71 | 92 | 112 | 64 | 95) => Self::Client,
            _ => match error.kind() {
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted => Self::Client,
                ErrorKind::NetworkDown | ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Self::Client,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Client,
                _ => Self::Exhausted("it will try again"),
            },
        }
    }
}

/// Logs the error if an operator should know it, and waits if that may help. Returns whether to keep accepting. `of` names
/// the listener in the log.
pub(crate) async fn endure(error: &io::Error, of: &str, lines: &Sparingly) -> bool {
    match Trouble::of(error) {
        Trouble::Client => {}
        Trouble::Exhausted(advice) => {
            if let Some(times) = lines.due(Instant::now()) {
                tracing::warn!(%error, times, "{of} cannot accept connections; {advice}");
            }
            sleep(PAUSE).await;
        }
        Trouble::Broken => {
            tracing::error!(%error, "{of} can accept no more connections");
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_classified() {
        let trouble = |number| Trouble::of(&io::Error::from_raw_os_error(number));
        for number in [1, 4, 11, 64, 71, 92, 95, 100, 101, 103, 104, 110, 112, 113] {
            assert_eq!(trouble(number), Trouble::Client, "{}", io::Error::from_raw_os_error(number));
        }
        for (number, advice) in [(24, "ulimit -n"), (23, "fs.file-max"), (105, "memory"), (12, "memory"), (5, "again")]
        {
            assert!(matches!(trouble(number), Trouble::Exhausted(text) if text.contains(advice)), "{number}");
        }
        for number in [9, 14, 22, 88] {
            assert_eq!(trouble(number), Trouble::Broken, "{}", io::Error::from_raw_os_error(number));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_descriptors_but_not_after_a_client_that_left() {
        let (lines, start) = (Sparingly::per(WARNING_INTERVAL), tokio::time::Instant::now());
        assert!(endure(&io::Error::from_raw_os_error(103), "the listener", &lines).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(endure(&io::Error::from_raw_os_error(24), "the listener", &lines).await);
        assert_eq!(start.elapsed(), PAUSE);
        assert!(!endure(&io::Error::from_raw_os_error(9), "the listener", &lines).await);
    }
}
