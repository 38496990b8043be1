//! Which server the links lead to: all lead to the server of the newest link.
//!
//! After a failover a name or a balancer leads elsewhere, while connections to the old primary stay open. A reader
//! there would see another log than appends go to, so each link says where it leads, and the others follow.

use tokio::sync::watch;

use crate::broker::LinkError;

/// A server, and how often links had to leave one before it became the current.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The id of the server's run; empty if the server does not give it.
    server: String,
    left: u64,
}

/// The current place, and why the one before it was left.
#[derive(Debug, Default)]
pub(super) struct Current {
    place: Place,
    why: Option<LinkError>,
}

/// Where the links of an adapter lead.
#[derive(Debug, Default)]
pub(super) struct Primary(watch::Sender<Current>);

impl Primary {
    /// A new link leads to this server: links to another one are no longer current.
    pub(super) fn arrived(&self, server: String) -> Place {
        self.0.send_if_modified(|now| {
            let elsewhere = now.place.server != server;
            if elsewhere {
                let place = Place { server, left: now.place.left + 1 };
                let why = LinkError::new("a new connection leads to another Redis than this one");
                *now = Current { place, why: Some(why) };
            }
            elsewhere
        });
        self.0.borrow().place.clone()
    }

    /// The server of this link refuses what all links need, so all links to it are outdated.
    pub(super) fn left(&self, place: &Place, why: LinkError) {
        self.0.send_if_modified(|now| {
            let current = now.place == *place;
            if current {
                (now.place.left, now.why) = (now.place.left + 1, Some(why));
            }
            current
        });
    }

    /// Whether a link that leads there may be used.
    pub(super) fn is_current(&self, place: &Place) -> bool {
        self.0.borrow().place == *place
    }

    /// To wait for a change.
    pub(super) fn watch(&self) -> watch::Receiver<Current> {
        self.0.subscribe()
    }
}

/// Waits until a link that leads there is no longer current, and says why.
pub(super) async fn outdated(current: &mut watch::Receiver<Current>, place: &Place) -> LinkError {
    let why = current.wait_for(|now| now.place != *place).await.ok().and_then(|now| now.why.clone());
    match why {
        Some(why) => why,
        // The adapter is gone; the reader lives on without it.
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_follow_the_newest_to_another_server() {
        let primary = Primary::default();
        let old = primary.arrived("a".into());
        assert!(primary.is_current(&old) && primary.is_current(&primary.arrived("a".into())), "two of one server");
        let new = primary.arrived("b".into());
        assert!(primary.is_current(&new) && !primary.is_current(&old));
        assert_ne!(primary.arrived("a".into()), old, "who comes back to a server has been away");
    }

    #[test]
    fn a_server_that_is_left_has_no_current_link_until_one_is_made_anew() {
        let primary = Primary::default();
        let (reader, appends) = (primary.arrived(String::new()), primary.arrived(String::new()));
        primary.left(&appends, "READONLY".into());
        assert!(!primary.is_current(&reader) && !primary.is_current(&appends));
        let again = primary.arrived(String::new());
        primary.left(&appends, "READONLY".into());
        assert!(primary.is_current(&again), "a late answer of an old link says nothing of the new one");
    }
}
