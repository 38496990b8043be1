//! A real Redis that fails under load, and what a cluster's clients and operators see of it.
//!
//! Each test prints `acked, delivered, duplicate, lost-marked, silent-loss`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_brokers::{Redis, Server};
use tests::client::{Client, Ended, Frame};
use tests::history::{Outcome, Run};
use tests::{Cluster, PATIENCE, Program, http};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The code of a socket whose protocol has no other way to say that messages are lost.
const MESSAGES_LOST: u16 = 4411;

const CHANNEL: &str = "news";

#[tokio::test]
async fn redis_killed_and_restarted_under_load_costs_no_socket_and_no_message() -> Result<()> {
    let cluster = Cluster::of(3).redis().haproxy().start().await?;
    let scene = Scene::set(&cluster).await?;
    scene.more(100).await?;
    for _ in 0..2 {
        cluster.broker().restart().await?;
        scene.more(100).await?;
    }
    scene.nothing_was_lost().await
}

#[tokio::test]
async fn an_outage_of_redis_fails_publishes_by_their_deadline_and_costs_no_socket_and_no_message() -> Result<()> {
    let cluster = Cluster::of(3).redis().haproxy().start().await?;
    let scene = Scene::set(&cluster).await?;
    scene.more(100).await?;
    cluster.broker().kill().await?;
    for node in 1..=3 {
        let address = cluster.node_address(node);
        http::until(address, "/ready", |answer| answer.status == 503).await?;
        assert_eq!(http::get(address, "/live").await?.status, 200);
    }
    scene.load.failed(PUBLISHERS).await?;
    cluster.broker().start().await?;
    scene.more(100).await?;
    scene.nothing_was_lost().await?;
    for node in 1..=3 {
        http::until(cluster.node_address(node), "/ready", |answer| answer.status == 200).await?;
    }
    Ok(())
}

#[tokio::test]
async fn connections_cut_under_load_cost_no_socket_and_no_message() -> Result<()> {
    let cluster = Cluster::of(3).redis().haproxy().start().await?;
    let scene = Scene::set(&cluster).await?;
    for _ in 0..5 {
        scene.more(50).await?;
        assert!(cluster.broker().connections()? > 0, "there is something to cut");
        cluster.broker().close_connections().await?;
    }
    scene.more(50).await?;
    scene.nothing_was_lost().await
}

#[tokio::test]
async fn redis_stopped_for_a_while_costs_no_socket_and_no_message() -> Result<()> {
    let cluster = Cluster::of(3).redis().haproxy().start().await?;
    let scene = Scene::set(&cluster).await?;
    scene.more(50).await?;
    cluster.broker().freeze().await?;
    scene.load.failed(PUBLISHERS).await?;
    cluster.broker().thaw().await?;
    scene.more(50).await?;
    scene.nothing_was_lost().await
}

#[tokio::test]
async fn a_wiped_redis_is_told_to_every_subscriber_and_new_messages_flow() -> Result<()> {
    let mut cluster = Cluster::of(3).redis().haproxy().start().await?;
    let mut scene = Scene::set(&cluster).await?;
    scene.more(100).await?;
    cluster.broker().tool(&["FLUSHALL"]).await?;
    for client in &scene.native {
        let told = |frame: &Frame| matches!(frame, Frame::Lost { channel, .. } if channel == CHANNEL);
        let told = client.meets("the word that messages are lost", told).await?;
        assert!(matches!(&told, Frame::Lost { reason, .. } if reason == "reset"), "{told:?}");
    }
    for client in &scene.raw {
        let ended = client.ended().await?;
        assert!(matches!(&ended, Ended::Closed(MESSAGES_LOST, _)), "{ended:?}");
    }
    for node in ["node-1", "node-2", "node-3"] {
        let line = cluster.line(node, "records were lost in the broker").await?;
        assert!(line.contains("WARN") && line.contains("reason=reset"), "{line}");
    }
    let mut back = Vec::new();
    for _ in 0..6 {
        back.push(Client::raw(&cluster.gateway_url(), CHANNEL).await?);
    }
    scene.more(100).await?;
    let report = scene.end(&back).await?;
    report.assert_lawful();
    assert!(scene.native.iter().all(Client::is_open));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_down_at_start_is_retried_and_said_once() -> Result<()> {
    let redis = Redis::new(0)?;
    // Stands where Redis should be, and drops whoever calls: so its callers can be counted.
    let nobody = TcpListener::bind(redis.port().address).await?;
    let node = Program::start("fanfare", &["--broker", &redis.inside_url()], &[]).await?;
    for _ in 0..5 {
        drop(nobody.accept().await?);
    }
    let answer = http::get(node.address, "/ready").await?;
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("not ready: the broker"), "{}", answer.body);
    assert_eq!(http::get(node.address, "/live").await?.status, 200);
    drop(nobody);
    assert_eq!(http::get(node.address, "/ready").await?.status, 503);
    redis.start().await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;
    node.line("broker link up").await?;

    redis.kill().await?;
    http::until(node.address, "/ready", |answer| answer.status == 503).await?;
    assert_eq!(http::get(node.address, "/live").await?.status, 200);
    redis.start().await?;
    http::until(node.address, "/ready", |answer| answer.status == 200).await?;

    let output = node.output();
    let said = |text: &str| output.lines().filter(|line| line.contains(text)).count();
    assert_eq!((said("broker link down"), said("broker link up")), (2, 2), "{output}");
    let down = output.lines().find(|line| line.contains("broker link down")).unwrap_or_default();
    assert!(down.contains("WARN") && down.contains(&redis.port().address.to_string()), "{down}");
    Ok(())
}

/// Clients that publish, on all nodes.
const PUBLISHERS: usize = 6;

/// Between two publishes of one of them.
const PACE: Duration = Duration::from_millis(10);

/// A load, and an audience that was there before it.
struct Scene {
    native: Vec<Client>,
    raw: Vec<Client>,
    load: Load,
}

impl Scene {
    async fn set(cluster: &Cluster) -> Result<Self> {
        let (mut native, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..15 {
            let client = Client::native(&cluster.gateway_url()).await?;
            client.subscribe(CHANNEL).await?;
            native.push(client);
            raw.push(Client::raw(&cluster.gateway_url(), CHANNEL).await?);
        }
        let mut publishers = Vec::new();
        for number in 0..PUBLISHERS {
            publishers.push(Client::native(&format!("http://{}", cluster.node_address(number % 3 + 1))).await?);
        }
        Ok(Self { native, raw, load: Load::start(publishers) })
    }

    /// Waits until another so many messages came to a client.
    async fn more(&self, messages: usize) -> Result<()> {
        let client = self.native.first().context("nobody is there")?;
        client.messages(client.count() + messages).await
    }

    /// Ends the load, waits until all have heard the last word, and judges.
    async fn end(&mut self, late: &[Client]) -> Result<tests::history::Report> {
        let last = self.load.stop().await?;
        let open = self.native.iter().chain(&self.raw).chain(late).filter(|client| client.is_open());
        for client in open {
            client.sees(last).await?;
        }
        Ok(self.load.run.judge(self.native.iter().chain(&self.raw), late))
    }

    async fn nothing_was_lost(mut self) -> Result<()> {
        self.end(&[]).await?.assert_whole();
        assert!(self.native.iter().chain(&self.raw).all(Client::is_open), "every socket is still open");
        Ok(())
    }
}

/// Publishers that go on whatever happens.
struct Load {
    run: Arc<Run>,
    publishers: Vec<Arc<Client>>,
    tasks: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    /// Publishes that were not acknowledged.
    failed: watch::Sender<usize>,
}

impl Load {
    fn start(publishers: Vec<Client>) -> Self {
        let publishers = publishers.into_iter().map(Arc::new).collect();
        let run = Arc::new(Run::on(CHANNEL));
        let (stop, failed) = (watch::Sender::default(), watch::Sender::default());
        let mut load = Self { run, publishers, tasks: JoinSet::new(), stop, failed };
        for (number, client) in load.publishers.iter().enumerate() {
            let (run, client) = (Arc::clone(&load.run), Arc::clone(client));
            let (stop, failed) = (load.stop.subscribe(), load.failed.clone());
            load.tasks.spawn(async move {
                let mut pace = interval(PACE);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for count in 0.. {
                    pace.tick().await;
                    if *stop.borrow() {
                        break;
                    }
                    if run.publish(&client, &format!("{number}-{count}")).await? != Outcome::Acknowledged {
                        failed.send_modify(|failed| *failed += 1);
                    }
                }
                Ok(())
            });
        }
        load
    }

    /// Waits until so many publishes were not acknowledged.
    async fn failed(&self, count: usize) -> Result<()> {
        let mut failed = self.failed.subscribe();
        timeout(PATIENCE, failed.wait_for(|failed| *failed >= count)).await.context("publishes do not fail")??;
        Ok(())
    }

    /// Stops, and gives a last message, which comes after all that was acknowledged.
    async fn stop(&mut self) -> Result<&'static str> {
        const LAST: &str = "the last word";
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        let publisher = self.publishers.first().context("nobody publishes")?;
        let outcome = self.run.publish(publisher, LAST).await?;
        ensure!(outcome == Outcome::Acknowledged, "the last word is {outcome:?}");
        Ok(LAST)
    }
}
