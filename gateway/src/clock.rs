//! What time it is, by the runtime's clock: the machine's in a node, one that is turned by hand in a simulation.

use std::time::Instant;

/// Now.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
