//! The cases. They see a fixture, logs and tails; never an adapter.

pub(crate) mod astray;
pub(crate) mod content;
pub(crate) mod damage;
pub(crate) mod delivery;
pub(crate) mod entry;
pub(crate) mod newer;
pub(crate) mod order;
pub(crate) mod outage;
pub(crate) mod restart;
