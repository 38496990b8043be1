//! A stream that adds a text to hyper's own refusals. Hyper answers a request that it cannot parse with a bare status.
//!
//! Recognises such a refusal as the head of a response that no request of the service is waiting for. Also removes the
//! length that hyper gives a response whose body the worker writes later.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::refuse::too_large_text;
use crate::door::stream::Stream;

/// The header with which hyper says that a response has no body.
const NO_BODY: &str = "content-length: 0\r\n";

/// The stream of one connection.
pub(super) struct Worded<'a, S = Stream> {
    stream: S,
    /// The number of requests that the service has received.
    requests: &'a Cell<u64>,
    /// Whether the response to the last request has a body that ends with the connection.
    endless: &'a Cell<bool>,
    /// The number of responses that were begun.
    responses: u64,
    /// A response with a text that is not written completely yet.
    replacement: Vec<u8>,
}

impl<'a, S> Worded<'a, S> {
    pub(super) fn new(stream: S, requests: &'a Cell<u64>, endless: &'a Cell<bool>) -> Self {
        Self { stream, requests, endless, responses: 0, replacement: Vec::new() }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

/// The status of a response, if these bytes begin one.
fn status(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', status @ ..] => status.get(..3),
        _ => None,
    }
}

/// The same head without the length of an empty body. `None` if it has none.
fn endless(head: &[u8]) -> Option<Vec<u8>> {
    let (before, after) = std::str::from_utf8(head).ok()?.split_once(NO_BODY)?;
    Some([before, after].concat().into_bytes())
}

/// The same response with a text. `None` if it is not one of hyper's refusals.
fn worded(answer: &[u8]) -> Option<Vec<u8>> {
    let text = match status(answer)? {
        b"400" => {
            "this is not an HTTP/1.1 request (RFC 9112): the client probably sends TLS, HTTP/2 or a PROXY header, which \
             this port does not expect; `fanfare probe URL` tests it"
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
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.replacement))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.replacement.drain(..written)),
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
        ready!(self.poll_replacement(cx))?;
        let first: &[u8] = slices.first().map_or(&[], |slice| slice);
        // 100 (Continue) comes before the actual response.
        let begins = status(first).is_some_and(|status| status != b"100");
        if begins
            && self.responses == self.requests.get()
            && let Some(replacement) = worded(first)
        {
            self.replacement = replacement;
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        if begins
            && self.endless.get()
            && self.responses + 1 == self.requests.get()
            && let Some(head) = endless(first)
        {
            self.endless.set(false);
            self.responses += 1;
            self.replacement = head;
            return Poll::Ready(Ok(first.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        if begins && written > 0 {
            self.responses += 1;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What a peer receives when `answers` are written one by one, each after the given number of requests.
    async fn through(answers: &[(u64, &str)]) -> String {
        let (near, mut far) = tokio::io::duplex(8 << 10);
        let (received, endless) = (Cell::new(0), Cell::new(false));
        let mut stream = Worded::new(near, &received, &endless);
        for (requests, answer) in answers {
            received.set(*requests);
            stream.write_all(answer.as_bytes()).await.expect("it is open");
            stream.flush().await.expect("it is open");
        }
        drop(stream);
        let mut text = String::new();
        far.read_to_string(&mut text).await.expect("it is text");
        text
    }

    #[tokio::test]
    async fn the_length_is_removed_from_the_head_of_an_endless_body_only() {
        const HEAD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let (near, mut far) = tokio::io::duplex(8 << 10);
        let (received, endless) = (Cell::new(1), Cell::new(false));
        let mut stream = Worded::new(near, &received, &endless);
        stream.write_all(HEAD.as_bytes()).await.expect("it is open");
        received.set(2);
        endless.set(true);
        stream.write_all(HEAD.as_bytes()).await.expect("it is open");
        stream.flush().await.expect("it is open");
        stream.write_all(b"content-length: 0\r\n").await.expect("it is open");
        drop(stream);
        let mut text = String::new();
        far.read_to_string(&mut text).await.expect("it is text");
        let stripped = HEAD.replace(NO_BODY, "");
        assert_eq!(text, format!("{HEAD}{stripped}{NO_BODY}"));
    }

    #[tokio::test]
    async fn only_bare_refusals_that_no_request_waits_for_get_a_text() {
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
