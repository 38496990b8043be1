//! An answer to the question who is in a channel.

use broker_adapters::Position;

use super::name::Name;
use super::record::Info;

/// Who is in a channel, as far as this node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) members: Vec<(Name, Option<Info>)>,
    /// The last of these members, if there are more.
    pub(crate) next: Option<Name>,
    pub(crate) count: u64,
    /// Whether members may be missing.
    pub(crate) partial: bool,
    /// The names of nodes whose members are not all known.
    pub(crate) missing: Vec<String>,
    /// The record up to which this is true. `None` if the partition has none about members.
    pub(crate) at: Option<Position>,
}
