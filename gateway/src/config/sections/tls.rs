//! `[tls]`.

use serde::{Deserialize, Serialize};

/// TLS in the node, for deployments without a balancer that terminates it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file with the certificate and its chain. Empty means no TLS. If it is set, the node accepts only TLS 1.2 or newer.
    /// SIGHUP reads this file and `key` again; open connections stay.
    pub certificate: String,
    /// PEM file with the certificate's private key. Only the node's user should be able to read it.
    pub key: String,
}
