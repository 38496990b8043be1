//! What RabbitMQ's errors mean in words, and what to change where that is known.

use lapin::ErrorKind;

use crate::broker::{LinkError, LinkErrorKind};

/// An error of the client library, and what helps.
pub(super) fn failed(error: &lapin::Error) -> LinkError {
    said(explain(error))
}

/// What RabbitMQ said, and what helps.
pub(super) fn said(said: String) -> LinkError {
    LinkError::of(kind(&said), said)
}

/// An error of the client library about a stream.
pub(super) fn failed_on(stream: &str, error: &lapin::Error) -> LinkError {
    let LinkError { kind, why } = failed(error);
    LinkError::of(kind, format!("stream `{stream}`: {why}"))
}

/// What helps against what was said.
fn kind(said: &str) -> LinkErrorKind {
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    // RabbitMQ names the vhost in many errors, also in those that pass while it starts.
    if has(&[" is down"]) {
        LinkErrorKind::Unreachable
    } else if has(&["ACCESS_REFUSED", "access to vhost"]) {
        LinkErrorKind::Refused
    } else if has(&[NO_AMQP]) {
        LinkErrorKind::Protocol
    } else if has(&[NO_VHOST, "x-stream-offset", "x-queue-type", "feature flag is disabled", "RESOURCE_LOCKED", IS_TLS])
    {
        LinkErrorKind::SetUp
    } else {
        LinkErrorKind::Unreachable
    }
}

/// Another server than RabbitMQ answers.
pub(super) const NO_AMQP: &str = "what answers does not speak AMQP: RabbitMQ's port is 5672, with TLS 5671";
/// The vhost of the broker's URL does not exist.
const NO_VHOST: &str = "NOT_ALLOWED - vhost";
/// A port with TLS answers a connection without.
pub(super) const IS_TLS: &str = "this port speaks TLS: the URL begins with amqps://";

/// What an error says.
pub(super) fn explain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(said) => said.get_message().to_string(),
        ErrorKind::IOError(error) => error.to_string(),
        _ => error.to_string(),
    }
}

/// What RabbitMQ said, with what to do about it. `prefix` is that of the log's names.
pub(super) fn advise(said: &str, prefix: &str) -> String {
    let has = |words: &str| said.contains(words);
    let advice = if has("Login was refused") {
        return "it refused the user or the password of the broker's URL".into();
    } else if has("ACCESS_REFUSED") {
        let of = format!("^{}\\.", prefix.replace('.', "\\."));
        format!(
            "`rabbitmqctl set_permissions` gives its user `configure` and `read` on `{of}` and `write` on \
             `{of}|^amq\\.default$`"
        )
    } else if has("vhost") && has("not found") {
        "the vhost is the path of the broker's URL: name another one, or make it with `rabbitmqctl add_vhost`".into()
    } else if has("access to vhost") {
        "`rabbitmqctl set_permissions -p VHOST` lets its user in".into()
    } else if has("x-stream-offset") || has("inequivalent arg 'x-queue-type'") {
        "it is no stream, so not of a log of Fanfare's: name another `?prefix=`, or delete it".into()
    } else if has("x-queue-type") || has("feature flag is disabled") {
        "this RabbitMQ has no streams: Fanfare needs 3.10 or newer, with `rabbitmqctl enable_feature_flag stream_queue`"
            .into()
    } else if has("RESOURCE_LOCKED") {
        "another program has it for itself: name another `?prefix=`".into()
    } else {
        return said.to_owned();
    };
    format!("{said}; {advice}")
}

/// Whether RabbitMQ will refuse all records until an operator changes something.
pub(super) fn is_refusal(said: &str) -> bool {
    said.contains("ACCESS_REFUSED")
}

/// The largest message that RabbitMQ takes, in bytes, if it has refused one for its size.
pub(super) fn largest_message(said: &str) -> Option<usize> {
    let (_, most) = said.split_once("is larger than configured max size ")?;
    most.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_changed_is_named() {
        for (said, advice) in [
            ("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.", "the password of"),
            ("ACCESS_REFUSED - access to queue 'a.b.0' in vhost '/' refused for user 'me'", "`^a\\.b\\.`"),
            ("NOT_ALLOWED - vhost nowhere not found", "add_vhost"),
            ("NOT_ALLOWED - access to vhost '/' refused for user 'me'", "set_permissions -p"),
            ("PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 'a.b.0'", "no stream"),
            ("PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'a.b.0'", "3.10"),
            ("INTERNAL_ERROR - Cannot declare a queue …: the corresponding feature flag is disabled", "stream_queue"),
        ] {
            let advised = advise(said, "a.b");
            assert!(advised.contains(advice) && kind(said).needs_change(), "{advised}");
        }
        assert_eq!(
            advise("CONNECTION_FORCED - closed by an operator", "a"),
            "CONNECTION_FORCED - closed by an operator"
        );
    }

    #[test]
    fn errors_that_pass_by_themselves_need_no_change() {
        for said in [
            "CONNECTION_FORCED - closed by an operator",
            "NOT_FOUND - home node 'rabbit@one' of durable queue 'a.settings' in vhost '/' is down or inaccessible",
            "PRECONDITION_FAILED - queue 'queue 'a.settings' in vhost '/'' does not have a replica on the local node",
            "INTERNAL_ERROR - access to vhost '/' refused for user 'me': vhost '/' is down",
        ] {
            assert_eq!(kind(said), LinkErrorKind::Unreachable, "{said}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_says_how_large_one_may_be() {
        let said = "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000";
        assert_eq!(largest_message(said), Some(1000));
        assert_eq!(largest_message("PRECONDITION_FAILED - unknown delivery tag 1"), None);
    }
}
