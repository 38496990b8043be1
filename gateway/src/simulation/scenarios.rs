//! What seeds have found, in small.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use super::broker::{Manners, Model};
use super::client::wire::{frame, masked};
use super::node::Node;
use super::pipe::{End, pipe};
use crate::config::{ByteSize, Config};

/// Longer than a resume waits for its node, in the time of the simulation.
const WHILE: Duration = Duration::from_secs(5);

/// Runs on a node that is ready.
fn on_a_node(config: impl FnOnce(&mut Config), scenario: impl AsyncFnOnce(&Node)) {
    fastrand::seed(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    LocalSet::new().block_on(&runtime, async {
        super::begin_of_time();
        let mut settings = Config::default();
        (settings.node.workers, settings.broker.partitions) = (1, 1);
        config(&mut settings);
        let manners = Manners {
            entries_have_epochs: true,
            entries_have_previous: true,
            acks_have_positions: true,
            chunks: false,
            pipeline: 4,
        };
        let model = Model::new(1, 1, manners, Rng::with_seed(1));
        let node = Node::start(&model, 0, &settings, &mut Rng::with_seed(1));
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
    assert!(node.connect(theirs), "the node takes it");
    mine
}

fn say(end: &End, command: &str) {
    assert_eq!(end.try_write(&masked(command)).ok(), Some(masked(command).len()));
}

/// All texts that come until nothing more does, or the connection ends.
async fn hear(end: &End) -> Vec<String> {
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
fn a_client_that_went_while_it_waited_leaves_no_subscription_to_the_next() {
    on_a_node(
        |_| {},
        async |node| {
            // A position that the node has yet to reach; and more answers than fit on the way, so that a write finds the end.
            let gone = connect(node, 10);
            say(&gone, r#"{"id":1,"subscribe":{"channel":"secret","since":"1-0-ffff"}}"#);
            say(&gone, r#"{"id":2,"connect":{}}"#);
            sleep(Duration::from_millis(100)).await;
            drop(gone);
            sleep(Duration::from_millis(100)).await;
            let next = connect(node, 10_000);
            sleep(WHILE).await;
            say(&next, r#"{"id":3,"publish":{"channel":"secret","data":1}}"#);
            let heard = hear(&next).await;
            assert!(heard.len() == 1 && heard[0].contains(r#""id":3"#), "{heard:?}");
        },
    );
}

#[test]
fn a_slow_client_that_was_alone_in_several_channels_ends_without_harm_to_others() {
    on_a_node(
        |config| config.limits.outbox = ByteSize::kib(1),
        async |node| {
            let slow = connect(node, 10);
            say(&slow, r#"{"subscribe":{"channel":"one"}}"#);
            say(&slow, r#"{"subscribe":{"channel":"two"}}"#);
            let other = connect(node, 1_000_000);
            say(&other, r#"{"subscribe":{"channel":"three"}}"#);
            sleep(WHILE).await;
            for channel in ["one", "two", "three"].repeat(40) {
                say(
                    &other,
                    &format!(r#"{{"publish":{{"channel":"{channel}","data":"long enough to fill an outbox"}}}}"#),
                );
            }
            let heard = hear(&other).await;
            let delivered = heard.iter().filter(|text| text.contains(r#""channel":"three","data""#)).count();
            assert_eq!(delivered, 40, "{heard:?}");
        },
    );
}

#[test]
fn of_two_commands_to_subscribe_the_first_is_answered_first_and_both_are_one() {
    on_a_node(
        |_| {},
        async |node| {
            let client = connect(node, 10_000);
            say(&client, r#"{"id":1,"subscribe":{"channel":"news","since":"1-0-ffff"}}"#);
            say(&client, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
            say(&client, r#"{"id":3,"subscribe":{"channel":"news","since":"1-0-ffff"}}"#);
            let heard = hear(&client).await;
            assert!(heard.len() == 3 && heard[0].contains(r#""id":1,"ok""#), "{heard:?}");
            assert!(heard[1].contains(r#""id":2,"ok""#) && heard[2].contains(r#""id":3,"ok""#), "{heard:?}");
            say(&client, r#"{"publish":{"channel":"news","data":"once"}}"#);
            let heard = hear(&client).await;
            assert_eq!(heard.iter().filter(|text| text.contains("once")).count(), 1, "{heard:?}");
        },
    );
}

#[test]
fn a_channel_that_is_left_while_its_resume_waits_stays_left_until_it_is_joined_again() {
    on_a_node(
        |_| {},
        async |node| {
            let client = connect(node, 10_000);
            say(&client, r#"{"id":1,"subscribe":{"channel":"news","since":"1-0-ffff"}}"#);
            say(&client, r#"{"id":2,"unsubscribe":{"channel":"news"}}"#);
            sleep(WHILE).await;
            say(&client, r#"{"id":3,"publish":{"channel":"news","data":"unheard"}}"#);
            let heard = hear(&client).await;
            assert!(heard[0].contains(r#""id":1,"error":{"code":"left""#), "{heard:?}");
            assert!(heard[1].contains(r#""id":2,"ok""#) && heard[2].contains(r#""id":3,"ok""#), "{heard:?}");
            assert_eq!(heard.len(), 3, "{heard:?}");
            say(&client, r#"{"id":4,"subscribe":{"channel":"news"}}"#);
            say(&client, r#"{"id":5,"publish":{"channel":"news","data":"heard"}}"#);
            let heard = hear(&client).await;
            assert!(heard.iter().any(|text| text.contains(r#""data":"heard""#)), "{heard:?}");
        },
    );
}
