//! Many clients that come back, on many channels, some of which publish: nothing may be lost, and all hear the last word.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::time::interval;

use crate::client::Client;
use crate::history::{Outcome, Report, Run};
use crate::returning::Returning;

/// Sockets that also publish, by turns.
const PUBLISHERS: usize = 50;
/// Sockets that connect at a time.
const AT_ONCE: usize = 32;

/// The clients and what was published to them.
#[derive(Debug)]
pub struct Audience {
    /// Each is on one channel, by turns.
    pub sockets: Vec<Returning>,
    runs: Vec<Run>,
}

impl Audience {
    /// Connects so many clients, on so many channels.
    pub async fn connect(url: &str, sockets: usize, channels: usize) -> Result<Self> {
        let runs: Vec<_> = (0..channels).map(|number| Run::on(&format!("channel-{number}"))).collect();
        let one = async |number: usize| Returning::start(url, &[runs[number % channels].channel()]).await;
        let sockets = stream::iter(0..sockets).map(one).buffered(AT_ONCE).try_collect().await?;
        Ok(Self { sockets, runs })
    }

    /// Publishes on all channels by turns until it is stopped; gives how many messages, and how many had no answer.
    pub async fn publish(&self, pause: Duration, mut stopped: watch::Receiver<bool>) -> Result<(usize, usize)> {
        let one = async |number: usize| {
            let client = self.sockets[number % PUBLISHERS].client()?;
            self.runs[number % self.runs.len()].publish(&client, &format!("message {number}")).await
        };
        let (mut pace, mut under_way) = (interval(pause), FuturesUnordered::new());
        let (mut begun, mut unanswered) = (0, 0);
        let mut ended = |outcome: Outcome| unanswered += usize::from(outcome != Outcome::Acknowledged);
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                _ = pace.tick() => {
                    under_way.push(one(begun));
                    begun += 1;
                }
                Some(outcome) = under_way.next() => ended(outcome?),
            }
        }
        while let Some(outcome) = under_way.next().await {
            ended(outcome?);
        }
        Ok((begun, unanswered))
    }

    /// Ends each channel with a message that all its audience waits for, and judges what everyone met.
    pub async fn judge(&self, url: &str) -> Result<Report> {
        const LAST: &str = "the last word";
        let speaker = Client::native(url).await?;
        for run in &self.runs {
            ensure!(run.publish(&speaker, LAST).await? == Outcome::Acknowledged, "{}", run.channel());
        }
        for socket in &self.sockets {
            socket.sees(LAST).await?;
        }
        let mut report = Report::default();
        for (number, run) in self.runs.iter().enumerate() {
            let audience = self.sockets.iter().skip(number).step_by(self.runs.len());
            report += run.judge_views(audience.map(|socket| socket.view(run.channel())));
        }
        Ok(report)
    }
}
