//! Plain HTTP for tests: one request as it is, one answer as it came.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::{Instant, sleep, timeout};

use crate::PATIENCE;

/// How often [`until`] asks.
const GLANCE: Duration = Duration::from_millis(25);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers, as they came.
    pub head: String,
    /// What followed; nothing after a 101.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Asks for a page.
pub async fn get(address: impl ToSocketAddrs + Display, path: &str) -> Result<Answer> {
    // HTTP/1.0: the answer ends with the connection, whatever stands before the server.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    ask(&mut TcpStream::connect(address).await?, &request).await
}

/// Sends a request on an open connection, which the answer may leave open.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Result<Answer> {
    exchange(stream, request.as_bytes()).await
}

/// Sends a request whose body may be bytes, as [`ask`] does.
pub async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> Result<Answer> {
    let exchange = async {
        stream.write_all(request).await?;
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                bail!("the connection ended after {:?}", String::from_utf8_lossy(&bytes));
            }
        };
        let body = bytes.split_off(head);
        let head = String::from_utf8(bytes)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let answer = Answer { status: status.context("no status code")?, head, body: String::new() };
        let body = rest(stream, &answer, body).await?;
        Ok(Answer { body: String::from_utf8_lossy(&body).into_owned(), ..answer })
    };
    timeout(PATIENCE, exchange).await.context("no answer")?
}

async fn rest(stream: &mut (impl AsyncRead + Unpin), answer: &Answer, mut body: Vec<u8>) -> Result<Vec<u8>> {
    if answer.status == 101 {
        return Ok(body);
    }
    let most: usize = answer.header("content-length").map_or(Ok(usize::MAX), str::parse)?;
    while body.len() < most && stream.read_buf(&mut body).await? > 0 {}
    // HAProxy's own pages come in chunks whatever was asked for.
    if answer.header("transfer-encoding") == Some("chunked") { joined(&body) } else { Ok(body) }
}

/// A body without the marks of its chunks.
fn joined(mut chunks: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = chunks.windows(2).position(|bytes| bytes == b"\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..line])?, 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(chunks.get(line + 2..line + 2 + size).context("a chunk is cut short")?);
        chunks = chunks.get(line + 4 + size..).context("a chunk without an end")?;
    }
}

/// Asks for a page until the answer is as wanted.
pub async fn until(
    address: impl ToSocketAddrs + Display + Copy,
    path: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> Result<Answer> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(address, path).await;
        match answer {
            Ok(answer) if wanted(&answer) => return Ok(answer),
            _ if Instant::now() < deadline => sleep(GLANCE).await,
            Ok(answer) => bail!("http://{address}{path} still answers {}: {}", answer.status, answer.body),
            Err(error) => return Err(error.context(format!("http://{address}{path} still gives no answer"))),
        }
    }
}
