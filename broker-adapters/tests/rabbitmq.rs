//! What only RabbitMQ can do to a log, on a real server. All that it shares with others is in the conformance suite.
#![allow(clippy::print_stdout, reason = "tests print the reasons that brokers give")]
#![cfg(feature = "rabbitmq")]

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{
    Append, AppendError, Broker, Budget, LinkErrorKind, Log, MessageId, NewRecord, Offset, Partition, Payload,
    PublishError, Resume, Settings, Start, Tail, TailEvent, Timing, connect,
};
use bytes::Bytes;
use real_brokers::{PASSWORD, RabbitMq, Server, USER};
use tokio::time::{Instant, timeout};

const SETTINGS: Settings = Settings { partitions: 2, retention: 1000 };
const PATIENCE: Duration = Duration::from_secs(20);

async fn server() -> (RabbitMq, Arc<dyn Broker>) {
    let server = RabbitMq::new(0).expect("a RabbitMQ");
    server.start().await.expect("RabbitMQ starts");
    // The smallest there is: files of 4 KiB. What these tests append would not be known as Fanfare's.
    let url = format!("{}?max-bytes=64KiB&adopt=true", server.inside_url());
    let broker = connect(&url, SETTINGS).expect("a good URL");
    (server, broker)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(3)
}

fn append(partition: u16, text: &str) -> Append {
    Append { partition: Partition(partition), bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

#[tokio::test]
async fn offsets_are_dense_although_rabbitmq_puts_records_of_its_own_into_a_stream() {
    let (_server, broker) = server().await;
    for n in 0..200 {
        let stored = broker.append(&[append(1, &n.to_string())], soon()).await;
        assert!(matches!(stored[..], [Ok(_)]), "{stored:?}");
    }
    let mut opened = broker.open(&[(Partition(1), Start::At(Offset(1)))]).await.expect("it opens");
    let next = opened.standings[0].next;
    let mut entries = Vec::new();
    while entries.len() as u64 + 1 < next.0 {
        entries.extend(timeout(PATIENCE, opened.reader.next()).await.expect("in time").expect("readable"));
    }
    assert!(entries.iter().zip(1..).all(|(entry, offset)| entry.offset == Offset(offset)), "{entries:?}");
    let texts = entries.iter().filter(|entry| entry.bytes.len() < 4);
    assert!(texts.clone().map(|entry| entry.bytes.clone()).eq((0..200).map(|n| Bytes::from(n.to_string()))));
    assert!(entries.len() > 203, "there was more than one file: {}", entries.len());
    let back = broker.read_back(Partition(1), next, entries.len()).await.expect("readable");
    assert_eq!(back, entries);
}

#[tokio::test]
async fn a_record_for_a_deleted_stream_is_surely_not_stored() {
    let (server, broker) = server().await;
    let all = |n: u32| [append(0, &format!("a{n}")), append(1, &format!("b{n}")), append(0, &format!("c{n}"))];
    let stored = broker.append(&all(1), soon()).await;
    assert!(matches!(stored[..], [Ok(_), Ok(_), Ok(_)]), "{stored:?}");
    server.tool(&["delete_queue", "fanfare.0"]).await.expect("RabbitMQ obeys");
    let stored = broker.append(&all(2), soon()).await;
    assert!(
        matches!(&stored[..], [Err(AppendError::NotStored(_)), Ok(_), Err(AppendError::NotStored(_))]),
        "{stored:?}"
    );
    // The first connection finds that the log is another one, the second that it is whole.
    let begin = Instant::now();
    loop {
        let stored = broker.append(&all(3), soon()).await;
        if matches!(stored[..], [Ok(_), Ok(_), Ok(_)]) {
            return;
        }
        assert!(stored.iter().all(|stored| matches!(stored, Err(AppendError::NotStored(_)))), "{stored:?}");
        assert!(begin.elapsed() < PATIENCE, "{stored:?}");
    }
}

#[tokio::test]
async fn a_publisher_whose_channel_is_closed_gets_another() {
    let (server, broker) = server().await;
    let timing = Timing::new(Duration::from_millis(200));
    let log = Log::start(broker, SETTINGS.partitions, timing, Budget { messages: 100, bytes: 1 << 20 });
    let publish = |text: &str, deadline: Instant| {
        let payload = Payload::Text(Bytes::copy_from_slice(text.as_bytes()));
        log.publish(NewRecord::new(MessageId::random(), "room".into(), payload), deadline)
    };
    let mut tail = log.tail_all(Resume::Head);
    publish("before", soon()).await.expect("it is stored");
    // From now on each large publish closes its channel, each on a new connection, and is refused for that. Heartbeats pass.
    let limit = |bytes: u32| {
        format!(
            "application:set_env(rabbit, max_message_size, {bytes}), persistent_term:put(max_message_size, {bytes})."
        )
    };
    server.tool(&["eval", &limit(300)]).await.expect("RabbitMQ obeys");
    server.tool(&["close_all_connections", "closed by an operator"]).await.expect("RabbitMQ obeys");
    let begin = Instant::now();
    let during = publish(&"during".repeat(100), begin + PATIENCE).await;
    assert!(matches!(&during, Err(PublishError::Rejected(why)) if why.contains("max_message_size")), "{during:?}");
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    server.tool(&["eval", &limit(16 << 20)]).await.expect("RabbitMQ obeys");
    publish("after", Instant::now() + PATIENCE).await.expect("it is stored");
    let mut texts = Vec::new();
    let until = async {
        while texts.last().is_none_or(|last| *last != b"after"[..]) {
            for event in tail.next().await.expect("it goes on") {
                match event {
                    TailEvent::Records { seen, .. } => {
                        let messages = seen.into_iter().filter_map(|seen| seen.message);
                        texts.extend(messages.map(|message| message.payload.bytes().clone()));
                    }
                    TailEvent::Lost(lost) => panic!("{lost:?}"),
                    TailEvent::Up { .. } | TailEvent::Down { .. } => {}
                }
            }
        }
    };
    timeout(PATIENCE, until).await.expect("it arrives");
}

/// Why no reader opens.
async fn refusal(url: &str) -> String {
    let broker = connect(url, SETTINGS).expect("a good URL");
    let opened = broker.open(&[(Partition(0), Start::Head), (Partition(1), Start::Head)]).await;
    let error = opened.err().unwrap_or_else(|| panic!("{url} opens"));
    println!("{error}");
    assert!(error.kind.needs_change(), "{error:?}");
    error.why
}

#[tokio::test]
async fn a_password_that_is_changed_while_a_node_runs_is_a_refusal_until_it_is_set_back() {
    let (server, broker) = server().await;
    let control = async |words: &[&str]| server.tool(words).await.expect("RabbitMQ obeys");
    let timing = Timing::new(Duration::from_millis(200));
    let budget = Budget { messages: 100, bytes: 1 << 20 };
    let log = Log::start(Arc::clone(&broker), SETTINGS.partitions, timing, budget);
    let mut tail = log.tail_all(Resume::Head);
    until(&mut tail, |event| matches!(event, TailEvent::Up { .. })).await;
    control(&["change_password", USER, "another"]).await;
    control(&["close_all_connections", "closed by an operator"]).await;
    let refused = |event: &TailEvent| matches!(event, TailEvent::Down { why } if why.contains("password"));
    until(&mut tail, refused).await;
    let error = broker.open(&[(Partition(0), Start::Head)]).await.err().expect("it does not open");
    assert!(error.kind == LinkErrorKind::Refused && !error.why.contains(PASSWORD), "{error:?}");
    control(&["change_password", USER, PASSWORD]).await;
    until(&mut tail, |event| matches!(event, TailEvent::Up { .. })).await;
}

/// Waits until a tail gives this event.
async fn until(tail: &mut Tail, what: impl Fn(&TailEvent) -> bool) {
    let event = async { while !tail.next().await.expect("the log is open").iter().any(&what) {} };
    timeout(PATIENCE, event).await.expect("in time");
}

#[tokio::test]
async fn each_refusal_says_what_to_change() {
    let (server, broker) = server().await;
    let control = async |words: &[&str]| server.tool(words).await.expect("RabbitMQ obeys");
    assert!(broker.append(&[append(0, "a log")], soon()).await[0].is_ok());
    control(&["add_vhost", "empty"]).await;
    for (user, configure, write, read) in
        [("no-configure", "^$", ".*", ".*"), ("no-write", ".*", "^$", ".*"), ("no-read", ".*", ".*", "^$")]
    {
        control(&["add_user", user, PASSWORD]).await;
        control(&["set_permissions", user, configure, write, read]).await;
    }
    let classic = "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"classic.1\">>), true, false, [], none, <<\"nobody\">>).";
    control(&["eval", classic]).await;
    control(&["eval", &classic.replace("classic.1", "other.settings")]).await;
    let url = server.inside_url();
    let ca = server.process().file("ca.pem").display().to_string();
    let host = url.split('@').nth(1).expect("a host");
    let tls_url = server.tls_url(&ca);
    let tls_host = tls_url.split(['@', '?']).nth(1).expect("a host");
    let of = |user: &str, rest: &str| format!("amqp://{user}:{PASSWORD}@{host}{rest}");
    for (url, words) in [
        (format!("amqps://{USER}:{PASSWORD}@{host}?ca={ca}"), &["TLS", "amqp://"][..]),
        (format!("amqp://{USER}:{PASSWORD}@{tls_host}"), &["amqps://"]),
        (format!("{url}/nowhere"), &["vhost nowhere not found", "add_vhost"]),
        (of("no-read", "/empty"), &["access to vhost", "set_permissions -p"]),
        (of("no-configure", "?prefix=new"), &["ACCESS_REFUSED", "`configure`", "`^new\\.`"]),
        (of("no-write", ""), &["ACCESS_REFUSED", "`write`", "amq\\.default"]),
        (of("no-read", ""), &["ACCESS_REFUSED", "`read`"]),
        (format!("{url}?prefix=classic"), &["classic.1", "no stream", "?prefix="]),
        (format!("{url}?prefix=other"), &["other.settings", "no stream", "?prefix="]),
    ] {
        let why = refusal(&url).await;
        assert!(words.iter().all(|word| why.contains(word)), "{url}: {why}");
        assert!(!why.contains(PASSWORD), "{why}");
    }
    let queues = control(&["list_queues", "name"]).await;
    assert!(!queues.contains("classic.settings") && !queues.contains("classic.0"), "nothing is made: {queues}");
}

#[tokio::test]
async fn too_few_channels_are_refused_with_what_to_change() {
    let (server, broker) = server().await;
    let set = |most: u32| format!("application:set_env(rabbit, channel_max, {most}).");
    server.tool(&["eval", &set(13)]).await.expect("RabbitMQ obeys");
    let why = refusal(&server.inside_url()).await;
    assert!(why.contains("13 channels") && why.contains("need 14") && why.contains("channel_max"), "{why}");
    server.tool(&["eval", &set(14)]).await.expect("RabbitMQ obeys");
    let stored = broker.append(&[append(0, "a log")], soon()).await;
    assert!(stored[0].is_ok(), "{stored:?}");
    broker.open(&[(Partition(0), Start::Head), (Partition(1), Start::Head)]).await.expect("that is enough");
}

#[tokio::test]
async fn a_message_that_rabbitmq_finds_too_large_is_refused_and_the_others_go_on() {
    let (server, broker) = server().await;
    let limit = "application:set_env(rabbit, max_message_size, 1000), persistent_term:put(max_message_size, 1000).";
    server.tool(&["eval", limit]).await.expect("RabbitMQ obeys");
    let large = append(0, &"x".repeat(2000));
    let stored = broker.append(&[append(1, "small"), large, append(1, "smaller")], soon()).await;
    assert!(matches!(&stored[1], Err(AppendError::Rejected(why)) if why.contains("1000 bytes")), "{stored:?}");
    assert!(!matches!(stored[2], Ok(_) | Err(AppendError::Rejected(_))), "{stored:?}");
    assert!(broker.append(&[append(1, "smaller")], soon()).await[0].is_ok());
}
