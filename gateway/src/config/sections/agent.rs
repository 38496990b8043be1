//! `[agent]`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::address;

/// The answer to HAProxy's agent-check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// IP address and port where each connection gets one line, `up`, `drain` or `down`; "off" means none. Only the balancer
    /// should reach it. `fanfare ready` asks it if `http.listen` has TLS or the PROXY protocol.
    #[serde(with = "address::or_off")]
    pub listen: Option<SocketAddr>,
}
