//! Who is subscribed: `GET /v1/channels`, `GET /v1/channels/{channel}` and `GET /v1/channels/{channel}/presence`.
//!
//! Any node answers for the whole cluster, from what it has folded. Channels whose rules have no `presence` have no subscribers here.

use std::str::FromStr;

use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::json;

use super::Api;
use super::keys::Key;
use super::problem::{Problem, Reply, json_reply};
use crate::gate::Right;
use crate::presence::Name;
use crate::protocol::native::LIMIT;
use crate::protocol::{MOST, attendance};

/// What a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    prefix: String,
    after: Option<String>,
    limit: usize,
}

impl Api {
    /// Some members of a channel.
    pub(super) fn members(&self, key: &Key, head: &Parts, channel: &str) -> Result<Reply, Problem> {
        self.shared.gate.judge_backend(&key.backend, Right::Read, channel)?;
        let Asked { after, limit, .. } = asked(head.uri.query().unwrap_or_default(), &["after", "limit"])?;
        let after = after.as_deref().map(Name::from_str).transpose();
        let after = after.map_err(|error| Problem::bad_request(format!("`after` is {error}")))?;
        let partition = self.shared.log.partition_of(channel);
        let snapshot = self.shared.presence.snapshot(partition, channel, after.as_ref(), limit);
        let json = format!("{{\"channel\":{},{}}}", json!(channel), attendance::snapshot(&snapshot));
        Ok(json_reply(StatusCode::OK, json))
    }

    /// How many subscribers a channel has.
    pub(super) fn channel(&self, key: &Key, head: &Parts, channel: &str) -> Result<Reply, Problem> {
        self.shared.gate.judge_backend(&key.backend, Right::Read, channel)?;
        asked(head.uri.query().unwrap_or_default(), &[])?;
        let snapshot = self.shared.presence.snapshot(self.shared.log.partition_of(channel), channel, None, 0);
        let json = json!({ "channel": channel, "count": snapshot.count, "partial": snapshot.partial });
        Ok(json_reply(StatusCode::OK, json.to_string()))
    }

    /// Some of the channels that have subscribers and that the key may read, in the order of their names.
    pub(super) fn channels(&self, key: &Key, head: &Parts) -> Result<Reply, Problem> {
        let query = head.uri.query().unwrap_or_default();
        let Asked { prefix, after, limit } = asked(query, &["prefix", "after", "limit"])?;
        let (all, partial) = self.shared.presence.channels(&prefix);
        let later = all.into_iter().filter(|(name, _)| after.as_ref().is_none_or(|after| name > after));
        let readable = |name: &str| self.shared.gate.judge_backend(&key.backend, Right::Read, name).is_ok();
        let mut rest = later.filter(|(name, _)| readable(name));
        let some: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().and_then(|_| some.last().map(|(name, _)| name.clone()));
        let channels: Vec<_> = some.iter().map(|(name, count)| json!({ "channel": name, "count": count })).collect();
        let mut json = json!({ "channels": channels, "partial": partial });
        if let Some(next) = next {
            json["next"] = json!(next);
        }
        Ok(json_reply(StatusCode::OK, json.to_string()))
    }
}

/// Reads a query that may have these parameters.
fn asked(query: &str, allowed: &[&str]) -> Result<Asked, Problem> {
    let (mut prefix, mut after, mut limit) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "prefix" => &mut prefix,
            "after" => &mut after,
            _ => &mut limit,
        };
        if !allowed.contains(&&*name) {
            let takes = if allowed.is_empty() { "no parameters".to_owned() } else { allowed.join(", ") };
            return Err(Problem::bad_request(format!("the query takes {takes}")));
        }
        if place.replace(value.into_owned()).is_some() {
            return Err(Problem::bad_request(format!("`{name}` comes twice")));
        }
    }
    let limit = limit.map_or(Ok(LIMIT), |text| text.parse().map_err(drop));
    match limit.map(|limit| (limit, usize::try_from(limit))) {
        Ok((1..=MOST, Ok(limit))) => Ok(Asked { prefix: prefix.unwrap_or_default(), after, limit }),
        _ => Err(Problem::bad_request(format!("`limit` is a number from 1 to {MOST}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_the_parameters_of_its_path_at_most_once() {
        let all = ["prefix", "after", "limit"];
        let of = |prefix: &str, after: Option<&str>, limit| {
            Some(Asked { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit })
        };
        for (query, allowed, expected) in [
            ("", &all[..], of("", None, 100)),
            ("prefix=chat%3A&after=chat:1&limit=7", &all, of("chat:", Some("chat:1"), 7)),
            ("after=user:ann", &all[1..], of("", Some("user:ann"), 100)),
            ("prefix=a", &all[1..], None),
            ("limit=0", &all, None),
            ("limit=1001", &all, None),
            ("limit=1&limit=2", &all, None),
            ("last=1", &[], None),
        ] {
            assert_eq!(asked(query, allowed).ok(), expected, "{query}");
        }
    }
}
