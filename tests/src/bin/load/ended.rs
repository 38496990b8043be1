//! How a server ended a connection.

use std::fmt;
use std::io::ErrorKind;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    Closed {
        code: u16,
        reason: String,
    },
    /// The stream ended without a close frame.
    WithoutClose,
    Broken(ErrorKind),
}

/// The error of reading from a connection that the server has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) connection: usize,
    pub(crate) how: How,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, reason } if reason.is_empty() => write!(f, "code {code}"),
            Self::Closed { code, reason } => write!(f, "code {code} ({reason})"),
            Self::WithoutClose => f.write_str("no close frame"),
            Self::Broken(ErrorKind::ConnectionReset) => f.write_str("a reset"),
            Self::Broken(kind) => write!(f, "an error: {kind}"),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server closed connection {} with {}", self.connection, self.how)
    }
}

impl std::error::Error for Ended {}
