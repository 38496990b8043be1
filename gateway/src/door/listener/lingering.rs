//! Answers clients that are turned away, and keeps their sockets open for [`MOMENT`] so that they can read the answer.
//!
//! A socket that is closed at once answers further data from the client with a reset, and the reset may overtake the answer.
//! At most [`MOST`] sockets are kept; then the oldest is closed.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The answer. It is sent before anything is read from the client.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 48\r\n\r\nThis node takes no more connections now: retry.\n";

/// How long a client may take to read the answer.
const MOMENT: Duration = Duration::from_secs(1);

/// The most sockets that are kept.
const MOST: usize = 256;

/// The sockets of clients that were just turned away.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    sockets: VecDeque<(Instant, TcpStream)>,
}

impl Lingering {
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

    /// Waits until the oldest socket has been kept for [`MOMENT`], and closes it. Cancel safe.
    pub(super) async fn expire(&mut self) {
        match self.sockets.front() {
            Some((until, _)) => sleep_until(*until).await,
            None => std::future::pending().await,
        }
        self.sockets.pop_front();
    }
}

/// Writes the answer; false if that fails. If the socket is then dropped at once, the client may see a reset instead.
pub(super) fn dismiss(mut stream: &TcpStream) -> bool {
    // A new socket has room for this answer. If the write fails, the client sees a plain close.
    stream.write(ANSWER).is_ok() && stream.shutdown(Shutdown::Write).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_length_of_the_answer_is_right() {
        let text = std::str::from_utf8(ANSWER).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
