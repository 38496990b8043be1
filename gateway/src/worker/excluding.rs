//! Messages that one client does not get: their publisher has named it.
//!
//! The client's place moves on all the same: its next message, or ping, names a later position.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker_adapters::{Extension, Record};

use super::Worker;
use super::connection::Connection;

/// Whether a message is not for all clients.
pub(super) fn excludes(record: &Record) -> bool {
    record.extensions.get(Extension::Excluded).is_some()
}

impl Worker {
    /// The serial of the client of this worker that does not get a message, if there is one.
    pub(super) fn excluded(&self, record: &Record) -> Option<u32> {
        self.serial_of(record.extensions.get(Extension::Excluded)?)
    }

    /// The serial of a client by its id, if it is or was one of this worker.
    pub(super) fn serial_of(&self, client: &str) -> Option<u32> {
        let id = URL_SAFE_NO_PAD.decode(client).ok()?;
        let (number, serial) = id.split_first_chunk()?;
        (*number == self.number.to_be_bytes()).then(|| serial.try_into().ok().map(u32::from_be_bytes))?
    }

    /// Whether a client does not get a message.
    pub(super) fn is_excluded(&self, connection: &Connection, record: &Record) -> bool {
        self.excluded(record) == Some(connection.serial)
    }
}
