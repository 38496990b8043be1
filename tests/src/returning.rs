//! A client that comes back: whenever its connection ends it makes another, and resumes where it was.
//!
//! Owns a task that keeps it connected until it is dropped. Its whole view, over all its connections, can be judged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;
use crate::client::{Client, Ended, Frame};
use crate::history::{Met, met, offset};

/// The pause before another try to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// A client that comes back.
#[derive(Debug)]
pub struct Returning {
    lives: Arc<Lives>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Lives {
    all: Mutex<Vec<Life>>,
    /// How many have begun.
    begun: watch::Sender<usize>,
}

/// One connection, and how each channel began on it.
#[derive(Debug, Clone)]
struct Life {
    client: Arc<Client>,
    /// When it was connected.
    since: Instant,
    began: BTreeMap<String, Began>,
}

/// The reply to a subscription.
#[derive(Debug, Clone)]
struct Began {
    /// What follows comes after this position.
    at: String,
    /// What was said of what was missed; nothing if there was nothing to miss.
    recovered: Option<bool>,
}

impl Returning {
    /// Connects to `/ws`, now and whenever the connection has ended, and subscribes to these channels.
    pub async fn start(url: &str, channels: &[&str]) -> Result<Self> {
        let lives = Arc::new(Lives::default());
        let (kept, url) = (Arc::clone(&lives), url.to_owned());
        let channels: Vec<_> = channels.iter().map(|channel| (*channel).to_owned()).collect();
        let task = tokio::spawn(async move {
            loop {
                // Whatever went wrong, the next try may go well.
                match kept.begin(&url, &channels).await {
                    Ok(client) => client.lives().await,
                    Err(_) => sleep(AGAIN).await,
                }
            }
        });
        let returning = Self { lives, task: task.abort_handle() };
        returning.connects(1).await?;
        Ok(returning)
    }

    /// The first connection.
    pub fn first(&self) -> Result<Arc<Client>> {
        self.lives.lock().first().map(|life| Arc::clone(&life.client)).context("it has never been connected")
    }

    /// The connection of now, which may have ended.
    pub fn client(&self) -> Result<Arc<Client>> {
        self.lives.lock().last().map(|life| Arc::clone(&life.client)).context("it has never been connected")
    }

    /// How many connections it has had.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.lives.begun.borrow()
    }

    /// Waits until it has had so many connections.
    pub async fn connects(&self, count: usize) -> Result<()> {
        let mut begun = self.lives.begun.subscribe();
        let enough = timeout(PATIENCE, begun.wait_for(|begun| *begun >= count)).await;
        enough.with_context(|| format!("connection {count} is not made"))??;
        Ok(())
    }

    /// How many messages came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lives.lock().iter().map(|life| life.client.count()).sum()
    }

    /// Waits until so many messages came, over all connections.
    pub async fn messages(&self, count: usize) -> Result<()> {
        loop {
            let before: usize = self.count();
            let (client, connections) = (self.client()?, self.connections());
            let here = client.messages((client.count() + count).saturating_sub(before)).await;
            if here.is_ok() || client.is_open() {
                return here;
            }
            self.connects(connections + 1).await?;
        }
    }

    /// Waits for a message with this data, over all connections.
    pub async fn sees(&self, data: &str) -> Result<()> {
        let is = |frame: &Frame| matches!(frame, Frame::Message { data: found, .. } if found == data);
        loop {
            let (client, connections) = (self.client()?, self.connections());
            if self.lives.lock().iter().any(|life| life.client.frames().iter().any(is)) {
                return Ok(());
            }
            let here = client.sees(data).await;
            if here.is_ok() || client.is_open() {
                return here;
            }
            self.connects(connections + 1).await?;
        }
    }

    /// When it was connected, and to which node, each time.
    #[must_use]
    pub fn arrivals(&self) -> Vec<(Instant, String)> {
        self.lives.lock().iter().map(|life| (life.since, life.client.node.clone())).collect()
    }

    /// How its connections ended, without that of now.
    #[must_use]
    pub fn ends(&self) -> Vec<Ended> {
        self.lives.lock().iter().filter_map(|life| life.client.ended_as()).collect()
    }

    /// What was said of each channel when it came back: whether all that was missed followed.
    #[must_use]
    pub fn recoveries(&self) -> Vec<bool> {
        self.lives.lock().iter().flat_map(|life| life.began.values()).filter_map(|began| began.recovered).collect()
    }

    /// What it met on a channel, from its first connection to now.
    #[must_use]
    pub fn view(&self, channel: &str) -> Vec<Met> {
        self.lives.lock().iter().flat_map(|life| life.view(channel)).collect()
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lives {
    async fn begin(&self, url: &str, channels: &[String]) -> Result<Arc<Client>> {
        let client = Arc::new(Client::native(url).await?);
        let since = Instant::now();
        let mut began = BTreeMap::new();
        for channel in channels {
            let since = self.lock().iter().rev().find_map(|life| life.last(channel));
            let reply = match since {
                Some(since) => client.resume(channel, &since).await?,
                None => client.subscribe(channel).await?,
            };
            began.insert(channel.clone(), Began::read(&reply)?);
        }
        self.lock().push(Life { client: Arc::clone(&client), since, began });
        self.begun.send_modify(|begun| *begun += 1);
        Ok(client)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Life>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Began {
    fn read(reply: &Value) -> Result<Self> {
        let at = reply["at"].as_str().context("a subscription without a position")?.to_owned();
        Ok(Self { at, recovered: reply["recovered"].as_bool() })
    }
}

impl Life {
    /// Where to resume from: the last message, or the begin.
    fn last(&self, channel: &str) -> Option<String> {
        let at = |frame: &Frame| match frame {
            Frame::Message { channel: found, at, .. } if found == channel => at.clone(),
            _ => None,
        };
        let last = self.client.frames().iter().rev().find_map(at);
        last.or_else(|| Some(self.began.get(channel)?.at.clone()))
    }

    fn view(&self, channel: &str) -> Vec<Met> {
        let Some(began) = self.began.get(channel) else { return Vec::new() };
        let mut view: Vec<_> =
            began.recovered.map(|whole| if whole { Met::Recovered } else { Met::Mark }).into_iter().collect();
        // Of one log until a reply or a `lost` says otherwise.
        let mut after = offset(&began.at).ok();
        for frame in self.client.frames() {
            if let (Frame::Message { channel: found, data, at: Some(at) }, Some(after)) = (&frame, &mut after)
                && found == channel
            {
                match offset(at) {
                    Ok(offset) if offset > *after => *after = offset,
                    _ => view
                        .push(Met::Early(format!("`{data}` at {at} came where {} should follow {:?}", after, began))),
                }
            }
            let met = met(channel, &frame);
            after = after.filter(|_| met != Some(Met::Mark));
            view.extend(met);
        }
        view
    }
}
