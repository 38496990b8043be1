//! Reading: a blocking `XREAD` over all partitions of a reader, on a connection of its own; and back by pages.

use redis::{Cmd, Pipeline};
use tokio::sync::watch;
use tokio::time::Instant;

use super::dial::Dialer;
use super::link::{Link, NoAnswer};
use super::primary::{Current, outdated};
use super::value;
use super::words::refusal;
use crate::broker::{Entry, LinkError, OPEN_TIMEOUT, Opened, Reader, Standing, Start};
use crate::line::{Dial, Line};
use crate::stored::position::{Offset, Partition};

/// How long one `XREAD` waits at the server, in milliseconds.
const BLOCK: usize = 5000;
/// Entries per partition in one answer.
const COUNT: usize = 512;
/// Bytes per partition that one answer should not exceed by far.
const BYTES: usize = 1 << 20;

pub(super) async fn open(dialer: &Dialer, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
    let link = dialer.dial().await?;
    let current = dialer.primary.watch();
    let mut pipeline = Pipeline::with_capacity(from.len());
    for (partition, _) in from {
        let keys = dialer.address.partition_keys(partition.0);
        let open = pipeline.cmd("EVALSHA").arg(&link.scripts.open).arg(2).arg(&keys);
        open.arg(value::new_epoch()).arg(dialer.address.adopt());
    }
    let answers = link.ask_for_ever(&pipeline).await.map_err(LinkError::new)?;
    let mut standings = Vec::with_capacity(from.len());
    let mut streams = Vec::with_capacity(from.len());
    for (&(partition, start), answer) in from.iter().zip(&answers) {
        let Some((epoch, last)) = value::standing(answer) else {
            let error = refusal(answer).map(LinkError::from);
            let error = error.unwrap_or_else(|| LinkError::protocol("it does not say how a partition stands"));
            return Err(dialer.named(error));
        };
        value::report_damage(partition, answer);
        let next = Offset(last.saturating_add(1));
        standings.push(Standing { partition, epoch, next });
        let [_, key] = dialer.address.partition_keys(partition.0);
        streams.push(Stream { partition, key: key.into_bytes(), after: start.first(next).0.saturating_sub(1) });
    }
    Ok(Opened { standings, reader: Box::new(RedisReader { link, current, streams, count: COUNT / 8, spoilt: false }) })
}

struct Stream {
    partition: Partition,
    key: Vec<u8>,
    /// The last offset that was read.
    after: u64,
}

struct RedisReader {
    link: Link,
    current: watch::Receiver<Current>,
    streams: Vec<Stream>,
    count: usize,
    /// Another program wrote an entry whose id leaves no room after it. When the reader is opened anew, another log begins.
    spoilt: bool,
}

impl RedisReader {
    fn command(&self) -> Cmd {
        let mut command = Cmd::with_capacity(6 + 2 * self.streams.len(), 64 * self.streams.len());
        command.arg("XREAD").arg("COUNT").arg(self.count).arg("BLOCK").arg(BLOCK).arg("STREAMS");
        for stream in &self.streams {
            command.arg(&stream.key);
        }
        for stream in &self.streams {
            command.arg(last_id(stream.after));
        }
        command
    }

    fn take(&mut self, streams: Vec<(Vec<u8>, Vec<redis::Value>)>) -> Result<Vec<Entry>, LinkError> {
        let mut entries = Vec::with_capacity(streams.iter().map(|(_, entries)| entries.len()).sum());
        // Redis answers in the order of the question.
        let mut asked = self.streams.iter_mut();
        for (key, read) in streams {
            let stream = asked.find(|stream| stream.key == key);
            let stream =
                stream.ok_or_else(|| LinkError::protocol("Redis answered for a stream that was not asked for"))?;
            for value in read {
                let entry = value::entry(stream.partition, value);
                let entry = entry.ok_or_else(|| LinkError::protocol("Redis gave an entry without a place"))?;
                if entry.offset.0 >= value::LIMIT {
                    self.spoilt = true;
                    break;
                }
                // A foreign id `n-1` beside our `n-0` stands for nothing lost.
                if entry.offset.0 > stream.after {
                    stream.after = entry.offset.0;
                    entries.push(entry);
                }
            }
        }
        let largest = entries.iter().map(|entry| entry.bytes.len()).max().unwrap_or(0);
        self.count = (BYTES / largest.max(1)).clamp(1, COUNT);
        Ok(entries)
    }
}

#[async_trait::async_trait]
impl Reader for RedisReader {
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        loop {
            if self.spoilt {
                return Err(LinkError::new("another program wrote to the log with an id that leaves no room after it"));
            }
            let command = self.command();
            let answer = tokio::select! {
                biased;
                why = outdated(&mut self.current, &self.link.place) => return Err(why),
                answer = self.link.wait_for(&command) => answer?,
            };
            let streams = value::streams(answer).ok_or_else(|| LinkError::protocol("not an answer to XREAD"))?;
            let entries = self.take(streams)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
    }
}

/// The largest id that a stream can have up to an offset: reading on from there skips foreign ids.
fn last_id(offset: u64) -> String {
    format!("{offset}-{}", u64::MAX)
}

pub(super) async fn read_back(
    line: &Line<Dialer>,
    key: &str,
    partition: Partition,
    before: Offset,
    most: usize,
) -> Result<Vec<Entry>, LinkError> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let link = line.link(deadline).await?;
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.cmd("XREVRANGE").arg(key).arg(last_id(before.0.saturating_sub(1))).arg("-").arg("COUNT").arg(most);
    let answer = match link.ask(&pipeline, deadline).await {
        Ok(answers) => answers.into_iter().next(),
        Err(NoAnswer::Late) => return Err(LinkError::new("no answer from Redis in time")),
        Err(NoAnswer::Broken(why)) => return Err(LinkError::new(why)),
    };
    match answer {
        Some(redis::Value::Array(read)) => {
            let mut entries: Vec<_> =
                read.into_iter().rev().filter_map(|value| value::entry(partition, value)).collect();
            entries.dedup_by_key(|entry| entry.offset);
            Ok(entries)
        }
        other => {
            let refusal = other.as_ref().and_then(refusal);
            refusal.iter().for_each(|refusal| line.heed(&link, refusal));
            Err(refusal.map_or_else(|| LinkError::protocol("not an answer to XREVRANGE"), LinkError::from))
        }
    }
}
