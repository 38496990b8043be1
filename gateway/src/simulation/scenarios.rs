//! Small scenarios of faults that seeds have found.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use broker_adapters::Partition;
use fastrand::Rng;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use super::attendance;
use super::broker::{Model, Traits};
use super::client::wire::{frame, masked};
use super::node::Node;
use super::pipe::{End, pipe};
use super::world::RIGHT;
use crate::cluster;
use crate::config::{ByteSize, Config};
use crate::gate::Identity;
use crate::presence::{self, samples};

/// Longer than a resume waits for its node, in simulated time.
const WHILE: Duration = Duration::from_secs(5);

/// Runs `scenario` on a node that is ready.
fn on_a_node(config: impl FnOnce(&mut Config), scenario: impl AsyncFnOnce(&Node)) {
    fastrand::seed(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs no system resources");
    LocalSet::new().block_on(&runtime, async {
        super::begin_of_time();
        let mut settings = Config::default();
        (settings.node.workers, settings.broker.partitions) = (1, 1);
        config(&mut settings);
        let traits = Traits {
            entries_have_epochs: true,
            entries_have_previous: true,
            acks_have_positions: true,
            chunks: false,
            pipeline: 4,
        };
        let model = Model::new(1, 1, traits, Rng::with_seed(1));
        let node = Node::start(&model, 0, &settings, RIGHT, &mut Rng::with_seed(1));
        let begin = Instant::now();
        while !node.is_ready() {
            assert!(begin.elapsed() < WHILE, "the node is not ready");
            sleep(Duration::from_millis(10)).await;
        }
        scenario(&node).await;
    });
}

fn connect(node: &Node, room: usize) -> End {
    let (mine, theirs) = pipe(room);
    assert!(node.connect(theirs, Identity::anonymous()), "the node accepts the client");
    mine
}

fn send(end: &End, command: &str) {
    assert_eq!(end.try_write(&masked(command)).ok(), Some(masked(command).len()));
}

/// Receives texts until none arrives for [`WHILE`] or the connection ends.
async fn receive(end: &End) -> Vec<String> {
    let (mut input, mut buffer, mut texts) = (VecDeque::new(), [0; 4096], Vec::new());
    while let Ok(count @ 1..) = timeout(WHILE, poll_fn(|cx| end.poll_read(&mut buffer, cx))).await {
        input.extend(&buffer[..count]);
        while let Some((opcode, payload)) = frame(&mut input) {
            texts.extend((opcode == 1).then(|| String::from_utf8_lossy(&payload).into_owned()));
        }
    }
    texts
}

#[test]
fn a_client_that_leaves_during_its_resume_leaves_no_subscription_behind() {
    on_a_node(
        |_| {},
        async |node| {
            // A position that the node has not reached yet, and more replies than fit into the pipe: a write then notices
            // that the client is gone.
            let gone = connect(node, 10);
            send(&gone, r#"{"id":1,"subscribe":{"channel":"secret","since":"1-0-ffff"}}"#);
            send(&gone, r#"{"id":2,"connect":{}}"#);
            sleep(Duration::from_millis(100)).await;
            drop(gone);
            sleep(Duration::from_millis(100)).await;
            let next = connect(node, 10_000);
            sleep(WHILE).await;
            send(&next, r#"{"id":3,"publish":{"channel":"secret","data":1}}"#);
            let received = receive(&next).await;
            assert!(received.len() == 1 && received[0].contains(r#""id":3"#), "{received:?}");
        },
    );
}

#[test]
fn closing_a_slow_client_that_was_the_only_subscriber_of_several_channels_harms_no_other_client() {
    on_a_node(
        |config| config.limits.outbox = ByteSize::kib(1),
        async |node| {
            let slow = connect(node, 10);
            send(&slow, r#"{"subscribe":{"channel":"one"}}"#);
            send(&slow, r#"{"subscribe":{"channel":"two"}}"#);
            let other = connect(node, 1_000_000);
            send(&other, r#"{"subscribe":{"channel":"three"}}"#);
            sleep(WHILE).await;
            for channel in ["one", "two", "three"].repeat(40) {
                send(
                    &other,
                    &format!(r#"{{"publish":{{"channel":"{channel}","data":"long enough to fill an outbox"}}}}"#),
                );
            }
            let received = receive(&other).await;
            let delivered = received.iter().filter(|text| text.contains(r#""channel":"three","data""#)).count();
            assert_eq!(delivered, 40, "{received:?}");
        },
    );
}

#[test]
fn repeated_subscribe_commands_are_answered_in_order_and_make_one_subscription() {
    on_a_node(
        |_| {},
        async |node| {
            let client = connect(node, 10_000);
            send(&client, r#"{"id":1,"subscribe":{"channel":"news","since":"1-0-ffff"}}"#);
            send(&client, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
            send(&client, r#"{"id":3,"subscribe":{"channel":"news","since":"1-0-ffff"}}"#);
            let received = receive(&client).await;
            assert!(received.len() == 3 && received[0].contains(r#""id":1,"ok""#), "{received:?}");
            assert!(received[1].contains(r#""id":2,"ok""#) && received[2].contains(r#""id":3,"ok""#), "{received:?}");
            send(&client, r#"{"publish":{"channel":"news","data":"once"}}"#);
            let received = receive(&client).await;
            assert_eq!(received.iter().filter(|text| text.contains("once")).count(), 1, "{received:?}");
        },
    );
}

#[test]
fn an_unsubscribe_during_a_resume_holds_until_the_next_subscribe() {
    on_a_node(
        |_| {},
        async |node| {
            let client = connect(node, 10_000);
            send(&client, r#"{"id":1,"subscribe":{"channel":"news","since":"1-0-ffff"}}"#);
            send(&client, r#"{"id":2,"unsubscribe":{"channel":"news"}}"#);
            sleep(WHILE).await;
            send(&client, r#"{"id":3,"publish":{"channel":"news","data":"missed"}}"#);
            let received = receive(&client).await;
            assert!(received[0].contains(r#""id":1,"error":{"code":"left""#), "{received:?}");
            assert!(received[1].contains(r#""id":2,"ok""#) && received[2].contains(r#""id":3,"ok""#), "{received:?}");
            assert_eq!(received.len(), 3, "{received:?}");
            send(&client, r#"{"id":4,"subscribe":{"channel":"news"}}"#);
            send(&client, r#"{"id":5,"publish":{"channel":"news","data":"received"}}"#);
            let received = receive(&client).await;
            assert!(received.iter().any(|text| text.contains(r#""data":"received""#)), "{received:?}");
        },
    );
}

#[test]
fn of_a_very_large_channel_clients_that_ask_for_all_are_shown_members_and_others_their_number() {
    let rules = |config: &mut Config| {
        *config = toml::from_str(attendance::RULES).expect("rules of a configuration");
        (config.node.workers, config.broker.partitions) = (1, 1);
        // Nothing ends the life of a node that writes no more.
        config.cluster.lease = Duration::from_secs(3_600);
    };
    on_a_node(rules, async |node| {
        let log = node.log().expect("it has started");
        let publish = async |number: u64, members| {
            let written = samples::join(number, members);
            cluster::publish_to(&log, Partition(0), presence::CHANNEL, &written).await.expect("the broker stores it");
        };
        for number in 0..10 {
            publish(u64::from(number) + 1, 2_000 * number..2_000 * (number + 1)).await;
        }
        sleep(WHILE).await;
        let watch = |presence: &str| {
            let client = connect(node, 100_000);
            send(&client, &format!(r#"{{"subscribe":{{"channel":"room","presence":{presence}}}}}"#));
            client
        };
        let (usual, all) = (watch("true"), watch("\"all\""));
        let (listed, named) = (receive(&usual).await, receive(&all).await);
        assert!(listed[0].contains(r#""members":[],"#), "{listed:?}");
        assert!(named[0].contains("user000099") && named[0].contains(r#""next":"user:user000099""#), "{named:?}");
        publish(11, 20_000..20_001).await;
        let (shown, named) = (receive(&usual).await, receive(&all).await);
        assert!(shown.iter().any(|text| text.contains("20003")) && shown.iter().all(|text| !text.contains("user0")));
        assert!(named.iter().any(|text| text.contains(r#""joined":[{"user":"user020000"}]"#)), "{named:?}");
    });
}
