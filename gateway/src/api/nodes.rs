//! `GET /v1/nodes`: the nodes that live, as the node that answers knows them.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::problem::{Reply, json_reply};
use crate::cluster::Live;

impl Api {
    pub(super) fn nodes(&self) -> Reply {
        let cluster = &self.shared.cluster;
        let (me, now) = (cluster.me(), (self.shared.clock)());
        let mut lives = cluster.lives();
        lives.sort_by(|one, other| one.node.name.cmp(&other.node.name));
        let nodes: Vec<_> = lives.iter().map(|live| self.node(live, live.life() == me, now)).collect();
        let document = json!({ "nodes": nodes, "complete": cluster.knows_lives() });
        json_reply(StatusCode::OK, document.to_string())
    }

    /// One node. Of this node itself the figures are those of now.
    fn node(&self, Live { node, heard }: &Live, this: bool, now: u64) -> Value {
        let cluster = &self.shared.cluster;
        let head = cluster.head().filter(|_| this);
        let clients = self.shared.metrics.clients();
        let mut document = json!({
            "name": node.name,
            "id": format!("{:016x}", node.life.node),
            "incarnation": node.life.incarnation,
            "version": node.version,
            "connections": if this { clients.open } else { node.connections },
            "resumable": if this { clients.resumable } else { node.resumable },
            "capacity": node.capacity,
            "draining": node.draining,
            "silent_for": now.saturating_sub(*heard) / 1000,
            "this": this,
        });
        let read = head.map(|head| head.to_string()).or_else(|| node.read.clone());
        for (name, text) in [("api", node.api.clone()), ("read", read)] {
            if let Some(text) = text {
                document[name] = text.into();
            }
        }
        if let Some(shed) = if this { cluster.shed() } else { node.shed.clone() } {
            document["shed"] = json!(shed);
        }
        document
    }
}
