//! The answer to HAProxy's agent-check: one line to whoever connects, in its words.
//!
//! Says what `/ready` says, and that a node is being drained, which no status code can. A full node
//! says 0 %, and gets no more clients. Nothing between that and 100 %: of HAProxy's default weight, 1, any part is none.

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

    /// Answers one caller after the other, and waits for none, until the socket is gone.
    pub(crate) async fn run(self, health: Arc<Health>, counts: Arc<Counts>) {
        let lines = Sparingly::per(WARNING_INTERVAL);
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => tell(&stream, &line(health.ready(), counts.is_full())),
                Err(error) if endure(&error, "the agent", &lines).await => {}
                Err(_) => return,
            }
        }
    }
}

fn tell(stream: &TcpStream, line: &str) {
    // A fresh socket takes so few bytes at once.
    let _ = stream.try_write(line.as_bytes());
    // What `agent-send` sent: left unread, it would turn our close into a reset.
    let _ = stream.try_read(&mut [0; 256]);
}

/// `drain` must be taken back by `ready` when the node is up again; what stands after `#` is for people.
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
    fn the_line_says_what_ready_says_in_haproxys_words() {
        let health = Health::default();
        let line = |full| super::line(health.ready(), full);
        assert_eq!(line(false), "down #the broker's log is not being read: no record has come yet\n");
        health.set_link(true);
        assert_eq!((line(false), line(true)), ("up ready 100%\n".to_owned(), "up ready 0%\n".to_owned()));
        health.drain();
        assert_eq!(line(false), "drain\n");
        health.set_link(false);
        assert_eq!(line(false), "drain\n");
    }
}
