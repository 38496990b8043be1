//! The record that says through which event a partition's events are delivered.

use serde::{Deserialize, Serialize};

use crate::cluster::Life;

/// The channel of these records. Clients cannot name it: their channels have no braces.
pub(crate) const CHANNEL: &str = "{webhooks}";

/// The index that stands after all events of a record.
pub(super) const ALL: u32 = u32::MAX;

/// One record. Fields that a release does not know are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The keeper that wrote it.
    pub(super) life: Life,
    /// The offset of the last event's record, and the event's number there. Events up to it are delivered or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) through: Option<(u64, u32)>,
    /// The id of the last event, if the log has lost its record since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// How many events were given up since the last request that was answered well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) missed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
