//! Clients that are turned away: each is told so, and has a moment to read it.
//!
//! Owns their sockets for so long: closed at once, what they send meanwhile would be answered by a reset, which may
//! overtake the answer. At most [`MOST`] are kept; in a flood the oldest has to go.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The answer, before anything of the client was read.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 48\r\n\r\nThis node takes no more connections now: retry.\n";

/// How long a client may take to read it.
const MOMENT: Duration = Duration::from_secs(1);

/// Sockets that are kept.
const MOST: usize = 256;

/// Those that were turned away a moment ago.
#[derive(Debug, Default)]
pub(super) struct Parting {
    sockets: VecDeque<(Instant, TcpStream)>,
}

impl Parting {
    /// Turns a client away.
    pub(super) fn refuse(&mut self, stream: TcpStream) {
        if !dismiss(&stream) {
            return;
        }
        if self.sockets.len() == MOST {
            self.sockets.pop_front();
        }
        self.sockets.push_back((Instant::now() + MOMENT, stream));
    }

    /// Lets go of the oldest when its time has come.
    pub(super) async fn let_go(&mut self) {
        match self.sockets.front() {
            Some((until, _)) => sleep_until(*until).await,
            None => std::future::pending().await,
        }
        self.sockets.pop_front();
    }
}

/// Tells a client that it is turned away; false if that cannot be done. Dropped at once, it may see a reset instead.
pub(super) fn dismiss(mut stream: &TcpStream) -> bool {
    // A fresh socket takes so few bytes at once; if not, the client sees a plain close.
    stream.write(ANSWER).is_ok() && stream.shutdown(Shutdown::Write).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_length_it_says() {
        let text = std::str::from_utf8(ANSWER).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
