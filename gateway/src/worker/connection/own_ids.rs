//! Events of a client with several channels: each carries an id of its own, which says where the client stands in all of
//! them. The rest of the event is shared with other clients.

use broker_adapters::Position;
use bytes::Bytes;

use super::{Connection, State};
use crate::message::Message;
use crate::protocol::{Format, sse};
use crate::worker::Worker;

impl Connection {
    /// A run of messages of one channel, with this client's ids.
    pub(in crate::worker) fn own_messages<'a>(&self, run: impl Iterator<Item = &'a Message>) -> Bytes {
        let (mut state, mut out) = (self.state.borrow_mut(), Vec::new());
        run.for_each(|message| state.write_own_message(&mut out, self.format, message));
        out.into()
    }

    /// An event that moves the client in one channel, with this client's id.
    pub(in crate::worker) fn own_event(&self, channel: &str, at: Position, event: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(event.len() + 64);
        self.state.borrow_mut().write_own(&mut out, channel, at, without_id(event));
        out.into()
    }

    /// A heartbeat. If the client has several channels, its id says that all of them are read up to the worker's positions.
    pub(in crate::worker) fn own_ping(&self, worker: &Worker, ping: Bytes) -> Bytes {
        let mut state = self.state.borrow_mut();
        // A message that waits comes before the worker's position.
        if state.has_any_waiting() {
            return Bytes::copy_from_slice(without_id(&ping));
        }
        if !self.format.has_own_ids() {
            return ping;
        }
        let (hub, positions) = (worker.hub.borrow(), worker.positions.borrow());
        let State { seats, session, .. } = &mut *state;
        let Some(places) = session.places() else { return ping };
        for seat in seats.iter() {
            let name = hub.name(seat.channel);
            if let Some(at) = positions[usize::from(worker.shared.log.partition_of(name).0)] {
                places.reached(name, at);
            }
        }
        let mut out = id_line(&places.id());
        out.extend_from_slice(without_id(&ping));
        out.into()
    }

    /// What moves the client without an event, as an event if its page must see it.
    pub(in crate::worker) fn seen(&self, event: Bytes) -> Bytes {
        if self.format.has_moves() { sse::seen(event) } else { event }
    }
}

impl State {
    /// Writes a message with this client's id.
    pub(super) fn write_own_message(&mut self, out: &mut Vec<u8>, format: Format, message: &Message) {
        let (channel, at) = (message.record.channel(), message.record.position());
        self.write_own_shared(out, format, (channel, at), message.frame(format.shared()));
    }

    /// The same of a message in the form that clients share.
    pub(super) fn write_own_shared(
        &mut self,
        out: &mut Vec<u8>,
        format: Format,
        (channel, at): (&str, Position),
        shared: &[u8],
    ) {
        if format.is_json() {
            self.write_own(out, channel, at, b"data: ");
            out.extend_from_slice(shared);
            out.push(b'\n');
        } else {
            self.write_own(out, channel, at, without_id(shared));
        }
    }

    fn write_own(&mut self, out: &mut Vec<u8>, channel: &str, at: Position, rest: &[u8]) {
        if let Some(places) = self.session.places() {
            places.reached(channel, at);
            out.extend_from_slice(&id_line(&places.id()));
        }
        out.extend_from_slice(rest);
    }
}

fn id_line(id: &str) -> Vec<u8> {
    format!("{}{id}\n", sse::ID).into_bytes()
}

/// An event without the line of its id, which comes first.
fn without_id(event: &[u8]) -> &[u8] {
    let line = event.iter().position(|byte| *byte == b'\n').filter(|_| event.starts_with(sse::ID.as_bytes()));
    line.map_or(event, |end| &event[end + 1..])
}
