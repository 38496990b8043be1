//! What a decision that takes time brings: more than a policy.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::HeaderMap;
use broker_adapters::Payload;

use super::identity::Identity;
use super::policy::Policy;
use crate::protocol::Failure;

/// An action that is allowed after a backend was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Permission {
    pub(crate) policy: Policy,
    /// What to publish instead of the client's message.
    pub(crate) payload: Option<Payload>,
}

impl From<Policy> for Permission {
    fn from(policy: Policy) -> Self {
        Self { policy, payload: None }
    }
}

/// A pending decision.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Permission, Failure>>>>;

/// A pending answer about who a client is.
pub(crate) type Introduction = Pin<Box<dyn Future<Output = Result<Arc<Identity>, Failure>>>>;

/// A client without a token, as its request shows it.
pub(crate) struct Visitor<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) address: IpAddr,
    pub(crate) headers: &'a HeaderMap,
    /// Whether its cookies count: those that a browser sends for a page of another site do not.
    pub(crate) cookies: bool,
}
