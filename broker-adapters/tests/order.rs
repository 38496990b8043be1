//! A publisher sends nothing that has yet to wait for an earlier record to be sent again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker_adapters::{
    Append, AppendError, Broker, Budget, Capabilities, Entry, LinkError, Log, MessageId, NewRecord, Offset, Opened,
    Partition, Payload, Start, Stored, Timing,
};
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;

type Answer = Result<Stored, AppendError>;

/// Answers each append when the test says so, and at once when the script is at its end.
#[derive(Default)]
struct Scripted {
    script: Mutex<VecDeque<oneshot::Receiver<Answer>>>,
    stored: Mutex<Vec<Vec<u8>>>,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Broker for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "scripted", durable: false, max_bytes: 1 << 20, pipeline: 2 }
    }

    async fn append(&self, batch: &[Append], _deadline: Instant) -> Vec<Answer> {
        let answer = lock(&self.script).pop_front();
        let stored = Ok(Stored { at: None });
        let answer = match answer {
            Some(answer) => answer.await.expect("the test answers"),
            None => stored,
        };
        if answer.is_ok() {
            lock(&self.stored).extend(batch.iter().map(|append| append.bytes.to_vec()));
        }
        vec![answer; batch.len()]
    }

    async fn open(&self, _from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        Err(LinkError::new("this broker is only written to"))
    }

    async fn read_back(&self, _: Partition, _: Offset, _: usize) -> Result<Vec<Entry>, LinkError> {
        Ok(Vec::new())
    }

    async fn redial(&self) {}

    async fn close(&self) {}
}

#[tokio::test]
async fn a_record_that_is_sent_again_is_not_overtaken_by_one_that_was_not_sent_yet() {
    let (broker, mut answers) = (Arc::new(Scripted::default()), Vec::new());
    for _ in 0..2 {
        let (answer, answered) = oneshot::channel();
        answers.push(answer);
        lock(&broker.script).push_back(answered);
    }
    let port: Arc<dyn Broker> = Arc::clone(&broker) as Arc<dyn Broker>;
    let log = Log::start(port, 1, Timing::new(Duration::from_secs(60)), Budget { messages: 100, bytes: 1 << 20 });
    let mut publishes = Vec::new();
    for name in ["first", "second", "third"] {
        let payload = Payload::Text(name.to_owned().into());
        let record = NewRecord::new(MessageId::random(), "room".into(), payload);
        publishes.push(log.publish(record, Instant::now() + Duration::from_secs(20)));
        // Until the publisher has it: all tasks share this thread.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    // The second is answered first, so that the third may go: at this moment the first has failed.
    let second = answers.pop().expect("it is under way");
    second.send(Ok(Stored { at: None })).expect("it is awaited");
    let first = answers.pop().expect("it is under way");
    first.send(Err(AppendError::NotStored("not now".into()))).expect("it is awaited");
    assert!(join_all(publishes).await.iter().all(Result::is_ok));
    let stored = lock(&broker.stored).clone();
    let place = |name: &[u8]| stored.iter().position(|bytes| bytes.ends_with(name)).expect("it is stored");
    assert!(place(b"first") < place(b"third"), "the third was stored before the first");
}
