//! The two ways to speak to a gateway: `/raw/{channel}` and the native `fanfare.v1`.
//!
//! Every message is a text of a given size that begins with its sequence number. Pure.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::frame::{self, TEXT};
use crate::target::Target;

/// Digits of a sequence number, and so the size of the least message.
pub(crate) const DIGITS: usize = 12;
pub(crate) const CHANNEL: &str = "bench";
/// The key and answer of RFC 6455 §1.3, so that a client needs no SHA-1.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Every text frame is a message, every message a text frame
    Raw,
    /// JSON objects in text frames, subprotocol fanfare.v1
    Native,
}

/// What a text frame from the server was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Messages,
    Subscribed,
    Ping,
    Other,
}

impl Protocol {
    /// The path at which gateways speak it.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Raw => format!("/raw/{CHANNEL}"),
            Self::Native => "/ws".to_owned(),
        }
    }

    /// The request that opens a WebSocket, for the user of a token if there is one.
    pub(crate) fn upgrade(self, target: &Target, token: Option<&str>) -> String {
        let user = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let subprotocol = match self {
            Self::Raw => "",
            Self::Native => "Sec-WebSocket-Protocol: fanfare.v1\r\n",
        };
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n{subprotocol}{user}\r\n",
            target.path, target.address
        )
    }

    /// Appends the frame that subscribes; `false` when a connection is subscribed by its handshake.
    pub(crate) fn append_subscribe(self, out: &mut Vec<u8>) -> bool {
        if self == Self::Native {
            let object = format!(r#"{{"id":1,"subscribe":{{"channel":"{CHANNEL}"}}}}"#);
            frame::append_masked(out, TEXT, object.as_bytes());
        }
        self == Self::Native
    }

    /// Appends the frame that publishes a message of `size` bytes.
    pub(crate) fn append_publish(self, out: &mut Vec<u8>, sequence: u64, size: usize) {
        let mut text = format!("{sequence:0DIGITS$}");
        text.extend(std::iter::repeat_n('.', size.saturating_sub(DIGITS)));
        match self {
            Self::Raw => frame::append_masked(out, TEXT, text.as_bytes()),
            Self::Native => {
                let id = sequence + 2;
                let object = format!(r#"{{"id":{id},"publish":{{"channel":"{CHANNEL}","data":"{text}"}}}}"#);
                frame::append_masked(out, TEXT, object.as_bytes());
            }
        }
    }

    /// Appends the answer to a native ping.
    pub(crate) fn append_pong(out: &mut Vec<u8>) {
        frame::append_masked(out, TEXT, br#"{"pong":{}}"#);
    }

    /// Reads a text frame and passes on the numbers of the messages in it.
    ///
    /// # Errors
    /// When the server refuses, reports a loss, or sends what was never published; or when `hear` fails.
    pub(crate) fn read(
        self,
        text: &[u8],
        size: Option<usize>,
        hear: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Heard> {
        if self == Self::Native {
            return read_objects(text, hear);
        }
        if let Some(size) = size {
            ensure!(text.len() == size, "a message of {} bytes, published were {size}: {}", text.len(), shown(text));
        }
        hear(number(text)?)?;
        Ok(Heard::Messages)
    }
}

/// Checks the answer to an upgrade request, without the empty line at its end.
///
/// # Errors
/// When the server did not switch to WebSocket.
pub(crate) fn check_upgrade(answer: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 101"), "the server refused the WebSocket: {status}");
    let accepted = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT);
    ensure!(accepted, "the server's sec-websocket-accept does not belong to our key: {text}");
    Ok(())
}

fn read_objects(text: &[u8], hear: &mut dyn FnMut(u64) -> Result<()>) -> Result<Heard> {
    const DATA: &[u8] = br#""data":""#;
    let mut heard = Heard::Other;
    let mut rest = text;
    if text.starts_with(br#"{"channel":"#) {
        while let Some(at) = find(rest, DATA) {
            rest = &rest[at + DATA.len()..];
            hear(number(rest)?)?;
            heard = Heard::Messages;
        }
    }
    if heard == Heard::Messages {
        return Ok(heard);
    }
    if text.starts_with(br#"{"id":1,"ok""#) {
        return Ok(Heard::Subscribed);
    }
    if text.starts_with(br#"{"ping""#) {
        return Ok(Heard::Ping);
    }
    if find(text, br#""error":"#).is_some() || find(text, br#""lost":"#).is_some() {
        bail!("the server says: {}", shown(text));
    }
    Ok(heard)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn number(text: &[u8]) -> Result<u64> {
    let digits = text.get(..DIGITS).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let digits = digits.with_context(|| format!("a message without a sequence number: {}", shown(text)))?;
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(protocol: Protocol, text: &str, size: Option<usize>) -> Result<(Heard, Vec<u64>)> {
        let mut numbers = Vec::new();
        let heard = protocol.read(text.as_bytes(), size, &mut |number| {
            numbers.push(number);
            Ok(())
        })?;
        Ok((heard, numbers))
    }

    fn published(protocol: Protocol, sequence: u64, size: usize) -> String {
        let mut bytes = Vec::new();
        protocol.append_publish(&mut bytes, sequence, size);
        let head = frame::head(&bytes, usize::MAX).unwrap().unwrap();
        let mut body = bytes[head.size..].to_vec();
        frame::mask(&mut body, head.key.unwrap());
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn a_raw_message_has_exactly_its_size_and_comes_back_as_its_number() {
        for (sequence, size) in [(0, 12), (7, 64), (999_999_999_999, 70_000)] {
            let text = published(Protocol::Raw, sequence, size);
            assert_eq!(text.len(), size);
            assert_eq!(read(Protocol::Raw, &text, Some(size)).unwrap(), (Heard::Messages, vec![sequence]));
            assert!(read(Protocol::Raw, &text, Some(size + 1)).is_err(), "a message of another size");
        }
        assert!(read(Protocol::Raw, "00000000000x....", None).is_err());
        assert!(read(Protocol::Raw, "123", None).is_err());
    }

    #[test]
    fn native_frames_are_recognised_by_their_kind() {
        let data = format!("{:012}....", 41);
        let delivery = format!(r#"{{"channel":"bench","data":"{data}","at":"x:1:2"}}"#);
        let batch = format!("{delivery}\n{}", delivery.replace("41", "42"));
        for (text, expected) in [
            (delivery.as_str(), (Heard::Messages, vec![41])),
            (batch.as_str(), (Heard::Messages, vec![41, 42])),
            (r#"{"id":1,"ok":{"channel":"bench","at":"x"}}"#, (Heard::Subscribed, vec![])),
            (r#"{"id":12,"ok":{"at":"x"}}"#, (Heard::Other, vec![])),
            (r#"{"ping":{"at":{}}}"#, (Heard::Ping, vec![])),
            (r#"{"hello":{"node":"a"}}"#, (Heard::Other, vec![])),
        ] {
            assert_eq!(read(Protocol::Native, text, Some(16)).unwrap(), expected, "{text}");
        }
        for text in [
            r#"{"id":3,"error":{"code":"forbidden","message":"no","retry":false}}"#,
            r#"{"channel":"bench","lost":{"after":"x","reason":"trimmed"}}"#,
        ] {
            let error = read(Protocol::Native, text, None).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(published(Protocol::Native, 5, 20).starts_with(r#"{"id":7,"publish":{"channel":"bench","data":"0000"#));
    }

    #[test]
    fn only_the_right_answer_to_our_key_opens_a_connection() {
        let right = format!("HTTP/1.1 101 Switching Protocols\r\nSEC-WebSocket-Accept: {ACCEPT}\r\n");
        check_upgrade(right.as_bytes()).unwrap();
        for wrong in
            [right.replace("101", "200"), right.replace("s3p", "S3p"), right.replace("Accept", "Key"), String::new()]
        {
            assert!(check_upgrade(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
