//! The current time of the runtime's clock. A node uses the machine's clock, a simulation a simulated one.

use std::time::Instant;

/// The current time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
