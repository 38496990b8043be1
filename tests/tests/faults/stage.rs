//! Where a fault happens: three nodes on one broker behind HAProxy, an audience on all of them, and a load.
//!
//! The audience is of three kinds: native clients that stay, raw ones, and native ones that come back and resume. What
//! holds under every fault is checked here; what one of them promises is checked where it is.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::client::{Ended, Frame};
use tests::cluster::Plan;
use tests::history::{Met, Report};
use tests::lateness::Lateness;
use tests::{Broker, Client, Cluster, Returning};

use crate::load::{Load, PUBLISHERS};

/// Of which the audience hears; each is in another partition.
pub(crate) const CHANNELS: [&str; 3] = ["news", "chat", "scores"];
/// Clients of each kind; HAProxy gives each node as many.
const EACH: usize = 9;
/// So many more messages on a channel: it is alive.
const FLOW: usize = 20;
/// How soon there must be messages again once a broker serves.
pub(crate) const BACK: Duration = Duration::from_secs(5);
/// `broker.publish_timeout`, as it is unless a test says otherwise.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);
/// How far behind its deadline a publish may end as its client sees it, on a busy machine.
const SLACK: Duration = Duration::from_secs(1);
/// The code of a socket whose protocol has no other way to say that messages are lost.
pub(crate) const MESSAGES_LOST: u16 = 4411;

/// One fault on one broker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) fault: &'static str,
    pub(crate) broker: Broker,
    pub(crate) seed: u64,
    /// Whether it may take its time.
    pub(crate) whole: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.fault, self.broker)
    }
}

/// A stage, while its fault happens.
pub(crate) struct Stage {
    pub(crate) case: Case,
    pub(crate) cluster: Cluster,
    /// Native, on all channels, on one connection.
    pub(crate) steady: Vec<Client>,
    /// Raw, on one channel each, by turns.
    pub(crate) raw: Vec<Client>,
    /// Raw, since the fault.
    pub(crate) late: Vec<Client>,
    /// Native, on all channels.
    pub(crate) returning: Vec<Returning>,
    /// More of them, which connected while messages flowed.
    pub(crate) crowd: Vec<Returning>,
    pub(crate) load: Load,
    /// What the machine adds to the times below.
    pub(crate) lateness: Lateness,
}

impl Stage {
    /// As it is by default.
    pub(crate) async fn set(case: Case) -> Result<Self> {
        Self::planned(case, |plan| plan).await
    }

    /// With another plan of the cluster. Begins once messages flow.
    pub(crate) async fn planned(case: Case, change: impl FnOnce(Plan) -> Plan) -> Result<Self> {
        let cluster = change(Cluster::of(3).broker(case.broker).haproxy()).start().await?;
        let (mut steady, mut raw, mut returning) = (Vec::new(), Vec::new(), Vec::new());
        let url = cluster.gateway_url();
        for _ in 0..EACH {
            let client = Client::native(&url).await?;
            for channel in CHANNELS {
                client.subscribe(channel).await?;
            }
            steady.push(client);
        }
        for number in 0..EACH {
            raw.push(Client::raw(&url, CHANNELS[number % CHANNELS.len()]).await?);
        }
        for _ in 0..EACH {
            returning.push(Returning::start(&url, &CHANNELS).await?);
        }
        let nodes = (1..=3).map(|node| url_of(&cluster, node)).collect();
        let load = Load::start(nodes, &CHANNELS, case.seed);
        let (late, crowd, lateness) = (Vec::new(), Vec::new(), Lateness::watch());
        let stage = Self { case, cluster, steady, raw, late, returning, crowd, load, lateness };
        stage.flows().await?;
        Ok(stage)
    }

    /// Where a node itself listens, as a URL; the first is 1.
    pub(crate) fn node(&self, number: usize) -> String {
        url_of(&self.cluster, number)
    }

    /// Waits until every connected client has received more messages.
    pub(crate) async fn flows(&self) -> Result<()> {
        self.flows_for(|_| true).await
    }

    /// Waits until the chosen ones of them have received more messages.
    pub(crate) async fn flows_for(&self, of: impl Fn(&Client) -> bool) -> Result<()> {
        let open = self.steady.iter().chain(&self.raw).chain(&self.late);
        let open = open.filter(|client| client.is_open() && of(client));
        let open: Vec<_> = open.map(|client| (client, client.count() + FLOW)).collect();
        let mut returning = Vec::new();
        for client in self.returning.iter().chain(&self.crowd) {
            if of(&*client.client()?) {
                returning.push((client, client.count() + FLOW));
            }
        }
        for (client, count) in open {
            let heard = client.messages(count).await;
            // Raw clients may have been closed meanwhile: there is no other way to tell them of a loss.
            let closed = !client.is_open() && self.raw.iter().any(|raw| std::ptr::eq(raw, client));
            heard.or_else(|error| if closed { Ok(()) } else { Err(error) })?;
        }
        for (client, count) in returning {
            client.messages(count).await?;
        }
        Ok(())
    }

    /// Cuts a node from the broker, until its clients know and its publishers have given up what was under way.
    /// Published again, it would stand at two places, of which who has lost the first can only know the second.
    pub(crate) async fn cut_off(&self, node: &str) -> Result<()> {
        self.cluster.wire(node)?.cut();
        self.notice(true, |client| client.node == node).await?;
        self.load.more("given up", 2 * PUBLISHERS / 3, |outcomes| outcomes.failed + outcomes.unknown).await
    }

    /// Messages flow again, soon after the broker serves: which it does from this moment on.
    pub(crate) async fn back(&self) -> Result<()> {
        let begin = Instant::now();
        self.flows().await.context("after the broker was back")?;
        let took = begin.elapsed();
        println!("{}: delivery is back {took:.1?} after the broker", self.case);
        ensure!(took <= BACK + self.slack(), "delivery is back only {took:?} after the broker");
        Ok(())
    }

    /// How much longer something may take on this machine: it passes through a client, HAProxy, a node and the broker.
    pub(crate) fn slack(&self) -> Duration {
        4 * self.lateness.longest()
    }

    /// Raw clients that come after the fault, one for each channel.
    pub(crate) async fn refill(&mut self) -> Result<()> {
        self.cluster.balanced().await?;
        for channel in CHANNELS {
            self.late.push(Client::raw(&self.cluster.gateway_url(), channel).await?);
        }
        Ok(())
    }

    /// Waits until the chosen clients get `lost` for these channels, with this reason;
    /// raw clients by the end of their connection.
    pub(crate) async fn until_lost(&self, channels: &[&str], reason: &str, of: impl Fn(&Client) -> bool) -> Result<()> {
        for client in self.steady.iter().filter(|client| of(client)) {
            for channel in channels {
                let lost = |frame: &Frame| match frame {
                    Frame::Lost { channel: found, reason: why, .. } => found == channel && why == reason,
                    _ => false,
                };
                client.meets(&format!("the word that {channel} is {reason}"), lost).await?;
            }
        }
        for (number, _) in CHANNELS.iter().enumerate().filter(|(_, channel)| channels.contains(channel)) {
            for client in on_channel(&self.raw, number).filter(|client| of(client)) {
                let ended = client.ended().await?;
                ensure!(matches!(ended, Ended::Closed(MESSAGES_LOST, _)), "a raw client ended with {ended:?}");
            }
        }
        Ok(())
    }

    /// Ends the load, waits until everyone has heard the last words, and judges.
    pub(crate) async fn end(&mut self) -> Result<Report> {
        let last = self.load.stop().await?;
        for (number, word) in last.iter().enumerate() {
            let steady = self.steady.iter().chain(on_channel(&self.raw, number)).chain(on_channel(&self.late, number));
            for client in steady.filter(|client| client.is_open()) {
                client.sees(word).await?;
            }
            for client in self.returning.iter().chain(&self.crowd) {
                client.sees(word).await?;
            }
        }
        let mut sum = Report::default();
        for (number, run) in self.load.runs.iter().enumerate() {
            let there = self.steady.iter().chain(on_channel(&self.raw, number)).map(|client| run.view(client));
            let late = on_channel(&self.late, number).map(|client| [vec![Met::Mark], run.view(client)].concat());
            let back = self.returning.iter().map(|client| client.view(run.channel()));
            let crowd = self.crowd.iter().map(|client| [vec![Met::Mark], client.view(run.channel())].concat());
            sum += run.judge_views(there.chain(late).chain(back).chain(crowd));
            let longest = run.longest();
            ensure!(
                longest < DEADLINE + SLACK + self.slack(),
                "a publish on {} ended only after {longest:?}",
                run.channel()
            );
        }
        println!("{}: {sum}", self.case);
        Ok(sum)
    }

    /// Ends: all rules were kept, whatever was lost on the way.
    pub(crate) async fn lawful(mut self) -> Result<()> {
        self.end().await?.assert_lawful();
        self.cluster.well();
        Ok(())
    }

    /// Ends: no client has lost a message or a connection, and none has a mark.
    pub(crate) async fn whole(mut self) -> Result<()> {
        let report = self.end().await?;
        report.assert_lawful();
        // Clients that connected late know that they have missed something.
        ensure!(report.lost_marked == self.late.len(), "{report}: marks where nothing may be lost");
        let kept = self.steady.iter().chain(&self.raw).all(Client::is_open);
        let kept = kept && self.returning.iter().all(|client| client.connections() == 1);
        ensure!(kept, "not every socket is still open");
        self.cluster.well();
        Ok(())
    }

    /// The chosen clients got no `lost`.
    pub(crate) fn unharmed(&self, channels: &[&str], of: impl Fn(&Client) -> bool) -> Result<()> {
        let lost = |frame: &Frame| matches!(frame, Frame::Lost { channel, .. } if channels.contains(&channel.as_str()));
        for client in self.steady.iter().filter(|client| of(client)) {
            ensure!(!client.frames().iter().any(lost), "a client on {} got `lost`", client.node);
        }
        Ok(())
    }

    /// Clients that came back got all that they had missed.
    pub(crate) fn came_back_whole(&self) -> Result<()> {
        for client in self.returning.iter().chain(&self.crowd) {
            ensure!(client.recoveries().iter().all(|whole| *whole), "a recovery was refused");
            for channel in CHANNELS {
                ensure!(!client.view(channel).contains(&Met::Mark), "a client that came back has lost messages");
            }
        }
        Ok(())
    }

    /// Waits until all steady clients that are meant know that their node has lost its broker, or has it back.
    pub(crate) async fn notice(&self, degraded: bool, of: impl Fn(&Client) -> bool) -> Result<()> {
        let frame = Frame::Other(format!(r#"{{"degraded":{degraded}}}"#));
        for client in self.steady.iter().filter(|client| of(client)) {
            client.meets(&format!("the notice {frame:?}"), |found| *found == frame).await?;
        }
        Ok(())
    }

    /// How many notices a client got that its node has lost its broker or has it back.
    pub(crate) fn notices(client: &Client) -> usize {
        let notice = |frame: &&Frame| matches!(frame, Frame::Other(text) if text.contains("degraded"));
        client.frames().iter().filter(notice).count()
    }
}

fn url_of(cluster: &Cluster, node: usize) -> String {
    format!("http://{}", cluster.node_address(node))
}

/// The raw clients on this channel; they take the channels by turns.
fn on_channel(clients: &[Client], number: usize) -> impl Iterator<Item = &Client> {
    clients.iter().skip(number).step_by(CHANNELS.len())
}

/// The position of the last message of each channel.
pub(crate) fn last_positions(client: &Client) -> Result<Vec<String>> {
    let frames = client.frames();
    let last = |wanted: &&str| {
        let at = |frame: &Frame| match frame {
            Frame::Message { channel, at, .. } if channel == wanted => at.clone(),
            _ => None,
        };
        frames.iter().rev().find_map(at)
    };
    let last: Vec<_> = CHANNELS.iter().filter_map(last).collect();
    ensure!(last.len() == CHANNELS.len(), "each channel has messages");
    Ok(last)
}

/// The partition of one of the channels, as ARCHITECTURE.md has it: FNV-1a of the name, modulo 16.
pub(crate) fn partition(channel: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    channel.bytes().fold(0xcbf2_9ce4_8422_2325, fnv) % 16
}
