//! What Kafka's errors and those of its client library mean in words, and what to change where that is known.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::broker::{LinkError, LinkErrorKind};

/// An error of the client library, and what helps.
pub(super) fn failed(error: &KafkaError) -> LinkError {
    let kind = match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => LinkErrorKind::SetUp,
        other => other.rdkafka_error_code().map_or(LinkErrorKind::Unreachable, kind),
    };
    LinkError::of(kind, explain(error))
}

/// What helps against an error of Kafka or its client library.
pub(super) fn kind(code: Code) -> LinkErrorKind {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed => LinkErrorKind::Refused,
        Code::SSL | Code::InvalidRecord | Code::InvalidReplicationFactor => LinkErrorKind::SetUp,
        _ => LinkErrorKind::Unreachable,
    }
}

/// The error without any setting's value: one of them is the password.
pub(super) fn explain(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("the setting {key}: {why}"),
        KafkaError::ClientCreation(why) | KafkaError::AdminOpCreation(why) => why.clone(),
        other => match other.rdkafka_error_code() {
            Some(Code::BrokerTransportFailure | Code::OperationTimedOut) => "no answer in time".into(),
            Some(code) => code.to_string(),
            None => other.to_string(),
        },
    }
}

/// The client library's words about a connection, with what to change where that is known.
pub(super) fn connection(said: &str) -> String {
    let no_tls = ["connecting to a PLAINTEXT", "wrong version number"];
    if no_tls.iter().any(|words| said.contains(words)) {
        return format!("{said}; if this port speaks no TLS, the URL begins with kafka://");
    }
    said.to_owned()
}

/// Advice on a connection that Kafka closed before it answered anything, by the state of that connection.
pub(super) fn never_served(said: &str) -> Option<String> {
    let advice = [
        ("in state APIVERSION_QUERY", "if this port speaks TLS, the URL begins with kafka+ssl://"),
        ("in state UP", "if this port asks for a log-in, the URL has user:password@ before the host"),
    ];
    let (_, advice) = advice.into_iter().find(|(state, _)| said.contains(state))?;
    Some(format!("{said}; {advice}"))
}

/// Why Kafka does not let this node in.
pub(super) fn log_in(said: &str) -> String {
    // `…supported mechanisms: PLAIN,SCRAM-SHA-512 (after 3ms in state AUTH_HANDSHAKE)`.
    let listed = said.split_once("supported mechanisms:").map(|(_, listed)| listed);
    let mechanisms = listed.and_then(|listed| listed.split('(').next()).map(str::trim);
    match mechanisms {
        Some("") => "this port takes no log-in: leave user:password@ out of the broker's URL".into(),
        Some(mechanisms) => {
            format!("it does not take this kind of log-in: it takes {mechanisms}, so set `?sasl=` in the broker's URL")
        }
        None => "it refused the user or the password of the broker's URL".into(),
    }
}

/// Why Kafka refuses a record, if it will refuse all records until an operator changes something.
pub(super) fn refusal(code: Code, topic: &str) -> Option<LinkError> {
    let why = match code {
        Code::TopicAuthorizationFailed => return Some(no_right("write to", topic)),
        Code::ClusterAuthorizationFailed => {
            format!("the user of the broker's URL may not be an idempotent producer: {}", grant(topic))
        }
        Code::InvalidRecord => format!(
            "it refuses records without a key, as a compacted topic does: set `cleanup.policy` of topic `{topic}` to \
             `delete`"
        ),
        _ => return None,
    };
    Some(LinkError::of(kind(code), why))
}

/// The user may not do this to the topic.
pub(super) fn no_right(what: &str, topic: &str) -> LinkError {
    LinkError::refused(format!("the user of the broker's URL may not {what} topic `{topic}`: {}", grant(topic)))
}

fn grant(topic: &str) -> String {
    format!("grant it Read, Write, Describe and DescribeConfigs on topic `{topic}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_to_the_port_is_named() {
        for said in ["Disconnected: connecting to a PLAINTEXT broker listener?", "… wrong version number"] {
            assert!(connection(said).contains("kafka://"), "{said}");
        }
        for (said, advice) in [
            ("Disconnected (after 2ms in state APIVERSION_QUERY)", "kafka+ssl://"),
            ("Disconnected (after 2ms in state UP)", "user:password@"),
        ] {
            assert!(never_served(said).is_some_and(|said| said.contains(advice)), "{said}");
        }
        assert_eq!(never_served("Connection refused (after 0ms in state CONNECT)"), None);
        assert_eq!(connection("Connection refused"), "Connection refused");
    }

    #[test]
    fn a_log_in_of_the_wrong_kind_names_the_right_ones() {
        let said = "SASL mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: \
                    PLAIN,SCRAM-SHA-512 (after 3ms in state AUTH_HANDSHAKE)";
        assert!(log_in(said).contains("takes PLAIN,SCRAM-SHA-512, so set `?sasl=`"), "{}", log_in(said));
        let none = said.replace("PLAIN,SCRAM-SHA-512", "");
        assert!(log_in(&none).contains("no log-in"), "{}", log_in(&none));
        assert!(log_in("SASL authentication error: Authentication failed").contains("password"));
    }
}
