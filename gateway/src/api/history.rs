//! `GET /v1/channels/{channel}/history`: older messages, as the command `history` of the native protocol gives them.
//!
//! Answered from the window, and beyond it from pages that are read back from the broker, each once for all that wait.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;
use broker_adapters::Position;
use serde_json::json;
use tokio::time::{interval, timeout};

use super::Api;
use super::keys::Key;
use super::problem::{Problem, Reply, json_reply};
use crate::gate::Right;
use crate::protocol::native::{LIMIT, messages};
use crate::protocol::{MOST, Start};
use crate::window::{Page, Toward};
use crate::worker::catch_up::Wait;
use crate::worker::excerpt::{Answer, Drawn, Excerpt, gone, unavailable};
use crate::worker::waiting::{ASK_AFTER, BEHIND};

/// About the most bytes of messages of one answer.
const ROOM: usize = 1 << 20;

/// The longest time to wait for a page of older records, with those that are read before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a node that is behind looks again.
const GLANCE: Duration = Duration::from_millis(20);

impl Api {
    pub(super) async fn history(&self, key: &Key, head: &Parts, channel: &str) -> Result<Reply, Problem> {
        self.shared.gate.judge_backend(&key.backend, Right::Read, channel)?;
        let (start, limit) = asked(head.uri.query().unwrap_or_default())?;
        let Answer { messages: found, next, complete } =
            self.excerpt(channel, Excerpt::new(start, limit, ROOM)).await?;
        let records: Vec<_> = found.iter().map(|message| &message.record).collect();
        let next = next.map_or_else(String::new, |next| format!(",\"next\":\"{next}\""));
        let (channel, messages) = (json!(channel), messages(&records));
        let json = format!("{{\"channel\":{channel},\"messages\":[{messages}]{next},\"complete\":{complete}}}");
        Ok(json_reply(StatusCode::OK, json))
    }

    async fn excerpt(&self, channel: &str, mut excerpt: Excerpt) -> Result<Answer, Problem> {
        let (window, partition) = (&self.shared.window, self.shared.log.partition_of(channel));
        let mut page: Option<Arc<Page>> = None;
        loop {
            let Some((end, breaks)) = window.end(partition) else { return Err(unavailable().into()) };
            let drawn = excerpt.step(
                end,
                &|message| message.record.size(),
                |at| window.owed(channel, (at, end), breaks, ROOM, page.as_deref()),
                |edge, most| window.preceding(channel, edge, breaks, most, page.as_deref()),
            );
            let wait = match drawn {
                Drawn::Wait(wait) => wait,
                drawn => return answer(drawn),
            };
            let waited = match wait {
                Wait::Node(at) => self.until_read(at).await?.then_some(None),
                Wait::Page(at) => self.page(channel, at, Toward::Later).await?.map(Some),
                Wait::Earlier(at) => self.page(channel, at, Toward::Earlier).await?.map(Some),
                // Only connections wait for room or a turn.
                Wait::Room | Wait::Turn => Some(None),
            };
            page = match waited {
                Some(page) => page,
                None => {
                    let held = matches!(wait, Wait::Earlier(at) if window.holds(at));
                    match excerpt.not_held(held) {
                        None => None,
                        Some(drawn) => return answer(drawn),
                    }
                }
            };
        }
    }

    async fn page(&self, channel: &str, at: Position, toward: Toward) -> Result<Option<Arc<Page>>, Problem> {
        let read = timeout(PATIENCE, self.shared.window.page(&self.shared.log, channel, at, toward)).await;
        read.ok().and_then(Result::ok).ok_or_else(|| unavailable().into())
    }

    /// Waits until the node has read up to a position. Returns false if the log ends before it, so it is of another log.
    async fn until_read(&self, at: Position) -> Result<bool, Problem> {
        let Api { shared, .. } = self;
        let read = async || {
            let mut glance = interval(GLANCE);
            while shared.window.end(at.partition).is_none_or(|(end, _)| end.offset < at.offset) {
                glance.tick().await;
            }
        };
        if timeout(ASK_AFTER, read()).await.is_ok() {
            return Ok(true);
        }
        let head = timeout(PATIENCE, shared.window.head(&shared.log, at.partition)).await;
        match head.ok().and_then(Result::ok) {
            Some(head) if head < at.offset => Ok(false),
            Some(_) => timeout(BEHIND, read()).await.map(|()| true).map_err(|_| unavailable().into()),
            None => Err(unavailable().into()),
        }
    }
}

fn answer(drawn: Drawn) -> Result<Answer, Problem> {
    match drawn {
        Drawn::Answer(answer) => Ok(answer),
        Drawn::Gone => Err(gone().into()),
        Drawn::Unavailable | Drawn::Wait(_) => Err(unavailable().into()),
    }
}

/// What a query asks for.
fn asked(query: &str) -> Result<(Start, u32), Problem> {
    let (mut since, mut before, mut limit) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "since" => &mut since,
            "before" => &mut before,
            "limit" => &mut limit,
            _ => return Err(Problem::bad_request("the query takes `since`, `before` and `limit`")),
        };
        if place.replace(value).is_some() {
            return Err(Problem::bad_request(format!("`{name}` comes twice")));
        }
    }
    let position = |name: &str, text: Option<Cow<'_, str>>| {
        let read = text.map(|text| text.parse::<Position>()).transpose();
        read.map_err(|error| Problem::bad_request(format!("`{name}` is {error}")))
    };
    let start = match (position("since", since)?, position("before", before)?) {
        (Some(since), None) => Start::Since(since),
        (None, Some(before)) => Start::Before(before),
        (None, None) => Start::End,
        (Some(_), Some(_)) => return Err(Problem::bad_request("send `since` or `before`, not both")),
    };
    let limit = limit.map_or(Ok(LIMIT), |text| text.parse().map_err(drop));
    match limit {
        Ok(limit) if (1..=MOST).contains(&limit) => Ok((start, limit)),
        _ => Err(Problem::bad_request(format!("`limit` is a number from 1 to {MOST}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_position_at_most_and_a_limit() {
        let at: Position = "2102.f.abc".parse().expect("a position");
        for (query, expected) in [
            ("", Some((Start::End, LIMIT))),
            ("limit=7", Some((Start::End, 7))),
            ("since=2102.f.abc&limit=1000", Some((Start::Since(at), 1000))),
            ("before=2102.f.abc", Some((Start::Before(at), LIMIT))),
            ("since=2102.f.abc&before=2102.f.abc", None),
            ("since=2102.f.abc&since=2102.f.abc", None),
            ("since=", None),
            ("limit=0", None),
            ("limit=1001", None),
            ("limit=many", None),
            ("last=7", None),
        ] {
            assert_eq!(asked(query).ok(), expected, "{query}");
        }
    }
}
