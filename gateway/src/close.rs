//! All reasons that end a connection, and their effect on the client, the app, the log and the metrics, in one table.
//!
//! A client may decide by the code alone, so all reasons with the same code agree on whether to reconnect.

use std::borrow::Cow;

use crate::codec::Violation;
use crate::errors_page::see;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The server has finished with the connection.
    Normal,
    /// The client sent no message for longer than the idle limit.
    Idle,
    /// The node is shutting down: the drain's deadline has passed, or the operator cut the drain short.
    GoingAway,
    /// The client broke RFC 6455.
    Protocol(Violation),
    /// A kind of message that the protocol does not support, such as binary where only text is allowed.
    Unsupported,
    /// A text that is not UTF-8.
    BadUtf8,
    /// A message in too many fragments.
    TooManyFragments,
    /// A message that took too long to arrive.
    MessageTooSlow,
    /// Far more pings than the allowed rate.
    PingFlood,
    /// A message over the size limit.
    MessageTooBig,
    /// A handler, or the connection's own task, panicked.
    Internal,
    /// This node is being drained.
    Drain,
    /// This node has no room for the connection.
    Overload,
    /// The client reads more slowly than messages come, and its outbox is full.
    TooSlow,
    /// Messages were lost, and the client's protocol has no message for that.
    MessagesLost,
    /// The client's token is missing, bad or expired.
    Unauthorised,
    /// The client is not allowed to connect.
    Forbidden,
    /// The client's token could not be checked in time.
    AuthTimeout,
    /// The backend has ended the connection.
    Disconnected,
    /// The client shall go to another node, or come back.
    Moved,
    /// Another connection has taken this one's place.
    Replaced,
    /// The client kept sending requests after it was refused many times for its rate.
    RateLimited,
    /// The client closed first, with this code or without one.
    PeerClosed(Option<u16>),
    /// The connection ended without a close frame: end of stream, or a reset.
    PeerVanished,
    /// The client did not answer a ping in time.
    PingTimeout,
}

/// A row of the table.
struct Row {
    code: Option<u16>,
    text: &'static str,
    label: &'static str,
    reconnect: bool,
    in_order: bool,
}

impl CloseReason {
    fn row(self) -> Row {
        const YES: bool = true;
        const NO: bool = false;
        // Code, text, label, reconnect, in order.
        let (code, text, label, reconnect, in_order) = match self {
            Self::Normal => (Some(1000), "done", "normal", NO, YES),
            Self::Idle => (Some(1000), "idle for too long", "idle", NO, YES),
            Self::GoingAway => (Some(1001), "this node is shutting down: reconnect", "going_away", YES, YES),
            Self::Protocol(_) => (Some(1002), "protocol error", "protocol_error", NO, YES),
            Self::Unsupported => {
                (Some(1003), "this kind of message is not supported here", "unsupported_data", NO, YES)
            }
            Self::BadUtf8 => (Some(1007), "text is not valid UTF-8", "bad_utf8", NO, YES),
            Self::TooManyFragments => (Some(1008), "a message has too many fragments", "too_many_fragments", NO, YES),
            Self::MessageTooSlow => (Some(1008), "a message took too long to arrive", "message_too_slow", NO, YES),
            Self::PingFlood => (Some(1008), "too many pings", "ping_flood", NO, YES),
            Self::MessageTooBig => (Some(1009), "a message is too big", "message_too_big", NO, YES),
            Self::Internal => (Some(1011), "an internal error: reconnect", "internal", YES, NO),
            Self::Drain => (Some(1012), "this node is restarting: reconnect", "drain", YES, NO),
            Self::Overload => (Some(1013), "this node is full or has no broker: reconnect later", "overload", YES, NO),
            Self::Unauthorised => (Some(4401), "no valid token: get a new one, then resume", "unauthorised", YES, NO),
            Self::Forbidden => (Some(4403), "not allowed here", "forbidden", NO, NO),
            Self::AuthTimeout => {
                (Some(4408), "the token could not be checked in time: reconnect", "auth_timeout", YES, NO)
            }
            Self::Disconnected => (Some(4403), "disconnected by the application", "disconnected", NO, NO),
            Self::Moved => (Some(1012), "asked to connect again: reconnect and resume", "moved", YES, NO),
            Self::Replaced => (Some(4409), "replaced by another connection", "replaced", NO, NO),
            Self::TooSlow => (Some(4410), "reading too slowly: reconnect and resume", "too_slow", YES, NO),
            Self::MessagesLost => (Some(4411), "messages were lost: reload and reconnect", "messages_lost", YES, NO),
            Self::RateLimited => (Some(4429), "too many requests: reconnect later, and slow down", "rate", YES, NO),
            // RFC 6455 §5.5.1: the code is echoed. Without a code, 1000 stands for a normal close.
            Self::PeerClosed(code) => (Some(code.unwrap_or(1000)), "closed by the client", "peer_closed", NO, YES),
            Self::PeerVanished => (None, "the client vanished", "peer_vanished", YES, NO),
            Self::PingTimeout => (None, "no answer to a ping", "ping_timeout", YES, NO),
        };
        Row { code, text, label, reconnect, in_order }
    }

    /// The code of the close frame to send; `None` if no close frame can be sent or would be read.
    pub fn code(self) -> Option<u16> {
        self.row().code
    }

    /// The text for the close frame and the log: at most 123 bytes, so that it fits in the frame.
    pub fn text(self) -> Cow<'static, str> {
        let Row { code, text, .. } = self.row();
        match (self, code) {
            // The table's text alone would not name which of a dozen rules was broken.
            (Self::Protocol(violation), _) => Cow::Owned(format!("{text}: {violation}{}", see(1002))),
            (Self::Normal | Self::Idle | Self::PeerClosed(_), _) | (_, None) => Cow::Borrowed(text),
            (_, Some(code)) => Cow::Owned(format!("{text}{}", see(code))),
        }
    }

    /// The value of the metrics' `reason` label, in snake_case.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// Whether the client should reconnect.
    pub fn reconnect(self) -> bool {
        self.row().reconnect
    }

    /// Whether a client that knows only the code should reconnect.
    pub(crate) fn reconnect_after(code: u16) -> bool {
        !matches!(code, 1000 | 1002 | 1003 | 1007 | 1008 | 1009 | 4403 | 4409)
    }

    /// Whether the app's handler first receives all earlier messages. Otherwise the connection is closed at once.
    pub fn in_order(self) -> bool {
        self.row().in_order
    }
}

impl From<Violation> for CloseReason {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::BadUtf8 => Self::BadUtf8,
            Violation::MessageTooBig => Self::MessageTooBig,
            Violation::TooManyFragments => Self::TooManyFragments,
            Violation::MessageTooSlow => Self::MessageTooSlow,
            Violation::Unmasked
            | Violation::Masked
            | Violation::ReservedBit
            | Violation::ReservedOpcode(_)
            | Violation::ControlTooLong
            | Violation::ControlFragmented
            | Violation::StrayContinuation
            | Violation::Interleaved
            | Violation::LengthTopBit
            | Violation::LengthNotMinimal
            | Violation::CloseTruncated
            | Violation::CloseCode(_) => Self::Protocol(violation),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const ALL: [CloseReason; 27] = [
        CloseReason::Normal,
        CloseReason::Idle,
        CloseReason::GoingAway,
        CloseReason::Protocol(Violation::Unmasked),
        CloseReason::Unsupported,
        CloseReason::BadUtf8,
        CloseReason::TooManyFragments,
        CloseReason::MessageTooSlow,
        CloseReason::PingFlood,
        CloseReason::MessageTooBig,
        CloseReason::Internal,
        CloseReason::Drain,
        CloseReason::Overload,
        CloseReason::TooSlow,
        CloseReason::MessagesLost,
        CloseReason::Unauthorised,
        CloseReason::Forbidden,
        CloseReason::AuthTimeout,
        CloseReason::Disconnected,
        CloseReason::Moved,
        CloseReason::Replaced,
        CloseReason::RateLimited,
        CloseReason::PeerClosed(None),
        CloseReason::PeerVanished,
        CloseReason::PingTimeout,
        CloseReason::PeerClosed(Some(4000)),
        CloseReason::Protocol(Violation::CloseCode(65535)),
    ];

    const VIOLATIONS: [(Violation, u16); 15] = [
        (Violation::Unmasked, 1002),
        (Violation::ReservedBit, 1002),
        (Violation::ReservedOpcode(15), 1002),
        (Violation::ControlTooLong, 1002),
        (Violation::ControlFragmented, 1002),
        (Violation::StrayContinuation, 1002),
        (Violation::Interleaved, 1002),
        (Violation::LengthTopBit, 1002),
        (Violation::LengthNotMinimal, 1002),
        (Violation::CloseTruncated, 1002),
        (Violation::CloseCode(65535), 1002),
        (Violation::BadUtf8, 1007),
        (Violation::TooManyFragments, 1008),
        (Violation::MessageTooSlow, 1008),
        (Violation::MessageTooBig, 1009),
    ];

    #[test]
    fn every_violation_has_its_close_code_and_says_which_rule_was_broken() {
        for (violation, code) in VIOLATIONS {
            let reason = CloseReason::from(violation);
            assert_eq!(reason.code(), Some(code), "{violation:?}");
            let words = if code == 1002 { violation.to_string() } else { String::new() };
            let end = format!("{words}; see docs/errors.md#{code}");
            assert!(reason.text().ends_with(&end), "{violation:?}: {}", reason.text());
            assert!(reason.text().len() <= 123);
        }
    }

    #[test]
    fn texts_fit_in_a_frame_and_labels_are_distinct_snake_case() {
        let mut labels = HashSet::new();
        for reason in ALL {
            assert!((1..=123).contains(&reason.text().len()), "{reason:?}");
            assert!(
                reason.label().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            labels.insert(reason.label());
        }
        assert_eq!(labels.len(), 25, "one for each variant");
    }

    #[test]
    fn a_code_alone_says_whether_to_reconnect() {
        let mut by_code = HashMap::new();
        for reason in ALL {
            if let (Some(code), false) = (reason.code(), matches!(reason, CloseReason::PeerClosed(_))) {
                assert_eq!(*by_code.entry(code).or_insert(reason.reconnect()), reason.reconnect(), "{code}");
                assert_eq!(CloseReason::reconnect_after(code), reason.reconnect(), "{code}");
            }
        }
    }

    #[test]
    fn a_client_that_closes_gets_its_own_code_back() {
        assert_eq!(CloseReason::PeerClosed(Some(4000)).code(), Some(4000));
        assert_eq!(CloseReason::PeerClosed(None).code(), Some(1000));
        assert_eq!(CloseReason::PeerVanished.code(), None);
    }
}
