//! `history` and `last` against a model: random channels, limits and directions, while the log is trimmed and made anew.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tests::history::parts;
use tests::{Broker, Client, Frame, PATIENCE};
use tokio::time::{interval, timeout};

use super::log::Log;
use super::{channels, data, live};

tests::on_brokers! { redis Redis, kafka Kafka, rabbitmq RabbitMq, memory Memory: {
    pages_and_last_messages_are_those_of_a_model_through_trims_and_breaks,
} }

/// Messages of one round, and questions after it.
const MESSAGES: usize = 150;
const QUESTIONS: usize = 40;
/// Messages that make a log trim itself.
const MANY: usize = 400;

/// How often a client that got fewer of the last messages than there are asks again: the log may have been trimmed meanwhile.
const AGAIN: usize = 3;

/// A message as the node delivered it.
#[derive(Debug, Clone)]
struct Known {
    data: String,
    at: String,
    offset: u64,
}

/// What the channels hold, as far as it was delivered since the last break.
struct Model {
    log: Log,
    names: [String; 3],
    speaker: Client,
    /// Hears all three channels.
    listener: Client,
    published: usize,
    /// Of those, since the last break.
    listened: usize,
    known: HashMap<String, Vec<Known>>,
    /// Positions from before the last break.
    foreign: Vec<(String, String)>,
    /// Per partition: from which offset on an operator has left the records.
    trimmed: BTreeMap<u16, u64>,
    /// Per partition: the offset and size of each message.
    records: BTreeMap<u16, Vec<(u64, usize)>>,
}

impl Model {
    async fn new(broker: Broker) -> Result<Self> {
        let log = Log::new(broker).await?;
        let speaker = Client::native(&log.url()).await?;
        let names = channels(&speaker).await?;
        let listener = listener(&log, &names).await?;
        Ok(Self {
            log,
            names,
            speaker,
            listener,
            published: 0,
            listened: 0,
            known: HashMap::new(),
            foreign: Vec::new(),
            trimmed: BTreeMap::new(),
            records: BTreeMap::new(),
        })
    }

    /// Publishes messages of random sizes on random channels, and waits until the node has delivered all.
    async fn publishes(&mut self, messages: usize, size: usize) -> Result<()> {
        let (speaker, names) = (&self.speaker, &self.names);
        let first = self.published;
        let acknowledged: Vec<_> = stream::iter(first..first + messages)
            .map(|number| {
                let text = format!("{number} {}", "x".repeat(fastrand::usize(..size)));
                published(speaker, &names[fastrand::usize(..names.len())], number, text)
            })
            .buffered(16)
            .try_collect()
            .await?;
        self.published += messages;
        self.listened += messages;
        let all = timeout(2 * PATIENCE, self.listener.messages(self.listened)).await;
        all.map_err(anyhow::Error::from).and_then(|all| all).with_context(|| self.missing(&acknowledged))?;
        (self.known, self.records) = Default::default();
        for frame in self.listener.frames() {
            let Frame::Message { channel, data, at: Some(at) } = frame else { continue };
            let (offset, partition, _) = parts(&at)?;
            self.records.entry(partition).or_default().push((offset, data.len()));
            self.known.entry(channel).or_default().push(Known { data, at, offset });
        }
        let known: usize = self.known.values().map(Vec::len).sum();
        ensure!(known == self.listened, "{known} messages are known of {}", self.listened);
        Ok(())
    }

    /// Which acknowledged messages the listener did not get, what it got, and what the node says.
    fn missing(&self, acknowledged: &[(String, Value)]) -> String {
        let frames = self.listener.frames();
        let came = |text: &str| frames.iter().any(|frame| matches!(frame, Frame::Message { data, .. } if data == text));
        let missing = acknowledged.iter().filter(|(text, _)| !came(text));
        let missing: Vec<_> = missing.map(|(text, at)| format!("{} at {at}", number(text))).collect();
        let frames = frames.iter().map(|frame| match frame {
            Frame::Message { channel, data, at } => format!("{} on {channel} at {at:?}", number(data)),
            other => format!("{other:?}"),
        });
        let frames: Vec<_> = frames.collect();
        let (listened, node) = (self.listened, self.log.node_output());
        format!(
            "the listener does not get all {listened}, but misses {missing:?}; it got {frames:#?}; the node:\n{node}"
        )
    }

    fn channel(&self, name: &str) -> &[Known] {
        self.known.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the log surely still has a message.
    fn surely_keeps(&self, message: &Known) -> Result<bool> {
        Ok(message.offset >= self.least(message)?)
    }

    /// The offset from which on the log surely has all records of a message's partition; 0 if it was never trimmed.
    fn least(&self, message: &Known) -> Result<u64> {
        let partition = parts(&message.at)?.1;
        let records = self.records.get(&partition).map(Vec::as_slice).unwrap_or_default();
        Ok(self.log.trims_itself_before(records).max(self.trimmed.get(&partition).copied().unwrap_or(0)))
    }

    /// The first message of a channel that the log surely still has, as an index.
    fn first_kept(&self, name: &str) -> Result<usize> {
        let channel = self.channel(name);
        for (index, message) in channel.iter().enumerate() {
            if self.surely_keeps(message)? {
                return Ok(index);
            }
        }
        Ok(channel.len())
    }

    /// The log loses its oldest records, and is asked while it does.
    async fn is_trimmed(&mut self) -> Result<()> {
        if !self.log.can_be_trimmed() {
            self.publishes(MANY, 2_000).await?;
            return self.answers().await;
        }
        for name in &self.names {
            let channel = self.known.get(name).map(Vec::as_slice).unwrap_or_default();
            let Some(message) = fastrand::choice(channel) else { continue };
            let (offset, partition, _) = parts(&message.at)?;
            let least = self.trimmed.entry(partition).or_default();
            *least = offset.max(*least);
        }
        let before: Vec<_> = self.trimmed.clone().into_iter().collect();
        tokio::try_join!(self.log.trim(&before), self.answers())?;
        self.answers().await
    }

    /// The log is made anew.
    async fn breaks(&mut self) -> Result<()> {
        self.log.break_off().await?;
        if self.log.outlives_a_break() {
            for name in &self.names {
                let lost = |frame: &Frame| matches!(frame, Frame::Lost { channel, .. } if channel == name);
                self.listener.meets("the loss", lost).await?;
            }
        }
        self.speaker = Client::native(&self.log.url()).await?;
        self.listener = listener(&self.log, &self.names).await?;
        self.listened = 0;
        for (name, messages) in std::mem::take(&mut self.known) {
            self.foreign.extend(messages.into_iter().map(|message| (name.clone(), message.at)));
        }
        self.trimmed.clear();
        self.records.clear();
        Ok(())
    }

    /// Asks random questions, and compares the answers.
    async fn answers(&self) -> Result<()> {
        let client = Client::native(&self.log.url()).await?;
        for _ in 0..QUESTIONS {
            let name = &self.names[fastrand::usize(..self.names.len())];
            match fastrand::u8(..10) {
                0..2 => self.last(name).await?,
                2 => self.foreign(&client).await?,
                3 => self.all(&client, name).await?,
                _ => self.page(&client, name).await?,
            }
        }
        Ok(())
    }

    /// One page, in any direction from any message or from the end.
    async fn page(&self, client: &Client, name: &str) -> Result<()> {
        let (channel, limit) = (self.channel(name), fastrand::usize(1..=80));
        let from = (!channel.is_empty()).then(|| fastrand::usize(..channel.len()));
        let direction = from.map(|from| (from, if fastrand::bool() { "since" } else { "before" }));
        let direction = direction.filter(|_| fastrand::u8(..4) > 0);
        let mut fields = json!({ "channel": name, "limit": limit });
        if let Some((from, word)) = direction {
            fields[word] = channel[from].at.as_str().into();
        }
        let what = format!("{fields}");
        let Some(page) = asked(client, &fields).await? else {
            let (from, _) = direction.with_context(|| format!("{what} is gone"))?;
            let kept = self.first_kept(name)?;
            ensure!(from <= kept, "{what}, message {from}, is gone, and the log has all from {kept}");
            return Ok(());
        };
        let messages = page["messages"].as_array().with_context(|| format!("{what}: no messages in {page}"))?;
        ensure!(messages.len() <= limit, "{what}: {} messages", messages.len());
        let begin = match direction {
            Some((from, "since")) => from + 1,
            Some((from, _)) => from.checked_sub(messages.len()).context("more messages than there were before")?,
            None => channel.len().checked_sub(messages.len()).context("more messages than were published")?,
        };
        let end = begin + messages.len();
        let expected = channel.get(begin..end).with_context(|| format!("{what}: more messages than there are"))?;
        for (message, known) in messages.iter().zip(expected) {
            ensure!(message["data"] == known.data, "{what}: {message} came instead of {known:?}");
            ensure!(message["at"] == known.at, "{what}: {message} came instead of {known:?}");
        }
        let (complete, goes_on) = (page["complete"] == true, page["next"].is_string());
        if matches!(direction, Some((_, "since"))) {
            ensure!(goes_on, "{what}: no position to go on from");
            ensure!(!complete || end == channel.len(), "{what} is called complete, and {end} is not the end");
            return Ok(());
        }
        let kept = self.first_kept(name)?;
        ensure!(goes_on || begin <= kept, "{what} ends at {begin} ({page}), and the log has all from {kept}");
        ensure!(!complete || begin <= kept, "{what} is called complete at {begin}, and the log has all from {kept}");
        Ok(())
    }

    /// A whole channel in pages, back to the first message that the log has.
    async fn all(&self, client: &Client, name: &str) -> Result<()> {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let mut fields = json!({ "channel": name, "limit": fastrand::u32(1..=100) });
            if let Some(before) = before.take() {
                fields["before"] = before;
            }
            // A position that was trimmed away meanwhile ends it, too.
            let Some(mut page) = asked(client, &fields).await? else { break };
            found.splice(0..0, data(&page["messages"]));
            match page["next"].take() {
                Value::Null => break,
                next => before = Some(next),
            }
        }
        let channel = self.channel(name);
        let begin = channel.len().checked_sub(found.len()).context("more messages than were published")?;
        let expected = channel[begin..].iter().map(|known| &known.data);
        ensure!(found.iter().eq(expected), "{name}, read back to {begin}: {found:?}");
        let kept = self.first_kept(name)?;
        ensure!(begin <= kept, "{name} ends at {begin}, and the log has all from {kept}");
        Ok(())
    }

    /// The last messages for a new subscriber.
    async fn last(&self, name: &str) -> Result<()> {
        let (channel, last) = (self.channel(name), fastrand::usize(1..=200));
        let first = self.first_kept(name)?;
        // The messages follow a position, whose record the log must have: after a trim, its oldest message may be that one.
        let trimmed = channel.first().map(|message| self.least(message)).transpose()?.is_some_and(|least| least > 0);
        let surely = last.min((channel.len() - first).saturating_sub(usize::from(trimmed)));
        let (client, given) = self.joined(name, last, surely).await?;
        ensure!((surely..=last).contains(&given), "the last {given} of {last}, and the log has {surely} of them");
        let whole = all_or_lost(&client, given).await?;
        client.ask(json!({ "ping": {} })).await?;
        let begin = channel.len().checked_sub(given).context("more messages than were published")?;
        let mut expected: Vec<_> = channel[begin..].iter().map(|known| known.data.clone()).collect();
        let found = live(&client);
        if !whole {
            expected.truncate(found.len());
        }
        ensure!(found == expected, "the last {last} of {name}: {found:?} came instead of {expected:?}");
        Ok(())
    }

    /// Subscribes a new client, and gives how many of the last messages it gets. When the log is trimmed at that very moment,
    /// or cannot be read yet, there are fewer than it has, and another client asks.
    async fn joined(&self, name: &str, last: usize, surely: usize) -> Result<(Client, usize)> {
        let mut again = interval(Duration::from_millis(100));
        let mut fewer = 0;
        let joined = async {
            loop {
                again.tick().await;
                let client = Client::native(&self.log.url()).await?;
                let reply = client.ask(json!({ "subscribe": { "channel": name, "last": last } })).await?;
                match reply["ok"]["last"].as_u64().map(usize::try_from).transpose()? {
                    Some(given) if given < surely && fewer < AGAIN => fewer += 1,
                    Some(given) => return Ok((client, given)),
                    None => ensure!(reply["error"]["retry"] == true, "refused: {reply}"),
                }
            }
        };
        timeout(PATIENCE, joined).await.context("no node takes the subscription")?
    }

    /// A position from before a break never gives a message.
    async fn foreign(&self, client: &Client) -> Result<()> {
        let Some((name, at)) = fastrand::choice(&self.foreign) else { return Ok(()) };
        let word = if fastrand::bool() { "since" } else { "before" };
        let reply = client.ask(json!({ "history": { "channel": name, word: at } })).await?;
        // A position behind the end of the new log may be one that the node has not read yet.
        let refused = matches!(reply["error"]["code"].as_str(), Some("gone" | "unavailable"));
        ensure!(refused, "{word} {at} of another log: {reply}");
        Ok(())
    }
}

/// A client that hears all channels.
async fn listener(log: &Log, names: &[String]) -> Result<Client> {
    let client = Client::native(&log.url()).await?;
    for name in names {
        client.subscribe(name).await?;
    }
    Ok(client)
}

/// Waits for the last messages that a client was promised. False if it gets `lost` instead: they were trimmed away meanwhile.
async fn all_or_lost(client: &Client, given: usize) -> Result<bool> {
    let lost = |frame: &Frame| matches!(frame, Frame::Lost { .. });
    tokio::select! {
        all = timeout(PATIENCE, client.messages(given)) => all.context("neither all messages nor `lost`")?.map(|()| true),
        lost = client.meets("the loss", lost) => lost.map(|_| false),
    }
}

/// Publishes once, however often that must be tried while the log is made anew.
async fn published(speaker: &Client, channel: &str, number: usize, text: String) -> Result<(String, Value)> {
    let command = json!({ "channel": channel, "data": text, "key": number.to_string() });
    let mut reply = until_answered(speaker, &json!({ "publish": command })).await?;
    Ok((text, reply["ok"]["at"].take()))
}

/// The number with which a message's text begins.
fn number(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Asks for a page; `None` if the position is gone.
async fn asked(client: &Client, fields: &Value) -> Result<Option<Value>> {
    let mut reply = until_answered(client, &json!({ "history": fields })).await?;
    if reply["error"]["code"] == "gone" {
        return Ok(None);
    }
    ensure!(reply["ok"]["channel"] == fields["channel"], "{reply}");
    Ok(Some(reply["ok"].take()))
}

/// Sends a command again for as long as its answer says that a retry may succeed.
async fn until_answered(client: &Client, command: &Value) -> Result<Value> {
    let mut again = interval(Duration::from_millis(20));
    let answered = async {
        loop {
            again.tick().await;
            let reply = client.ask(command.clone()).await?;
            if reply["error"]["retry"] != true {
                return anyhow::Ok(reply);
            }
        }
    };
    let reply = timeout(PATIENCE, answered).await.with_context(|| format!("no answer to {command}"))??;
    ensure!(reply["ok"].is_object() || reply["error"]["code"] == "gone", "{command}: {reply}");
    Ok(reply)
}

async fn pages_and_last_messages_are_those_of_a_model_through_trims_and_breaks(broker: Broker) -> Result<()> {
    let mut model = Model::new(broker).await?;
    for breaks in [false, true, true] {
        if breaks {
            model.breaks().await?;
        }
        for _ in 0..2 {
            model.publishes(MESSAGES, 400).await?;
            model.answers().await?;
            model.is_trimmed().await?;
        }
    }
    Ok(())
}
