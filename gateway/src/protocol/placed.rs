//! What a socket of an app gets if its client asks for positions: each message with its room and its position, so that the
//! client can resume. Its own messages go to the app's handler, as they are.
//!
//! Pure. A message of the route, which is in no room, has no field `room`.

use broker_adapters::{Payload, Position, Record};

use super::native::{quoted, write_content, write_data};
use super::raw::ToHandler;
use super::{Body, Notice, Output, Protocol, Reply, Session};
use crate::close::CloseReason;

/// What the channel of an app's room begins with. Clients of the gateway cannot name it.
pub(crate) const ROOM: &str = "{room}";

/// The protocol.
pub(crate) struct Placed;

impl Protocol for Placed {
    fn open(&self) -> Box<dyn Session> {
        Box::new(ToHandler)
    }

    fn message<'a>(&self, record: &'a Record) -> Body<'a> {
        let mut out = format!("{{{}", of(record.channel())).into_bytes();
        write_content(&mut out, record);
        out.push(b'}');
        Body::text(out)
    }

    fn reply(&self, _id: Option<u64>, reply: &Reply<'_>) -> Output {
        match reply {
            Reply::Subscribed { channel, at, recovered, .. } => {
                let recovered = recovered.map_or_else(String::new, |recovered| format!(",\"recovered\":{recovered}"));
                text(format!("{{{}\"at\":\"{at}\"{recovered}}}", of(channel)))
            }
            // The app has left the room before it was answered.
            Reply::Failed(failure) if failure.code == "left" => Output::Nothing,
            Reply::Failed(_) => Output::Close(CloseReason::Overload),
            _ => Output::Nothing,
        }
    }

    fn notice(&self, notice: Notice<'_>) -> Output {
        match notice {
            Notice::Lost { channel, lost } => {
                let (after, reason) = (lost.after, lost.reason);
                text(format!("{{{}\"lost\":{{\"after\":\"{after}\",\"reason\":\"{reason}\"}}}}", of(channel)))
            }
            Notice::Ping(positions) => text(pinged(positions)),
            Notice::Degraded(degraded) => text(format!("{{\"degraded\":{degraded}}}")),
            Notice::Reconnect { after_ms } => text(format!("{{\"reconnect\":{{\"after_ms\":{after_ms}}}}}")),
            // An app's channels have no rules.
            Notice::Unsubscribed { .. } | Notice::Skipped { .. } | Notice::Presence { .. } | Notice::Unseen { .. } => {
                Output::Nothing
            }
        }
    }
}

/// What a client is sent first: the node that it is connected to.
pub(crate) fn greeting(node: &str) -> Body<'static> {
    Body::text(format!("{{\"node\":{}}}", quoted(node)).into_bytes())
}

/// What an app sends to one of its sockets alone. It has no position.
pub(crate) fn direct(payload: &Payload) -> Body<'static> {
    let mut out = vec![b'{'];
    write_data(&mut out, payload);
    out.push(b'}');
    Body::text(out)
}

/// The field that names the room of a channel, if it is one.
fn of(channel: &str) -> String {
    channel.strip_prefix(ROOM).map_or_else(String::new, |room| format!("\"room\":{},", quoted(room)))
}

fn pinged(positions: &[(&str, Position)]) -> String {
    let all: Vec<_> = positions.iter().map(|(channel, at)| format!("{{{}\"at\":\"{at}\"}}", of(channel))).collect();
    format!("{{\"positions\":[{}]}}", all.join(","))
}

fn text(json: String) -> Output {
    Output::Message(Body::text(json.into_bytes()))
}

#[cfg(test)]
mod tests {
    use broker_adapters::{Break, BreakReason, Check, MessageId, Offset, Partition};

    use super::*;

    const AT: Position = Position { partition: Partition(1), offset: Offset(2), check: Check(3) };

    fn shown(output: Output) -> String {
        match output {
            Output::Message(body) => body.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_message_names_its_room_and_its_position() {
        let written = |channel: &'static str, payload| {
            let (partition, offset, id) = (Partition(1), Offset(2), MessageId(3));
            let (channel, extensions) = (channel.into(), Default::default());
            Placed.message(&Record { partition, offset, id, time: 0, channel, payload, extensions }).to_string()
        };
        assert_eq!(
            written("{room}bl\"ue", Payload::Text("hi".into())),
            r#"{"room":"bl\"ue","data":"hi","at":"02.1.3"}"#
        );
        assert_eq!(written("{app}/ws", Payload::Binary("hi".into())), r#"{"base64":"aGk=","at":"02.1.3"}"#);
        assert_eq!(direct(&Payload::Text("a\nb".into())).to_string(), r#"{"data":"a\nb"}"#);
    }

    #[test]
    fn a_client_is_sent_where_it_stands_and_what_it_lost() {
        let subscribed =
            |recovered| Reply::Subscribed { channel: "{room}a", at: AT, recovered, last: None, presence: None };
        let lost = Break { after: AT, at: AT, reason: BreakReason::Reset };
        for (output, expected) in [
            (Placed.reply(None, &subscribed(None)), r#"{"room":"a","at":"02.1.3"}"#),
            (Placed.reply(None, &subscribed(Some(false))), r#"{"room":"a","at":"02.1.3","recovered":false}"#),
            (
                Placed.notice(Notice::Lost { channel: "{app}/ws", lost }),
                r#"{"lost":{"after":"02.1.3","reason":"reset"}}"#,
            ),
            (
                Placed.notice(Notice::Ping(&[("{app}/ws", AT), ("{room}a", AT)])),
                r#"{"positions":[{"at":"02.1.3"},{"room":"a","at":"02.1.3"}]}"#,
            ),
        ] {
            assert_eq!(shown(output), expected);
        }
    }
}
