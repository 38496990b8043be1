//! `GET /v1/me`: what the key may do, and which node answers.

use axum::http::StatusCode;
use serde_json::json;

use super::Api;
use super::keys::Key;
use super::problem::{Reply, json_reply};
use crate::gate::Right;

impl Api {
    pub(super) fn me(&self, key: &Key) -> Reply {
        let can: Vec<_> = key.backend.can.iter().copied().map(Right::name).collect();
        let channels: Vec<_> = key.backend.channels.iter().map(ToString::to_string).collect();
        let (node, version) = (&self.shared.name, env!("CARGO_PKG_VERSION"));
        let me = json!({ "key": key.id, "can": can, "channels": channels, "node": node, "version": version });
        json_reply(StatusCode::OK, me.to_string())
    }
}
