//! What a request for an event stream asks for: channels, where to begin, and the form of messages.
//!
//! Pure. Decodes the query as browsers encode it (`application/x-www-form-urlencoded`). Parameters that it does not know are
//! ignored, because clients add some against caches.

use std::borrow::Cow;

use axum::http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::app::Parameters;
use crate::protocol::MOST;
use crate::protocol::places::MOST_CHANNELS;

/// A request for an event stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// At least one, each once.
    pub(super) channels: Vec<String>,
    /// An id, or a list of positions.
    pub(super) since: Option<String>,
    pub(super) last: Option<u32>,
    /// Whether the data of an event is the message as JSON, not its payload only.
    pub(super) as_messages: bool,
    /// Whether the client wants to know who is in the channels.
    pub(super) presence: bool,
}

/// Why a request cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("name a channel: /sse?channel=news, or several: /sse?channel=news&channel=sport")]
    NoChannel,
    #[error("name the channel in the path or in the query, not in both")]
    BothWays,
    #[error("a stream has at most {0} channels: open another one for the rest")]
    TooMany(usize),
    #[error("{0} is not UTF-8 when it is decoded")]
    NotUtf8(&'static str),
    #[error("`last` is a number from 1 to {MOST}")]
    Last,
    #[error("`data` is `payload`, which is the default, or `message`")]
    Data,
    #[error("`presence` is `1`, or left out")]
    Presence,
    #[error("send Last-Event-ID once, as the server sent the id")]
    LastEventId,
}

/// Reads a request. The id that a browser sends when it reconnects comes before the one in the URL, which is older.
pub(super) fn read(
    parameters: &Parameters,
    query: Option<&str>,
    headers: &HeaderMap,
    most: usize,
) -> Result<Query, Bad> {
    let mut channels = Vec::new();
    for (_, value) in parameters {
        let channel = percent_decode_str(value).decode_utf8().map_err(|_| Bad::NotUtf8("the channel in the path"))?;
        channels.push(channel.into_owned());
    }
    let (mut since, mut last, mut as_messages, mut presence) = (None, None, false, false);
    for pair in query.unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match &*decode(name).unwrap_or_default() {
            "channel" if !parameters.is_empty() => return Err(Bad::BothWays),
            "channel" => {
                let channel = decode(value).ok_or(Bad::NotUtf8("a channel"))?;
                if !channels.contains(&channel) {
                    channels.push(channel);
                }
            }
            "since" => since = Some(decode(value).ok_or(Bad::NotUtf8("`since`"))?),
            "last" => last = Some(number(value).ok_or(Bad::Last)?),
            "data" => as_messages = is_message(value).ok_or(Bad::Data)?,
            "presence" if value == "1" => presence = true,
            "presence" => return Err(Bad::Presence),
            _ => {}
        }
        if channels.len() > most.min(MOST_CHANNELS) {
            return Err(Bad::TooMany(most.min(MOST_CHANNELS)));
        }
    }
    if channels.is_empty() {
        return Err(Bad::NoChannel);
    }
    if let Some(id) = last_event_id(headers)? {
        since = Some(id);
    }
    Ok(Query { channels, since: since.filter(|since| !since.is_empty()), last, as_messages, presence })
}

/// The number of last messages that the query of a WebSocket asks for.
pub(super) fn last(query: Option<&str>) -> Result<Option<u32>, Bad> {
    let pairs = query.unwrap_or_default().split('&');
    let last = pairs.filter_map(|pair| pair.strip_prefix("last=")).next_back();
    last.map(|value| number(value).ok_or(Bad::Last)).transpose()
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Bad> {
    let mut lines = headers.get_all("last-event-id").iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => {
            let id = id.to_str().map_err(|_| Bad::LastEventId)?;
            Ok((!id.is_empty()).then(|| id.to_owned()))
        }
        (Some(_), Some(_)) => Err(Bad::LastEventId),
    }
}

fn number(value: &str) -> Option<u32> {
    value.parse().ok().filter(|number| (1..=MOST).contains(number))
}

fn is_message(value: &str) -> Option<bool> {
    match value {
        "payload" => Some(false),
        "message" => Some(true),
        _ => None,
    }
}

fn decode(text: &str) -> Option<String> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(query: &str, ids: &[&'static str]) -> Result<Query, Bad> {
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append("last-event-id", HeaderValue::from_static(id));
        }
        read(&Vec::new(), Some(query), &headers, 64)
    }

    #[test]
    fn channels_come_in_their_order_each_once() {
        let query = of("channel=b&channel=room%3A1&_=17&channel=b&last=5&data=message&since=x&presence=1", &[]);
        let query = query.expect("valid");
        assert_eq!(query.channels, ["b", "room:1"]);
        assert_eq!((query.last, query.as_messages, query.since.as_deref()), (Some(5), true, Some("x")));
        assert!(query.presence && !of("channel=a", &[]).expect("valid").presence);
        let path = vec![("channel".to_owned(), "a%2Fb".to_owned())];
        assert_eq!(read(&path, None, &HeaderMap::new(), 64).expect("valid").channels, ["a/b"]);
        assert_eq!(read(&path, Some("channel=c"), &HeaderMap::new(), 64), Err(Bad::BothWays));
    }

    #[test]
    fn the_id_of_a_reconnect_comes_before_the_one_in_the_url() {
        assert_eq!(of("channel=a&since=x", &["y"]).expect("valid").since.as_deref(), Some("y"));
        assert_eq!(of("channel=a&since=x", &[""]).expect("valid").since.as_deref(), Some("x"));
        assert_eq!(of("channel=a&since=", &[]).expect("valid").since, None);
        assert_eq!(of("channel=a", &["x", "y"]), Err(Bad::LastEventId));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let many: Vec<_> = (0..65).map(|number| format!("channel={number}")).collect();
        for (query, bad) in [
            ("", Bad::NoChannel),
            ("chanel=a", Bad::NoChannel),
            ("channel=%ff", Bad::NotUtf8("a channel")),
            ("channel=a&last=0", Bad::Last),
            ("channel=a&last=1001", Bad::Last),
            ("channel=a&last=x", Bad::Last),
            ("channel=a&data=json", Bad::Data),
            ("channel=a&presence=yes", Bad::Presence),
            (&many.join("&"), Bad::TooMany(64)),
        ] {
            assert_eq!(of(query, &[]), Err(bad), "{query}");
        }
    }
}
