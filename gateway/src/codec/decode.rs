//! Decodes bytes from one peer to complete events.
//!
//! Owned, in a node, by that client's worker. An idle decoder is two words and owns no heap memory. While a frame or a
//! message is incomplete, it owns one box and the bytes received, which it hands over with the event. Never buffers
//! beyond a limit: a length is checked when its header arrives, before its payload.

use std::borrow::Cow;
use std::time::Instant;

use super::frame::{Frame, Opcode, close_payload};
use super::utf8::Text;
use super::{Event, Extensions, Limits, Violation};

#[cfg(test)]
mod client;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// The reading half of one connection's protocol.
#[derive(Debug)]
pub struct Decoder {
    extensions: Extensions,
    /// Whether frames must be masked, which is so for frames of a client.
    masked: bool,
    partial: Option<Box<Partial>>,
}

/// Incomplete input: part of a header, of a frame, of a message, or of a control frame inside a message.
#[derive(Debug)]
struct Partial {
    since: Instant,
    head: [u8; Frame::HEADER_MAX],
    head_length: usize,
    /// The frame that the next input byte belongs to. At least one byte of it is missing.
    frame: Option<Frame>,
    message: Option<Message>,
    /// The payload received so far of `frame`, if that is a control frame.
    control: Vec<u8>,
}

#[derive(Debug)]
struct Message {
    fragments: u32,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Text(Text),
    Binary(Vec<u8>),
}

impl Decoder {
    /// A server's decoder, for a connection that was just upgraded.
    pub fn new(extensions: Extensions) -> Self {
        Self { extensions, masked: true, partial: None }
    }

    /// A client's decoder.
    pub fn of_client(extensions: Extensions) -> Self {
        Self { masked: false, ..Self::new(extensions) }
    }

    /// Takes bytes from the front of `input`, up to the end of the next event, and unmasks them in place. Returns
    /// `None` when all of the input is taken and no event is complete. Call it until it returns `None`, and not again
    /// after an error or [`Event::Close`].
    pub fn next<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
        now: Instant,
    ) -> Result<Option<Event<'b>>, Violation> {
        while !input.is_empty() {
            if self.overdue(limits, now) {
                return Err(Violation::MessageTooSlow);
            }
            let mut frame = match self.partial.as_mut().and_then(|partial| partial.frame.take()) {
                Some(frame) => frame,
                None => match self.header(input, now)? {
                    Some(frame) => self.admit(frame, limits)?,
                    None => return Ok(None),
                },
            };
            let here = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.len());
            let payload = take(input, here);
            frame.unmask(payload);
            let event = match frame.opcode.is_control() {
                true => self.control(frame, payload, now)?,
                false => self.data(frame, payload, now)?,
            };
            self.release();
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Whether no frame and no message is incomplete, so that no memory is owned.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Whether a frame or message is incomplete for longer than [`Limits::message_time`]. For timers, since a client
    /// that sends nothing more causes no call of [`Decoder::next`].
    pub fn overdue(&self, limits: &Limits, now: Instant) -> bool {
        self.partial.as_ref().is_some_and(|partial| now.saturating_duration_since(partial.since) > limits.message_time)
    }

    /// Restarts the time of an incomplete message, because the delay until now was not the client's.
    pub fn excuse(&mut self, now: Instant) {
        if let Some(partial) = &mut self.partial {
            partial.since = now;
        }
    }

    /// Reads a header from the input, which may continue a header that an earlier input began.
    fn header(&mut self, input: &mut &mut [u8], now: Instant) -> Result<Option<Frame>, Violation> {
        let (extensions, masked) = (self.extensions, self.masked);
        if self.partial.as_ref().is_none_or(|partial| partial.head_length == 0)
            && let Some((frame, length)) = Frame::parse(input, extensions, masked)?
        {
            take(input, length);
            return Ok(Some(frame));
        }
        let partial = self.partial(now);
        while !input.is_empty() {
            partial.head[partial.head_length] = take(input, 1)[0];
            partial.head_length += 1;
            if let Some((frame, _)) = Frame::parse(&partial.head[..partial.head_length], extensions, masked)? {
                partial.head_length = 0;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Checks a frame's header against the limits and the incomplete message, before any of its payload is kept.
    fn admit(&mut self, frame: Frame, limits: &Limits) -> Result<Frame, Violation> {
        let message = self.partial.as_mut().and_then(|partial| partial.message.as_mut());
        let (length, fragments) = match (frame.opcode, message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(frame),
            (Opcode::Continuation, None) => return Err(Violation::StrayContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::Interleaved),
            (Opcode::Text | Opcode::Binary, None) => (0, 1),
            (Opcode::Continuation, Some(message)) => {
                message.fragments = message.fragments.saturating_add(1);
                (message.body.len(), message.fragments)
            }
        };
        if frame.remaining > limits.message.saturating_sub(length) as u64 {
            return Err(Violation::MessageTooBig);
        }
        if fragments > limits.fragments {
            return Err(Violation::TooManyFragments);
        }
        Ok(frame)
    }

    fn control<'b>(&mut self, frame: Frame, payload: &'b [u8], now: Instant) -> Result<Option<Event<'b>>, Violation> {
        if frame.remaining > 0 {
            let partial = self.partial(now);
            partial.control.extend_from_slice(payload);
            partial.frame = Some(frame);
            return Ok(None);
        }
        let payload = match self.partial.as_mut().map(|partial| std::mem::take(&mut partial.control)) {
            Some(mut earlier) if !earlier.is_empty() => {
                earlier.extend_from_slice(payload);
                Cow::Owned(earlier)
            }
            _ => Cow::Borrowed(payload),
        };
        Ok(Some(match frame.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => Event::Close(close_payload(&payload)?),
        }))
    }

    fn data<'b>(&mut self, frame: Frame, payload: &'b [u8], now: Instant) -> Result<Option<Event<'b>>, Violation> {
        let under_way = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
        if !under_way && frame.fin && frame.remaining == 0 {
            return match frame.opcode {
                Opcode::Text => match str::from_utf8(payload) {
                    Ok(text) => Ok(Some(Event::Text(Cow::Borrowed(text)))),
                    Err(_) => Err(Violation::BadUtf8),
                },
                _ => Ok(Some(Event::Binary(Cow::Borrowed(payload)))),
            };
        }
        let partial = self.partial(now);
        let mut message = partial.message.take().unwrap_or_else(|| Message::new(frame.opcode));
        message.body.push(payload)?;
        if frame.fin && frame.remaining == 0 {
            return message.body.finish().map(Some);
        }
        partial.message = Some(message);
        partial.frame = (frame.remaining > 0).then_some(frame);
        Ok(None)
    }

    fn partial(&mut self, now: Instant) -> &mut Partial {
        self.partial.get_or_insert_with(|| {
            Box::new(Partial {
                since: now,
                head: [0; Frame::HEADER_MAX],
                head_length: 0,
                frame: None,
                message: None,
                control: Vec::new(),
            })
        })
    }

    /// Frees the box when nothing is incomplete.
    fn release(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.frame.is_none() && partial.message.is_none()) {
            self.partial = None;
        }
    }
}

impl Message {
    fn new(opcode: Opcode) -> Self {
        let body = match opcode {
            Opcode::Text => Body::Text(Text::default()),
            _ => Body::Binary(Vec::new()),
        };
        Self { fragments: 1, body }
    }
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        match self {
            Self::Text(text) => text.push(bytes),
            Self::Binary(binary) => {
                binary.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn finish<'b>(self) -> Result<Event<'b>, Violation> {
        Ok(match self {
            Self::Text(text) => Event::Text(Cow::Owned(text.finish()?)),
            Self::Binary(bytes) => Event::Binary(Cow::Owned(bytes)),
        })
    }
}

/// Splits `length` bytes off the front of `input`.
fn take<'b>(input: &mut &'b mut [u8], length: usize) -> &'b mut [u8] {
    let (front, rest) = std::mem::take(input).split_at_mut(length);
    *input = rest;
    front
}
