//! Carries out what records of the cluster order: ends connections and subscriptions.
//!
//! Each record costs one pass over the worker's connections, and each connection of a named user one over its channels.

use std::rc::Rc;

use super::Worker;
use super::connection::Connection;
use crate::close::CloseReason;
use crate::cluster::Orders;
use crate::protocol::Notice;

/// A client's serial, and whether it shall reconnect.
type Named = (u32, bool);

impl Worker {
    /// Carries out the orders of one record.
    pub(super) fn obey(&self, orders: &Orders) {
        if orders.revokes {
            self.end_revoked();
        }
        let clients = orders.disconnect.iter().filter_map(|order| {
            let serial = self.serial_of(order.client.as_deref()?)?;
            Some((serial, order.reconnect))
        });
        let clients: Vec<Named> = clients.collect();
        let names_users = !orders.unsubscribe.is_empty() || orders.disconnect.iter().any(|order| order.user.is_some());
        if clients.is_empty() && !names_users {
            return;
        }
        let all: Vec<_> = self.connections.borrow().iter().map(|(_, one)| Rc::clone(one)).collect();
        all.iter().for_each(|connection| self.obey_on(connection, orders, &clients));
        self.flush();
    }

    fn obey_on(&self, connection: &Connection, orders: &Orders, clients: &[Named]) {
        let identity = connection.identity();
        let user = identity.as_ref().and_then(|identity| identity.user());
        let of_user = orders.disconnect.iter().find(|order| user.is_some() && order.user.as_deref() == user);
        let by_id = clients.iter().find(|(serial, _)| *serial == connection.serial);
        if let Some(reconnect) = of_user.map(|order| order.reconnect).or(by_id.map(|(_, reconnect)| *reconnect)) {
            let reason = if reconnect { CloseReason::Moved } else { CloseReason::Disconnected };
            return self.end(connection, reason);
        }
        let of_user: Vec<_> = orders.unsubscribe.iter().filter(|order| user == Some(&order.user)).collect();
        if of_user.is_empty() {
            return;
        }
        for channel in self.channels(connection) {
            if of_user.iter().any(|order| order.names(&channel)) && self.leave(connection, &channel) {
                self.notify(connection, Notice::Unsubscribed { channel: &channel, reason: "removed" });
            }
        }
    }
}
