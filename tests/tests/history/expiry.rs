//! Tokens that end, or allow less, during a long catch-up: what comes until then is exact, and nothing comes after it.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tests::tokens::Issuer;
use tests::wire::{self, CLOSE, Head, Received, Wire};
use tests::{Broker, Client, Cluster};
use tokio::time::interval;

use super::{publish, subscribe, url};

/// What a client has missed: 50 MB.
const MESSAGES: usize = 1000;
const SIZE: usize = 50_000;
/// How a client reads slowly: so many bytes, and then a pause. It takes minutes for all.
const BITE: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(25);
/// When a token of 5 s has surely ended: with its leeway, after 35 s.
const ENDED: Duration = Duration::from_secs(36);
const CLOSED: std::ops::Range<Duration> = Duration::from_secs(33)..Duration::from_secs(45);

/// A node whose clients need tokens, and a channel with much to catch up.
struct News {
    cluster: Cluster,
    issuer: Issuer,
    since: String,
}

impl News {
    async fn publish() -> Result<Self> {
        let (issuer, (variable, keys)) = (Issuer::new()?, Issuer::keys());
        let plan = Cluster::of(1).shared(Broker::Redis).set(variable, &keys).set("FANFARE__WINDOW__BYTES", "4MiB");
        // The clients of this test answer no pings.
        let cluster = plan.set("FANFARE__TIMING__PING", "2m").start().await?;
        let speaker = Client::with_token(&url(&cluster, 1), &issuer.token("speaker", &[])?).await?;
        let since = subscribe(&speaker, "news").await?;
        speaker.unsubscribe("news").await?;
        let filler = "x".repeat(SIZE);
        let texts: Vec<_> = (0..MESSAGES).map(|number| format!("{number} {filler}")).collect();
        stream::iter(&texts).map(|text| publish(&speaker, "news", text)).buffered(32).try_collect::<()>().await?;
        Ok(Self { cluster, issuer, since })
    }

    /// A client that begins its catch-up with a token of 5 s.
    async fn reader(&self) -> Result<Reader> {
        let began = Instant::now();
        let token = self.issuer.token("ann", &["--ttl", "5s"])?;
        let mut wire = Wire::with_room(self.cluster.node_address(1), 64 << 10).await?;
        wire.send(Head::upgrade("/ws").with("Authorization", format!("Bearer {token}")).bytes()).await?;
        ensure!(wire.response().await?.status == 101);
        let mut reader = Reader { wire, began, found: 0 };
        reader.send(&json!({ "id": 1, "subscribe": { "channel": "news", "since": self.since } })).await?;
        Ok(reader)
    }
}

/// A client that reads as slowly as it wants to.
struct Reader {
    wire: Wire,
    /// Just before its token was issued.
    began: Instant,
    /// Messages that came, each in its turn.
    found: usize,
}

impl Reader {
    async fn send(&mut self, command: &Value) -> Result<()> {
        Ok(self.wire.send(wire::Frame::text(command.to_string()).bytes()).await?)
    }

    /// Reads slowly until `look` breaks at something that is no message, or until `done`.
    async fn reads(
        &mut self,
        done: impl Fn(&Self) -> bool,
        mut look: impl FnMut(&Received) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut pace = interval(PAUSE);
        while !done(self) {
            while let Some(received) = self.wire.received()? {
                if !self.is_next_message(&received)? && look(&received)?.is_break() {
                    return Ok(());
                }
            }
            pace.tick().await;
            ensure!(self.wire.bite(BITE).await?, "cut off after {} messages", self.found);
        }
        Ok(())
    }

    /// Whether this is a message of the channel. Then it must be the next one.
    fn is_next_message(&mut self, received: &Received) -> Result<bool> {
        if received.opcode != wire::TEXT {
            return Ok(false);
        }
        let value: Value = serde_json::from_str(&received.text())?;
        if value["channel"] != "news" {
            return Ok(false);
        }
        let number = value["data"].as_str().and_then(|data| data.split(' ').next()).context("no message")?;
        ensure!(number == self.found.to_string(), "{number} came instead of {}", self.found);
        self.found += 1;
        Ok(true)
    }
}

/// A look that only accepts replies that say `ok`.
fn only_replies(received: &Received) -> Result<ControlFlow<()>> {
    let text = received.text();
    ensure!(received.opcode == wire::TEXT && text.contains("\"ok\""), "{text}");
    ensure!(!text.contains("\"recovered\":false"), "{text}");
    Ok(ControlFlow::Continue(()))
}

async fn is_closed_in_time(news: &News) -> Result<()> {
    let mut reader = news.reader().await?;
    let mut code = None;
    let ends = |received: &Received| match received.opcode {
        CLOSE => {
            code = received.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            Ok(ControlFlow::Break(()))
        }
        _ => only_replies(received),
    };
    reader.reads(|_| false, ends).await?;
    let lived = reader.began.elapsed();
    ensure!(code == Some(4401), "closed with {code:?}");
    ensure!(CLOSED.contains(&lived), "closed after {lived:?}");
    ensure!((1..MESSAGES).contains(&reader.found), "{} messages came before the end", reader.found);
    let end = reader.wire.end().await?;
    ensure!(end.frames.is_empty() && end.code.is_none(), "after the close frame: {end:?}");
    println!("closed with 4401 after {lived:.1?}, in a catch-up of which {} of {MESSAGES} came", reader.found);
    Ok(())
}

async fn is_whole_with_a_new_token(news: &News) -> Result<()> {
    let mut reader = news.reader().await?;
    reader.reads(|reader| reader.found > 5, only_replies).await?;
    let token = news.issuer.token("ann", &[])?;
    reader.send(&json!({ "id": 2, "refresh": { "token": token } })).await?;
    reader.reads(|reader| reader.began.elapsed() > ENDED, only_replies).await?;
    ensure!(reader.found < MESSAGES, "the catch-up was over before the first token had ended");
    while reader.found < MESSAGES {
        let received = reader.wire.frame().await?;
        if !reader.is_next_message(&received)? {
            let _ = only_replies(&received)?;
        }
    }
    Ok(())
}

async fn gets_nothing_after_the_right_is_withdrawn(news: &News) -> Result<()> {
    let mut reader = news.reader().await?;
    reader.reads(|reader| reader.found > 5, only_replies).await?;
    let fewer = news.issuer.token("ann", &["--channel", "lobby", "--can", "subscribe"])?;
    reader.send(&json!({ "id": 2, "refresh": { "token": fewer } })).await?;
    let withdrawn = |received: &Received| match received.text() {
        text if text.contains("unsubscribed") => Ok(ControlFlow::Break(())),
        _ => only_replies(received),
    };
    reader.reads(|reader| reader.found == MESSAGES, withdrawn).await?;
    ensure!(reader.found < MESSAGES, "all came before the right was withdrawn");
    reader.send(&json!({ "id": 3, "ping": {} })).await?;
    for id in [2, 3] {
        let reply: Value = serde_json::from_str(&reader.wire.message().await?)?;
        ensure!(reply["id"] == id && reply["ok"].is_object(), "{reply} came after `unsubscribed`");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ends_in_a_long_catch_up_ends_it_in_time_and_a_renewed_one_keeps_it_whole() -> Result<()> {
    let news = News::publish().await?;
    let all = tokio::try_join!(
        is_closed_in_time(&news),
        is_whole_with_a_new_token(&news),
        gets_nothing_after_the_right_is_withdrawn(&news)
    );
    all.map(drop)
}
