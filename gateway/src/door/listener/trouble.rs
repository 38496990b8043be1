//! What an error of `accept` means, and what to do about it (accept(2), Linux).

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::sparingly::Sparingly;

/// Time for descriptors or memory to become free.
const PAUSE: Duration = Duration::from_millis(100);

/// How often what is used up is said.
pub(crate) const SAID: Duration = Duration::from_secs(60);

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The connection was gone, or its network was, before it was accepted: there may be others.
    Client,
    /// Something is used up, with the way to have more of it. Whoever connects waits in the accept queue.
    Short(&'static str),
    /// The listening socket is of no more use.
    Broken,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(24) => Self::Short("raise the limit of open files (ulimit -n; systemd: LimitNOFILE)"), // EMFILE
            Some(23) => Self::Short("this machine has no descriptors left: sysctl fs.file-max"),        // ENFILE
            Some(105 | 12) => Self::Short("the kernel has no memory left for sockets"), // ENOBUFS, ENOMEM
            Some(9 | 14 | 22 | 88) => Self::Broken, // EBADF, EFAULT, EINVAL, ENOTSOCK
            // EPERM is a firewall's; EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET and EOPNOTSUPP are errors of the client's network.
            Some(1 | 71 | 92 | 112 | 64 | 95) => Self::Client,
            _ => match error.kind() {
                ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted => Self::Client,
                ErrorKind::NetworkDown | ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Self::Client,
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::Client,
                _ => Self::Short("it is tried again"),
            },
        }
    }
}

/// Logs what must be logged, waits if that may help, and says whether to go on.
pub(crate) async fn endure(error: &io::Error, of: &str, lines: &Sparingly) -> bool {
    match Trouble::of(error) {
        Trouble::Client => {}
        Trouble::Short(advice) => {
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
    fn each_error_has_its_own_treatment() {
        let trouble = |number| Trouble::of(&io::Error::from_raw_os_error(number));
        for number in [1, 4, 11, 64, 71, 92, 95, 100, 101, 103, 104, 110, 112, 113] {
            assert_eq!(trouble(number), Trouble::Client, "{}", io::Error::from_raw_os_error(number));
        }
        for (number, advice) in [(24, "ulimit -n"), (23, "fs.file-max"), (105, "memory"), (12, "memory"), (5, "again")]
        {
            assert!(matches!(trouble(number), Trouble::Short(told) if told.contains(advice)), "{number}");
        }
        for number in [9, 14, 22, 88] {
            assert_eq!(trouble(number), Trouble::Broken, "{}", io::Error::from_raw_os_error(number));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_want_of_descriptors_is_waited_for_and_a_client_that_went_is_not() {
        let (lines, start) = (Sparingly::per(SAID), tokio::time::Instant::now());
        assert!(endure(&io::Error::from_raw_os_error(103), "the listener", &lines).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(endure(&io::Error::from_raw_os_error(24), "the listener", &lines).await);
        assert_eq!(start.elapsed(), PAUSE);
        assert!(!endure(&io::Error::from_raw_os_error(9), "the listener", &lines).await);
    }
}
