//! The queue alone, and queues of several nodes that read one log, deliver, die and start again.

use std::collections::BTreeSet;

use broker_adapters::{Check, Offset, Partition, Position};
use fastrand::Rng;

use super::*;

const ME: Life = Life { node: 1, incarnation: 1 };
const OTHER: Life = Life { node: 2, incarnation: 1 };

fn mark(log: u64, offset: u64, index: u32) -> Mark {
    Mark { at: Position { partition: Partition(0), offset: Offset(offset), check: Check(log) }, index }
}

fn event(log: u64, offset: u64, index: u32, time: u64) -> Event {
    let mark = mark(log, offset, index);
    Event { mark, time, json: format!("\"{mark}\"").into() }
}

fn body(queue: &Queue) -> String {
    queue.batch().map_or_else(String::new, |batch| String::from_utf8_lossy(&batch.body).into_owned())
}

#[test]
fn a_queue_that_is_full_gives_up_the_oldest_and_says_so_until_a_request_is_answered_well() {
    let mut queue = Queue::default();
    let weight = event(1, 1, 0, 0).weight();
    let given_up: Vec<_> = (1..=4).map(|offset| queue.push(event(1, offset, 0, 0), 2 * weight)).collect();
    assert_eq!(given_up, [0, 0, 1, 1]);
    assert_eq!(body(&queue), r#"{"events":["03-0-1-0","04-0-1-0"],"missed":2}"#);
    assert_eq!(queue.push(event(1, 5, 0, 0), 1), 2, "the newest always has a place");
    let batch = queue.batch().expect("an event");
    assert_eq!((batch.id().as_str(), queue.delivered(&batch)), ("05-0-1-0-1", 1));
    assert_eq!((body(&queue), queue.cursor(ME).missed), (String::new(), 0));
}

#[test]
fn a_batch_is_the_same_until_its_first_event_is_settled() {
    let mut queue = Queue::default();
    queue.push(event(1, 1, 0, 0), usize::MAX);
    let batch = queue.batch().expect("an event");
    queue.push(event(1, 1, 1, 0), usize::MAX);
    assert!(queue.begins_with(&batch) && queue.batch() != Some(batch.clone()));
    queue.fold(&Cursor { life: OTHER, through: Some((1, 0)), ..Cursor::default() }, 2, ME);
    assert!(!queue.begins_with(&batch));
    assert_eq!(queue.delivered(&batch), 0, "another node has delivered it");
    assert_eq!(queue.len(), 1);
    for index in 0..300 {
        queue.push(event(1, 3, index, 0), usize::MAX);
    }
    assert_eq!(queue.batch().map(|batch| batch.count), Some(100));
    queue.push(Event { json: vec![b' '; 300 << 10].into(), ..event(1, 4, 0, 0) }, usize::MAX);
    while let Some(batch) = queue.batch().filter(|batch| batch.count > 1) {
        queue.delivered(&batch);
    }
    assert_eq!(queue.batch().map(|batch| batch.count), Some(1), "a large event goes alone");
}

#[test]
fn old_events_are_given_up_and_those_from_before_the_webhooks_do_not_count() {
    for (guided, missed) in [(true, 2), (false, 0)] {
        let mut queue = Queue::default();
        if guided {
            queue.fold(&Cursor { life: OTHER, ..Cursor::default() }, 1, ME);
        }
        for time in 0..4 {
            queue.push(event(1, 2 + time, 0, time), usize::MAX);
        }
        assert_eq!((queue.expire(2).len(), queue.cursor(ME).missed), (missed as usize, missed));
        assert_eq!((queue.len(), queue.oldest()), (2, Some(2)));
    }
}

#[test]
fn a_cursor_of_another_log_settles_nothing_in_this_one() {
    let mut queue = Queue::default();
    for offset in 1..=3 {
        queue.push(event(1, offset, 0, 0), usize::MAX);
    }
    queue.lost(0, true);
    queue.push(event(2, 1, 0, 0), usize::MAX);
    queue.fold(&Cursor { life: OTHER, through: Some((3, 0)), ..Cursor::default() }, 2, ME);
    assert_eq!(queue.len(), 4, "its offset is not before its own place");
    queue.fold(&Cursor { life: OTHER, id: Some(mark(1, 2, 0).to_string()), ..Cursor::default() }, 3, ME);
    assert_eq!(queue.len(), 2);
    let batch = queue.batch().expect("events");
    assert_eq!(batch.count, 2);
    queue.fold(&Cursor { life: OTHER, through: Some((1, 0)), ..Cursor::default() }, 4, ME);
    assert_eq!(queue.len(), 0, "what is of this log comes after all of the old one");
}

#[test]
fn a_fresh_node_has_all_events_once_the_cursor_is_past_the_record_from_which_it_knew_all_members() {
    let mut queue = Queue::default();
    queue.advance(5);
    assert!(!queue.has_all());
    queue.knows_members();
    assert!(queue.has_all(), "without a cursor the webhooks begin now");
    queue.fold(&Cursor { life: OTHER, through: Some((4, ALL)), ..Cursor::default() }, 6, ME);
    assert!(!queue.has_all());
    queue.fold(&Cursor { life: OTHER, through: Some((6, ALL)), ..Cursor::default() }, 7, ME);
    assert!(queue.has_all());
    queue.lost(0, true);
    assert!(queue.has_all(), "all nodes have lost the same");
    queue.lost(9, false);
    assert!(!queue.has_all(), "others may have read what this node has not");
}

/// A record of the model's log.
#[derive(Clone)]
enum Item {
    Events(u32),
    Cursor(Cursor),
}

struct Node {
    life: Life,
    queue: Queue,
    read: usize,
}

/// A cluster of nodes on one partition.
struct Model {
    rng: Rng,
    log: Vec<Item>,
    number: u64,
    nodes: Vec<Node>,
    written: Vec<String>,
    received: Vec<String>,
}

impl Model {
    fn start(&mut self, number: u64) {
        let life = Life { node: number, incarnation: 1 };
        self.nodes.push(Node { life, queue: Queue::default(), read: 0 });
    }

    fn read(&mut self, node: usize) {
        let Node { life, queue, read } = &mut self.nodes[node];
        let Some(item) = self.log.get(*read) else { return queue.knows_members() };
        *read += 1;
        let offset = *read as u64;
        match item {
            Item::Events(count) => {
                for index in 0..*count {
                    queue.push(event(self.number, offset, index, 1), usize::MAX);
                }
            }
            Item::Cursor(cursor) => queue.fold(cursor, offset, *life),
        }
        queue.advance(offset);
    }

    fn write(&mut self) {
        let (count, offset) = (self.rng.u32(..4), self.log.len() as u64 + 1);
        self.log.push(Item::Events(count));
        self.written.extend((0..count).map(|index| mark(self.number, offset, index).to_string()));
    }

    /// A node delivers, and perhaps writes its cursor.
    fn deliver(&mut self, node: usize) {
        let Node { life, queue, .. } = &mut self.nodes[node];
        if let Some(batch) = queue.batch() {
            let text = String::from_utf8_lossy(&batch.body).into_owned();
            self.received.extend(text.split('"').filter(|id| id.contains('-')).map(str::to_owned));
            queue.delivered(&batch);
        }
        if self.rng.bool() {
            let cursor = queue.cursor(*life);
            self.log.push(Item::Cursor(cursor));
        }
    }

    /// The nodes that have all events; any, if none has.
    fn able(&self) -> Vec<usize> {
        let able: Vec<_> = self.whole().collect();
        if able.is_empty() { (0..self.nodes.len()).collect() } else { able }
    }

    fn whole(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].queue.has_all())
    }

    fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            while self.nodes[node].read < self.log.len() {
                self.read(node);
            }
            self.read(node);
        }
    }
}

#[test]
fn each_event_is_delivered_and_first_in_order_whichever_nodes_die_and_start_and_whenever_the_log_is_lost() {
    for seed in 0..3_000 {
        let rng = Rng::with_seed(seed);
        let (nodes, written, received) = (Vec::new(), Vec::new(), Vec::new());
        let mut model = Model { rng, log: Vec::new(), number: 1, nodes, written, received };
        (0..3).for_each(|number| model.start(number));
        let loses = seed % 3 == 0;
        for step in 0..200_u64 {
            let any = model.rng.usize(..model.nodes.len());
            match model.rng.u8(..40) {
                0..8 => model.write(),
                8..30 => model.read(any),
                30..36 => {
                    let able = model.able();
                    let node = able[model.rng.usize(..able.len())];
                    model.deliver(node);
                }
                // What the log has lost only nodes have: one of them must live.
                36..38 if !loses || model.whole().any(|node| node != any) => {
                    model.nodes.swap_remove(any);
                    model.start(step + 10);
                }
                38 if loses && model.whole().next().is_some() => {
                    // What nobody has read is lost with the log.
                    model.settle();
                    model.log.clear();
                    model.number += 1;
                    model.nodes.iter_mut().for_each(|node| {
                        node.queue.lost(0, true);
                        node.read = 0;
                    });
                    // A node that stays writes its cursor at once.
                    let able = model.able();
                    let Node { life, queue, .. } = &mut model.nodes[able[0]];
                    let cursor = queue.cursor(*life);
                    model.log.push(Item::Cursor(cursor));
                }
                _ => {}
            }
        }
        model.settle();
        for _ in 0..200 {
            let able = model.able();
            model.deliver(able[0]);
            model.settle();
        }
        let mut seen = BTreeSet::new();
        let first: Vec<_> = model.received.iter().filter(|id| seen.insert((*id).clone())).cloned().collect();
        assert_eq!(first, model.written, "seed {seed}");
        assert!(model.able().iter().all(|node| model.nodes[*node].queue.is_empty()), "seed {seed}");
    }
}
