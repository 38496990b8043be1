//! A stream on which hyper's own refusals get words: what it cannot read as a request it answers with a bare status.
//!
//! Knows them by this: they are heads of answers that no request of the service is waiting for.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::refuse::too_large_text;
use crate::door::stream::Stream;

/// What stands in hyper's head for a body that is not there.
const NO_BODY: &str = "content-length: 0\r\n";

/// The stream of one connection.
pub(super) struct Worded<'a, S = Stream> {
    stream: S,
    /// Requests that the service has seen.
    asked: &'a Cell<u64>,
    /// Answers that were begun.
    answered: u64,
    /// An answer with words that has yet to be written.
    instead: Vec<u8>,
}

impl<'a, S> Worded<'a, S> {
    pub(super) fn new(stream: S, asked: &'a Cell<u64>) -> Self {
        Self { stream, asked, answered: 0, instead: Vec::new() }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

/// The status of an answer, where these bytes begin one.
fn status(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', status @ ..] => status.get(..3),
        _ => None,
    }
}

/// The same answer with words.
fn worded(answer: &[u8]) -> Option<Vec<u8>> {
    let text = match status(answer)? {
        b"400" => {
            "this is no HTTP/1.1 request (RFC 9112): most likely the client speaks TLS, HTTP/2 or the PROXY protocol here, \
             and the node does not; `fanfare probe URL` tests it"
                .to_owned()
        }
        b"414" | b"431" => too_large_text(),
        _ => return None,
    };
    let (before, after) = std::str::from_utf8(answer).ok()?.split_once(NO_BODY)?;
    let length = text.len() + 1;
    let body = format!("content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n{after}{text}\n");
    Some([before.as_bytes(), body.as_bytes()].concat())
}

impl<S: AsyncWrite + Unpin> Worded<'_, S> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.instead.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Worded<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Worded<'_, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        let first: &[u8] = slices.first().map_or(&[], |slice| slice);
        // 100 (Continue) comes before the answer.
        let begins = status(first).is_some_and(|status| status != b"100");
        if begins
            && self.answered == self.asked.get()
            && let Some(instead) = worded(first)
        {
            self.instead = instead;
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        if begins && written > 0 {
            self.answered += 1;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What comes through of answers that are written one by one, each after so many requests.
    async fn through(answers: &[(u64, &str)]) -> String {
        let (near, mut far) = tokio::io::duplex(8 << 10);
        let asked = Cell::new(0);
        let mut stream = Worded::new(near, &asked);
        for (requests, answer) in answers {
            asked.set(*requests);
            stream.write_all(answer.as_bytes()).await.expect("it is open");
            stream.flush().await.expect("it is open");
        }
        drop(stream);
        let mut text = String::new();
        far.read_to_string(&mut text).await.expect("it is text");
        text
    }

    #[tokio::test]
    async fn only_bare_refusals_that_no_request_waits_for_get_words() {
        const BARE: &str = "HTTP/1.1 431 Too Large\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let worded = through(&[(0, BARE)]).await;
        let (head, body) = worded.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 431 Too Large\r\n") && head.ends_with("\r\ndate: now"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())) && body.contains("16 KiB"), "{worded}");

        const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\n";
        for answers in [
            &[(1, BARE)][..],
            &[(1, PAGE), (2, BARE)],
            &[(1, INTERIM), (1, BARE)],
            &[(0, PAGE)],
            &[(0, "HTTP/1.1 431 Too Large\r\ncontent-length: 2\r\n\r\nno")],
            &[(1, PAGE), (1, "a part of a body"), (2, PAGE)],
        ] {
            let plain: String = answers.iter().map(|(_, answer)| *answer).collect();
            assert_eq!(through(answers).await, plain);
        }
        let after_a_page = through(&[(1, PAGE), (1, BARE)]).await;
        assert!(after_a_page.contains("16 KiB"), "{after_a_page}");
    }
}
