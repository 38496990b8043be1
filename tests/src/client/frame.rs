//! What can come over a connection, and what a text of the native protocol says.

use serde_json::Value;

/// Something that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message {
        /// Of this channel.
        channel: String,
        /// A text as it is, anything else as JSON.
        data: String,
        /// Its position, where the protocol tells it.
        at: Option<String>,
    },
    /// The word that messages of a channel are lost.
    Lost {
        /// The channel.
        channel: String,
        /// The last position before the gap.
        after: String,
        /// Why.
        reason: String,
    },
    /// The word that the client may not have a channel's messages any more.
    Unsubscribed {
        /// The channel.
        channel: String,
        /// Why.
        reason: String,
    },
    /// Anything else.
    Other(String),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With a close frame, which had this code and this text.
    Closed(u16, String),
    /// Without one.
    Broken,
}

/// A text of the native protocol.
pub(super) enum Incoming {
    Frame(Frame),
    Reply(u64, Value),
}

/// Reads a text of the native protocol.
pub(super) fn native(text: &str) -> Incoming {
    let other = || Incoming::Frame(Frame::Other(text.to_owned()));
    let Ok(value) = serde_json::from_str::<Value>(text) else { return other() };
    let string = |value: &Value| value.as_str().map(str::to_owned);
    match (value["id"].as_u64(), string(&value["channel"])) {
        (Some(id), _) => Incoming::Reply(id, value),
        (None, Some(_)) if value["presence"].is_object() => other(),
        (None, Some(channel)) => match (&value["data"], &value["lost"]) {
            (Value::Null, Value::Object(lost)) => {
                let word = |name: &str| lost.get(name).and_then(string).unwrap_or_default();
                Incoming::Frame(Frame::Lost { channel, after: word("after"), reason: word("reason") })
            }
            (data, Value::Null) => {
                let at = string(&value["at"]);
                Incoming::Frame(Frame::Message { channel, data: string(data).unwrap_or_else(|| data.to_string()), at })
            }
            _ => other(),
        },
        (None, None) => match (string(&value["unsubscribed"]["channel"]), string(&value["unsubscribed"]["reason"])) {
            (Some(channel), Some(reason)) => Incoming::Frame(Frame::Unsubscribed { channel, reason }),
            _ => other(),
        },
    }
}
