//! Reading: a blocking `XREAD` over all partitions of a reader, on a connection of its own; and back by pages.

use redis::{Cmd, Pipeline};
use tokio::sync::watch;
use tokio::time::Instant;

use super::dial::{Dialer, Session};
use super::link::NoAnswer;
use super::primary::{Current, Place, outdated};
use super::reply::Values;
use super::value;
use super::wire::Wire;
use super::words::refusal;
use crate::broker::{Entry, LinkError, OPEN_TIMEOUT, Opened, Reader, Standing, Start};
use crate::copies::Copies;
use crate::line::Line;
use crate::stored::position::{Offset, Partition};

/// How long one `XREAD` waits at the server, in milliseconds.
const BLOCK: usize = 5000;
/// Entries per partition in one answer.
const COUNT: usize = 512;
/// Bytes per partition that one answer should not exceed by far.
const BYTES: usize = 1 << 20;

pub(super) async fn open(dialer: &Dialer, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
    let Session { mut wire, scripts, place } = dialer.connect().await?;
    let current = dialer.primary.watch();
    let mut pipeline = Pipeline::with_capacity(from.len());
    for (partition, _) in from {
        let keys = dialer.address.partition_keys(partition.0);
        let open = pipeline.cmd("EVALSHA").arg(&scripts.open).arg(2).arg(&keys);
        open.arg(value::new_epoch()).arg(dialer.address.adopt());
    }
    let answers = wire.ask(&pipeline).await.map_err(LinkError::new)?;
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
    let (count, copies) = (COUNT / 8, Copies::default());
    let feed = Feed { wire, asked: false, streams, count, copies, spoilt: false };
    Ok(Opened { standings, reader: Box::new(RedisReader { place, current, feed }) })
}

struct Stream {
    partition: Partition,
    key: Vec<u8>,
    /// The last offset that was read.
    after: u64,
}

struct RedisReader {
    place: Place,
    current: watch::Receiver<Current>,
    feed: Feed,
}

/// What comes over a reader's connection.
struct Feed {
    wire: Wire,
    /// The answer to a command is still to come.
    asked: bool,
    streams: Vec<Stream>,
    count: usize,
    copies: Copies,
    /// Another program wrote an entry whose id leaves no room after it. When the reader is opened anew, another log begins.
    spoilt: bool,
}

impl Feed {
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

    /// The new entries of the next answer, which may be none.
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        if self.spoilt {
            return Err(LinkError::new("another program wrote to the log with an id that leaves no room after it"));
        }
        if !std::mem::replace(&mut self.asked, true) {
            let command = self.command();
            self.wire.send(&command);
        }
        let reply = self.wire.reply().await.map_err(LinkError::new)?;
        self.asked = false;
        if reply.starts_with(b"-") {
            let answer = redis::parse_redis_value(reply).map_err(LinkError::new)?;
            return Err(refusal(&answer).map_or_else(|| wrong("an error"), LinkError::from));
        }
        let mut values = Values::of(reply);
        let answered = values.array().ok_or_else(|| wrong("something else"))?.unwrap_or(0);
        let (mut entries, mut largest) = (Vec::new(), 0);
        // Redis answers in the order of the question.
        let mut asked = self.streams.iter_mut();
        for _ in 0..answered {
            let key = values.array().filter(|pair| *pair == Some(2)).and_then(|_| values.bulk());
            let key = key.ok_or_else(|| wrong("a stream without a name"))?;
            let stream =
                asked.find(|stream| stream.key == key).ok_or_else(|| wrong("a stream that was not asked for"))?;
            let count = values.array().flatten().ok_or_else(|| wrong("a stream without entries"))?;
            let mut spoilt = false;
            for _ in 0..count {
                let found = value::next_entry(&mut values).ok_or_else(|| wrong("an entry without a place"))?;
                spoilt |= found.offset.0 >= value::LIMIT;
                // A foreign id `n-1` beside our `n-0` stands for nothing lost.
                if !spoilt && found.offset.0 > stream.after {
                    stream.after = found.offset.0;
                    largest = largest.max(found.bytes.len());
                    entries.push(found.entry(stream.partition, self.copies.of(found.bytes)));
                }
            }
            self.spoilt |= spoilt;
        }
        self.count = (BYTES / largest.max(1)).clamp(1, COUNT);
        Ok(entries)
    }
}

fn wrong(what: &str) -> LinkError {
    LinkError::protocol(format!("Redis answered XREAD with {what}"))
}

#[async_trait::async_trait]
impl Reader for RedisReader {
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        loop {
            let entries = tokio::select! {
                biased;
                why = outdated(&mut self.current, &self.place) => return Err(why),
                entries = self.feed.next() => entries?,
            };
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
            let mut entries: Vec<_> = read.iter().rev().filter_map(|value| value::entry(partition, value)).collect();
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
