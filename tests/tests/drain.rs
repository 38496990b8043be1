//! How a node goes away: it says so first, sends its clients elsewhere one by one, and loses nothing that it acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use real_brokers::{Port, Redis, Server};
use tests::history::{Outcome, Run};
use tests::tunnel::Tunnel;
use tests::wire::{self, Frame, Head, Wire};
use tests::{Client, Cluster, Ended, Program, agent, http};

/// The node is restarting.
const RESTARTING: u16 = 1012;
/// The node is gone.
const GONE: u16 = 1001;

/// How much later than it should something may be on a busy machine.
const LATE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_clients_are_sent_away_at_an_even_pace_and_nothing_acknowledged_is_lost() -> Result<()> {
    const CLIENTS: usize = 300;
    const PUBLISHERS: usize = 10;
    const SPAN: Duration = Duration::from_secs(3);
    let plan = Cluster::of(2).redis().set("FANFARE__NODE__WORKERS", "1").set("FANFARE__TIMING__DRAIN", "3s");
    let mut cluster = plan.set("FANFARE__TIMING__DRAIN_WAIT", "off").start().await?;
    let [leaving, staying] = [1, 2].map(|number| format!("http://{}", cluster.node_address(number)));
    let run = &Run::on("news");
    let listener = Client::native(&staying).await?;
    listener.subscribe("news").await?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(if number % 2 == 0 {
            Client::native(&leaving).await?
        } else {
            Client::raw(&leaving, "other").await?
        });
    }
    let publishers = try_join_all((0..PUBLISHERS).map(|_| Client::native(&leaving))).await?;

    let stopping = AtomicBool::new(false);
    let publish = publishers.iter().enumerate().map(|(who, client)| {
        let stopping = &stopping;
        async move {
            let (mut number, mut after) = (0, 0);
            while client.is_open() {
                let outcome = run.publish(client, &format!("{who}: {number}")).await?;
                after += usize::from(outcome == Outcome::Acknowledged && stopping.load(Ordering::Relaxed));
                number += 1;
            }
            anyhow::Ok(after)
        }
    });
    let begin = Instant::now();
    let ends = clients.iter().enumerate().map(async |(number, client)| {
        let ended = client.ended().await?;
        anyhow::Ok((begin.elapsed(), number, ended))
    });
    let stop = async {
        // Some traffic first.
        listener.messages(100).await?;
        stopping.store(true, Ordering::Relaxed);
        let stopped = begin.elapsed();
        let status = cluster.stop_node("node-1").await?;
        ensure!(status.code() == Some(0), "{status}");
        anyhow::Ok(stopped)
    };
    let (acknowledged, ends, stopped) = tokio::join!(try_join_all(publish), try_join_all(ends), stop);
    let (acknowledged, mut ends, stopped) = (acknowledged?, ends?, stopped?);

    for (number, client) in clients.iter().enumerate() {
        let ended = client.ended().await?;
        ensure!(matches!(ended, Ended::Closed(RESTARTING, _)), "{number}: {ended:?}");
        if number % 2 == 0 {
            ensure!(client.hint()? < 1000, "a native client is asked to wait for a moment");
        }
    }
    ends.sort_by_key(|(at, ..)| *at);
    let at = |place: usize| ends[place].0 - stopped;
    println!("closed after {:?}, {:?}, {:?}", at(0), at(CLIENTS / 2), at(CLIENTS - 1));
    ensure!(at(CLIENTS - 1) < SPAN + LATE, "{:?}", at(CLIENTS - 1));
    for window in ends.windows(CLIENTS / 2) {
        let took = window[CLIENTS / 2 - 1].0 - window[0].0;
        ensure!(took > SPAN / 6, "half of all clients were notified within {took:?}");
    }
    ensure!(ends[..CLIENTS / 4].iter().any(|(_, number, _)| *number > CLIENTS / 2), "in the order in which they came");

    ensure!(acknowledged.iter().sum::<usize>() > 0, "nothing was published while the node was going away");
    let last = Client::native(&staying).await?;
    ensure!(run.publish(&last, "the last").await? == Outcome::Acknowledged);
    listener.sees("the last").await?;
    run.judge([&listener], []).assert_whole();
    Ok(())
}

#[tokio::test]
async fn a_node_says_that_it_will_go_and_still_takes_clients_while_balancers_have_not_noticed() -> Result<()> {
    let environment = [("FANFARE__AGENT__LISTEN", "127.0.0.1:0"), ("FANFARE__TIMING__DRAIN_WAIT", "2s")];
    let mut node = wire::serve("fanfare", &environment).await?;
    let agent = agent::of(&node).await?;
    assert_eq!(agent::ask(agent).await?, "up ready 100%\n");
    let mut before = Wire::open(node.address, "/raw/news").await?;
    node.signal("TERM").await?;
    assert_eq!(agent::until(agent, "drain").await?, "drain\n");
    assert_eq!(http::get(node.address, "/ready").await?.status, 503);
    let mut meanwhile = Wire::open(node.address, "/raw/news").await?;
    meanwhile.send(Frame::text("as before").bytes()).await?;
    assert_eq!(before.message().await?, "as before");
    for wire in [&mut before, &mut meanwhile] {
        assert_eq!(wire.end().await?.code, Some(RESTARTING));
    }
    drop((before, meanwhile));
    assert_eq!(node.ended().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_ended_at_a_terminal_waits_for_no_balancer() -> Result<()> {
    let mut node = wire::serve("fanfare", &[("FANFARE__TIMING__DRAIN_WAIT", "1h")]).await?;
    let mut wire = Wire::open(node.address, "/raw/news").await?;
    node.signal("INT").await?;
    assert_eq!(wire.end().await?.code, Some(RESTARTING));
    drop(wire);
    assert_eq!(node.ended().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_node_answers_until_its_last_client_has_left_and_takes_no_other() -> Result<()> {
    let environment = [("FANFARE__TIMING__DRAIN_WAIT", "off"), ("FANFARE__NODE__WORKERS", "1")];
    let mut node = wire::serve("fanfare", &environment).await?;
    let mut stays = Wire::open(node.address, "/raw/news").await?;
    node.signal("TERM").await?;
    // It has received the close frame, and has not closed yet.
    assert_eq!(stays.frame().await?.payload[..2], RESTARTING.to_be_bytes());
    let mut late = Wire::connect(node.address).await?;
    late.send(Head::upgrade("/raw/news").bytes()).await?;
    let refused = late.response().await?;
    ensure!(refused.status == 503 && refused.header("retry-after").is_some(), "{refused:?}");
    for (path, status) in [("/live", 200), ("/ready", 503)] {
        assert_eq!(http::get(node.address, path).await?.status, status);
    }
    drop(stays);
    assert_eq!(node.ended().await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn haproxy_sends_no_one_to_a_node_that_drains_and_takes_it_back_afterwards() -> Result<()> {
    let (listen, agent) = (Port::take()?, Port::take()?);
    let (at, agent_at) = (listen.address.to_string(), agent.address.to_string());
    let environment =
        [("FANFARE__HTTP__LISTEN", &*at), ("FANFARE__AGENT__LISTEN", &agent_at), ("FANFARE__TIMING__DRAIN_WAIT", "3s")];
    let mut node = wire::serve("fanfare", &environment).await?;
    let options = format!("weight 10 check inter 200ms agent-check agent-port {} agent-inter 50ms", agent.number());
    let tunnel = Tunnel::start(listen.address, &options).await?;
    tunnel.sees("UP").await?;
    let mut wire = Wire::open(tunnel.address(), "/raw/news").await?;
    node.signal("TERM").await?;
    tunnel.sees("DRAIN").await?;
    ensure!(Wire::open(tunnel.address(), "/raw/news").await.is_err(), "no client is sent there");
    assert_eq!(wire.end().await?.code, Some(RESTARTING), "the node closes the clients that it has");
    drop(wire);
    assert_eq!(node.ended().await?.code(), Some(0));

    let _node = wire::serve("fanfare", &environment).await?;
    tunnel.sees("UP").await?;
    Wire::open(tunnel.address(), "/raw/news").await.map(drop)
}

#[tokio::test]
async fn the_agent_says_down_while_there_is_no_broker() -> Result<()> {
    let redis = Redis::new(0)?;
    let url = redis.inside_url();
    let environment = [("FANFARE__AGENT__LISTEN", "127.0.0.1:0"), ("FANFARE__BROKER__URL", &url)];
    let node = Program::start("fanfare", &[], &environment).await?;
    let agent = agent::of(&node).await?;
    ensure!(agent::ask(agent).await?.starts_with("down #the broker"));
    redis.start().await?;
    agent::until(agent, "up ready").await.map(drop)
}

#[tokio::test]
async fn a_second_signal_ends_the_node_at_once_and_its_clients_get_1001() -> Result<()> {
    for (wait, second) in [("off", "TERM"), ("1h", "INT")] {
        let environment =
            [("FANFARE__TIMING__DRAIN", "1h"), ("FANFARE__TIMING__DRAIN_WAIT", wait), ("FANFARE__NODE__WORKERS", "1")];
        let mut node = wire::serve("fanfare", &environment).await?;
        let url = format!("http://{}", node.address);
        let clients = try_join_all((0..300).map(|_| Client::native(&url))).await?;
        let begin = Instant::now();
        node.signal("TERM").await?;
        node.line("stopping").await?;
        if wait == "off" {
            // The first is closed at once, the last after three seconds.
            until_closed(&clients, 1).await;
        }
        node.signal(second).await?;
        let status = node.ended().await?;
        ensure!(status.code() == Some(1), "{status}");
        // It would go on for an hour.
        ensure!(begin.elapsed() < LATE, "{:?}", begin.elapsed());
        node.line("stopped at once").await?;
        let ends: Vec<_> = join_all(clients.iter().map(Client::ended)).await.into_iter().collect::<Result<_>>()?;
        let gone = ends.iter().filter(|end| matches!(end, Ended::Closed(GONE, _))).count();
        let restarting = ends.iter().filter(|end| matches!(end, Ended::Closed(RESTARTING, _))).count();
        ensure!(gone > 0 && gone + restarting == ends.len(), "{gone} and {restarting} of {}", ends.len());
    }
    Ok(())
}

/// Waits until so many clients have received a close frame.
async fn until_closed(clients: &[Client], count: usize) {
    let mut ends: futures_util::stream::FuturesUnordered<_> = clients.iter().map(Client::ended).collect();
    for _ in 0..count {
        futures_util::StreamExt::next(&mut ends).await;
    }
}

#[tokio::test]
async fn a_client_that_waits_for_the_broker_gets_its_answer_before_it_is_sent_away() -> Result<()> {
    let redis = Redis::new(0)?;
    redis.start().await?;
    let url = redis.inside_url();
    let environment = [
        ("FANFARE__BROKER__URL", &*url),
        ("FANFARE__TIMING__DRAIN_WAIT", "off"),
        ("FANFARE__BROKER__PUBLISH_TIMEOUT", "15s"),
    ];
    let mut node = wire::serve("fanfare", &environment).await?;
    let mut wire = Wire::open(node.address, "/ws").await?;
    let mut other = Wire::open(node.address, "/ws").await?;
    redis.freeze().await?;
    wire.send(Frame::text(r#"{"id":1,"publish":{"channel":"news","data":"under way"}}"#).bytes()).await?;
    // Its answer comes after the publish was taken.
    assert_eq!(wire.ask(r#"{"id":2,"ping":{}}"#).await?["id"], 2);
    node.signal("TERM").await?;
    assert_eq!(other.end().await?.code, Some(RESTARTING), "a client without publishes under way is closed");
    drop(other);
    redis.thaw().await?;
    let end = wire.end().await?;
    let answer = end.frames.iter().find(|frame| frame.text().contains("\"id\":1")).context("no answer")?.text();
    ensure!(answer.contains("\"ok\":{\"at\":") && end.code == Some(RESTARTING), "{answer} {:?}", end.code);
    drop(wire);
    assert_eq!(node.ended().await?.code(), Some(0));
    Ok(())
}
