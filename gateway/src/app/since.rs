//! Where a client of an app left off, by the query of its request: `since` for the route, `since.ROOM` for a room.
//!
//! Pure.

use std::collections::HashMap;

use broker_adapters::{InvalidPosition, Position};
use percent_encoding::percent_decode_str;

/// The positions after which a client wants to receive all messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Since {
    /// Of the route; `None` if the client begins.
    pub(crate) route: Option<Position>,
    rooms: HashMap<String, Position>,
}

impl Since {
    /// Reads a query. `None` if it has no `since`: the client does not ask for positions.
    pub(crate) fn read(query: &str) -> Result<Option<Self>, InvalidPosition> {
        let (mut since, mut asked) = (Self::default(), false);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let position = || (!value.is_empty()).then(|| value.parse::<Position>()).transpose();
            match (name, name.strip_prefix("since.")) {
                ("since", _) => (asked, since.route) = (true, position()?),
                (_, Some(room)) => {
                    let room = percent_decode_str(room).decode_utf8_lossy().into_owned();
                    since.rooms.extend(position()?.map(|at| (room, at)));
                }
                _ => {}
            }
        }
        Ok(asked.then_some(since))
    }

    /// Of a room, for the first time that the socket joins it.
    pub(crate) fn take_room(&mut self, room: &str) -> Option<Position> {
        self.rooms.remove(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_the_position_of_the_route_and_of_each_room() {
        let at = |text: &str| text.parse::<Position>().expect("a position");
        let read = |query| Since::read(query).expect("valid");
        for query in ["", "node", "since.blue=02.1.3", "sincere=1"] {
            assert_eq!(read(query), None, "{query}");
        }
        assert_eq!(read("since"), Some(Since::default()));
        let mut since = read("a=b&since=02.1.3&since.big%20room=05.1.a&since.blue=").expect("asked");
        assert_eq!(since.route, Some(at("02.1.3")));
        assert_eq!([since.take_room("big room"), since.take_room("big room")], [Some(at("05.1.a")), None]);
        assert_eq!(since.take_room("blue"), None);
        assert!(Since::read("since=yesterday").is_err() && Since::read("since&since.blue=x").is_err());
    }
}
