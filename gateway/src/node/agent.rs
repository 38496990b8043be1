//! Answers HAProxy's agent-check with one line.
//!
//! Reports what `/ready` reports, and also that the node is draining, which no status code can say. A full node answers
//! 0 %, so it gets no more clients. There is no value between 0 % and 100 %: HAProxy's default weight is 1, so anything
//! below 100 % becomes 0.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use crate::door::listener::{self, Counts, WARNING_INTERVAL, endure};
use crate::node::health::{Health, NotReady};
use crate::sparingly::Sparingly;

/// A listening agent.
pub(crate) struct Agent {
    socket: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Agent {
    pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = listener::bind(address)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Answers callers one after the other, without waiting for any of them, until the listening socket fails.
    pub(crate) async fn run(self, health: Arc<Health>, counts: Arc<Counts>) {
        let lines = Sparingly::per(WARNING_INTERVAL);
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => answer(&stream, &line(health.ready(), counts.is_full())),
                Err(error) if endure(&error, "the agent", &lines).await => {}
                Err(_) => return,
            }
        }
    }
}

fn answer(stream: &TcpStream, line: &str) {
    // A fresh socket accepts so few bytes at once.
    let _ = stream.try_write(line.as_bytes());
    // Reads what HAProxy's `agent-send` sent: unread bytes would turn our close into a reset.
    let _ = stream.try_read(&mut [0; 256]);
}

/// The line for HAProxy. After `drain`, HAProxy needs `ready` to use the server again, so `up` always comes with it.
/// The text after `#` is for people.
fn line(ready: Result<(), NotReady>, full: bool) -> String {
    match ready {
        Ok(()) if full => "up ready 0%\n".to_owned(),
        Ok(()) => "up ready 100%\n".to_owned(),
        Err(NotReady::Draining) => "drain\n".to_owned(),
        Err(why) => format!("down #{why}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_reports_readiness_in_haproxys_format() {
        let health = Health::default();
        let line = |full| super::line(health.ready(), full);
        assert_eq!(line(false), "down #the broker's log is not being read: no record has been read yet\n");
        health.set_link(true);
        assert_eq!((line(false), line(true)), ("up ready 100%\n".to_owned(), "up ready 0%\n".to_owned()));
        health.drain();
        assert_eq!(line(false), "drain\n");
        health.set_link(false);
        assert_eq!(line(false), "drain\n");
    }
}
