//! A subscriber whose right to a channel comes and goes, and all that it met, with its rights, for the law.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::history::{Met, Run};
use tests::{Client, Frame};

/// A subscriber over one or more connections.
pub(crate) struct Member {
    channel: String,
    /// Where what it missed begins, as long as it has no message.
    first: String,
    lives: Vec<Client>,
    began: Instant,
    /// What did not come over a connection: withdrawals by others, and rights that it was given.
    notes: Vec<(Instant, Met)>,
}

impl Member {
    /// Connects with a token, and subscribes.
    pub(crate) async fn join(run: &Run, began: Instant, url: &str, token: &str) -> Result<Self> {
        let client = Client::with_token(url, token).await?;
        let reply = client.subscribe(run.channel()).await?;
        let first = reply["at"].as_str().context("no position")?.to_owned();
        Ok(Self { channel: run.channel().to_owned(), first, lives: vec![client], began, notes: Vec::new() })
    }

    /// The connection of now.
    pub(crate) fn client(&self) -> &Client {
        self.lives.last().expect("it has joined")
    }

    /// Renews its token with one that does not allow the channel.
    pub(crate) async fn loses_the_right(&self, token: &str) -> Result<()> {
        let client = self.client();
        let before = client.arrivals().iter().filter(|(_, frame)| self.is_withdrawal(frame)).count();
        client.refresh(token).await?;
        let after = client.arrivals().iter().filter(|(_, frame)| self.is_withdrawal(frame)).count();
        ensure!(after == before + 1, "the client was notified {} times", after - before);
        Ok(())
    }

    /// Renews its token with one that allows the channel, and resumes.
    pub(crate) async fn regains_the_right(&mut self, token: &str) -> Result<()> {
        let begin = Instant::now();
        self.client().refresh(token).await?;
        self.resumes(begin).await
    }

    /// Connects to another node with another token, and resumes.
    pub(crate) async fn returns(&mut self, url: &str, token: &str) -> Result<()> {
        let begin = Instant::now();
        self.lives.push(Client::with_token(url, token).await?);
        self.resumes(begin).await
    }

    /// Others have withdrawn the right: this was acknowledged, and has so much time to act.
    pub(crate) fn was_revoked(&mut self, acknowledged: Instant, within: Duration) {
        let by = acknowledged.duration_since(self.began) + within;
        self.notes.push((acknowledged, Met::Withdrawn { by }));
    }

    async fn resumes(&mut self, since: Instant) -> Result<()> {
        let reply = self.client().resume(&self.channel, &self.last()).await?;
        ensure!(reply["recovered"] == true, "what was missed without the right is not given: {reply}");
        // Nothing comes between the new right and the reply.
        self.notes.extend([(since, Met::Given), (since, Met::Recovered)]);
        Ok(())
    }

    fn last(&self) -> String {
        let frames = self.lives.iter().rev().flat_map(|client| client.frames().into_iter().rev());
        let mut positions = frames.filter_map(|frame| match frame {
            Frame::Message { channel, at, .. } if channel == self.channel => at,
            _ => None,
        });
        positions.next().unwrap_or_else(|| self.first.clone())
    }

    fn is_withdrawal(&self, frame: &Frame) -> bool {
        matches!(frame, Frame::Unsubscribed { channel, reason } if *channel == self.channel && reason == "forbidden")
    }

    /// What it met. After it was notified that the right is gone, no time at all is left.
    pub(crate) fn view(&self) -> Vec<Met> {
        let met = |(came, frame): (Instant, Frame)| {
            let at = came.duration_since(self.began);
            let met = match &frame {
                _ if self.is_withdrawal(&frame) => Met::Withdrawn { by: at },
                Frame::Message { channel, data, .. } if *channel == self.channel => Met::Timed(data.clone(), at),
                Frame::Lost { channel, .. } if *channel == self.channel => Met::Mark,
                _ => return None,
            };
            Some((came, met))
        };
        let met = self.lives.iter().flat_map(Client::arrivals).filter_map(met);
        let mut all: Vec<_> = self.notes.iter().cloned().chain(met).collect();
        all.sort_by_key(|(came, _)| *came);
        all.into_iter().map(|(_, met)| met).collect()
    }
}
