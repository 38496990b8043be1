//! `[node]`.

use serde::{Deserialize, Serialize};

use crate::config::{name, number};

/// The node's name and its threads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Name of the node in logs, headers and the cluster. It must differ from the names of all other nodes. Empty means
    /// `<hostname>-<process id>`. Set it where several machines have the same hostname, or to keep the name after a restart.
    #[serde(deserialize_with = "name::deserialize")]
    pub name: String,
    /// Number of threads that serve connections. 0 means one per core. Lower it to leave cores to other programs.
    #[serde(deserialize_with = "number::between::<_, _, 0, 1024>")]
    pub workers: usize,
}
