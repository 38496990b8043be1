//! Who is in a channel, as `fanfare.v1` and the HTTP API write it.
//!
//! Pure.

use broker_adapters::Position;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::native::quoted;
use crate::presence::{Change, Info, Name, Snapshot};

/// A member, with what its token says of it.
fn member((name, info): &(Name, Option<Info>)) -> String {
    let info = info.as_deref().filter(|info| serde_json::from_str::<&RawValue>(info).is_ok());
    let info = info.map_or_else(String::new, |info| format!(",\"info\":{info}"));
    format!("{{\"{}\":{}{info}}}", name.kind(), quoted(name.text()))
}

fn list(members: &[(Name, Option<Info>)]) -> String {
    members.iter().map(member).collect::<Vec<_>>().join(",")
}

/// The fields of a snapshot.
pub(crate) fn snapshot(snapshot: &Snapshot) -> String {
    let Snapshot { members, next, count, partial, missing, at } = snapshot;
    let mut rest = Map::new();
    if let Some(next) = next {
        rest.insert("next".to_owned(), json!(next.to_string()));
    }
    rest.insert("count".to_owned(), json!(count));
    if *partial {
        rest.insert("partial".to_owned(), json!(true));
        rest.insert("missing".to_owned(), json!(missing));
    }
    if let Some(at) = at {
        rest.insert("at".to_owned(), json!(at.to_string()));
    }
    let rest = Value::Object(rest).to_string();
    format!("\"members\":[{}],{}", list(members), &rest[1..rest.len() - 1])
}

/// A snapshot in the reply to `subscribe`.
pub(super) fn in_subscribed(of: &Snapshot) -> String {
    format!(",\"presence\":{{{}}}", snapshot(of))
}

/// The reply to `presence`.
pub(super) fn page(channel: &str, of: &Snapshot) -> String {
    format!("\"ok\":{{\"channel\":{},{}}}", quoted(channel), snapshot(of))
}

/// A change. Lists without entries are left out.
pub(super) fn change(of: &Change, at: Position) -> String {
    format!("{{\"channel\":{},\"presence\":{{{}}}}}", quoted(&of.channel), changed(of, at))
}

/// The fields of a change.
fn changed(change: &Change, at: Position) -> String {
    let Change { joined, left, count, .. } = change;
    let left: Vec<_> = left.iter().map(|name| (name.clone(), None)).collect();
    let named = |key: &str, members: &[_]| match members {
        [] => String::new(),
        members => format!("\"{key}\":[{}],", list(members)),
    };
    let (joined, left) = (named("joined", joined), named("left", &left));
    format!("{joined}{left}\"count\":{count},\"at\":\"{at}\"")
}

/// A list as the data of an event, whose name says what it is.
pub(super) fn list_event(channel: &str, of: &Snapshot) -> String {
    format!("{{\"channel\":{},{}}}", quoted(channel), snapshot(of))
}

/// A change as the data of an event.
pub(super) fn change_event(of: &Change, at: Position) -> String {
    format!("{{\"channel\":{},{}}}", quoted(&of.channel), changed(of, at))
}

/// The end of a client's right to see who is there.
pub(super) fn unseen(channel: &str, reason: &str) -> String {
    format!("{{\"channel\":{},\"presence\":{{\"ended\":\"{reason}\"}}}}", quoted(channel))
}

#[cfg(test)]
mod tests {
    use broker_adapters::{Check, Offset, Partition};

    use super::*;
    use crate::presence::Audience;

    #[test]
    fn members_and_their_changes_are_written_as_json() {
        let at = Position { partition: Partition(2), offset: Offset(9), check: Check(0xab) };
        let (ann, x) = ((Name::user("a\"n"), Some(Info::from("{\"age\":7}"))), (Name::client("x"), None));
        let some = Snapshot { members: vec![ann.clone(), x.clone()], count: 2, at: Some(at), ..Snapshot::default() };
        let members = r#""members":[{"user":"a\"n","info":{"age":7}},{"client":"x"}]"#;
        assert_eq!(snapshot(&some), format!(r#"{members},"at":"09.2.ab","count":2"#));
        let more = Snapshot { next: Some(x.0.clone()), partial: true, missing: vec!["n2".into()], ..some };
        let rest = r#""at":"09.2.ab","count":2,"missing":["n2"],"next":"client:x","partial":true"#;
        assert_eq!(page("a", &more), format!(r#""ok":{{"channel":"a",{members},{rest}}}"#));
        let to = Audience::Everyone;
        let of = Change { channel: "a".into(), to, joined: vec![x], left: vec![ann.0], count: 1 };
        let expected = r#"{"channel":"a","presence":{"joined":[{"client":"x"}],"left":[{"user":"a\"n"}],"count":1,"at":"09.2.ab"}}"#;
        assert_eq!(change(&of, at), expected);
        let counted = Change { joined: vec![], left: vec![], ..of };
        assert_eq!(change(&counted, at), r#"{"channel":"a","presence":{"count":1,"at":"09.2.ab"}}"#);
    }
}
